//! Clients' side of the interfaces. The same members, with their documentation, are in `agent/api/xml`.

use std::collections::HashMap;

use zbus::{OwnedObjectPath, OwnedVariant};

use crate::wire::{
    ConfigMap, Details, ExpectedPool, HealthReason, HoldRow, Options, PoolMember, PruneRow, SlotStatus, SnapshotRow,
    SnapshotRows,
};

/// `org.siris.Agent1.Manager`.
#[zbus::proxy(
    interface = "org.siris.Agent1.Manager",
    default_service = "org.siris.Agent1",
    default_path = "/org/siris/Agent1"
)]
pub trait Manager {
    /// Image version of the running OS.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
    /// Product (image id) of the running OS.
    #[zbus(property(emits_changed_signal = "const"))]
    fn product(&self) -> zbus::Result<String>;
    /// `local` or `cloud`.
    #[zbus(property)]
    fn role(&self) -> zbus::Result<String>;
    /// UUID of the box.
    #[zbus(property(emits_changed_signal = "const"))]
    fn device_id(&self) -> zbus::Result<String>;
    /// See [`crate::Health`].
    #[zbus(property)]
    fn health(&self) -> zbus::Result<String>;
    /// Why the health is not `healthy`.
    #[zbus(property)]
    fn health_reasons(&self) -> zbus::Result<Vec<HealthReason>>;
    /// Pools the box is to have, imported or not.
    #[zbus(property)]
    fn expected_pools(&self) -> zbus::Result<Vec<ExpectedPool>>;
    /// Seconds since the OS booted.
    #[zbus(property(emits_changed_signal = "false"))]
    fn uptime(&self) -> zbus::Result<u64>;
    /// The box's host name.
    #[zbus(property(emits_changed_signal = "false"))]
    fn hostname(&self) -> zbus::Result<String>;

    /// The object of the imported pool of that name.
    fn find_pool(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    /// The object of an asset's dataset, by the dataset's name or the asset's UUID.
    fn find_dataset(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    /// The snapshots of every dataset of an asset whose name comes after the given one, by name: of so many datasets that they are
    /// about `limit`, and of one at least. Nothing where there are no more.
    fn list_snapshots(&self, after: &str, limit: u32, options: Options<'_>) -> zbus::Result<Vec<SnapshotRows>>;
    /// Has the agent look at the pools; returns when what it saw is on the bus.
    fn refresh_pools(&self, options: Options<'_>) -> zbus::Result<()>;
    /// As [`Self::refresh_pools`], of the datasets of assets only.
    fn refresh_datasets(&self, options: Options<'_>) -> zbus::Result<()>;
    /// Destroys a clone that [`DatasetProxy::clone_point`] made; returns its snapshot's name, and the bytes it took. With
    /// `dry-run` nothing is destroyed.
    #[zbus(allow_interactive_auth)]
    fn destroy_clone(&self, name: &str, options: Options<'_>) -> zbus::Result<(String, u64)>;
    /// Gives up an expected pool that is not imported.
    #[zbus(allow_interactive_auth)]
    fn forget_pool(&self, guid: u64, options: Options<'_>) -> zbus::Result<()>;
    /// Every key of the configuration that is set.
    fn get_config(&self, options: Options<'_>) -> zbus::Result<ConfigMap>;
    /// The signed receipt of the install that made this box (JSON, byte for byte as it was signed).
    fn get_receipt(&self, options: Options<'_>) -> zbus::Result<Vec<u8>>;
    /// Sets one key; says what it takes for the change to come into effect (empty: nothing, `reboot`).
    #[zbus(allow_interactive_auth)]
    fn set_config(&self, key: &str, value: &OwnedVariant, options: Options<'_>) -> zbus::Result<String>;
    /// Takes one key out of the configuration; returns as [`Self::set_config`].
    #[zbus(allow_interactive_auth)]
    fn unset_config(&self, key: &str, options: Options<'_>) -> zbus::Result<String>;
    /// A tar.gz with what support needs and no secrets.
    #[zbus(allow_interactive_auth)]
    fn support_bundle(&self, options: Options<'_>) -> zbus::Result<Vec<u8>>;
}

/// `org.siris.Agent1.Pool`.
#[zbus::proxy(interface = "org.siris.Agent1.Pool", default_service = "org.siris.Agent1", assume_defaults = false)]
pub trait Pool {
    /// Pool name.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    /// Pool guid.
    #[zbus(property(emits_changed_signal = "const"))]
    fn guid(&self) -> zbus::Result<u64>;
    /// `ONLINE`, `DEGRADED`, `FAULTED`, `SUSPENDED`, `UNAVAIL`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Bytes, as `zpool list` counts them.
    #[zbus(property)]
    fn size(&self) -> zbus::Result<u64>;
    /// Bytes not allocated when the agent last looked.
    #[zbus(property)]
    fn free(&self) -> zbus::Result<u64>;
    /// Data errors that ZFS could not repair.
    #[zbus(property)]
    fn errors(&self) -> zbus::Result<u64>;
    /// Leaves of the vdev tree.
    #[zbus(property)]
    fn members(&self) -> zbus::Result<Vec<PoolMember>>;
}

/// `org.siris.Agent1.Dataset`.
#[zbus::proxy(interface = "org.siris.Agent1.Dataset", default_service = "org.siris.Agent1", assume_defaults = false)]
pub trait Dataset {
    /// `POOL/PATH`.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    /// Dataset guid.
    #[zbus(property(emits_changed_signal = "const"))]
    fn guid(&self) -> zbus::Result<u64>;
    /// UUID of the asset whose backups it holds.
    #[zbus(property)]
    fn asset(&self) -> zbus::Result<String>;
    /// The asset's number, unique in the fleet; 0 where it has none.
    #[zbus(property)]
    fn asset_id(&self) -> zbus::Result<u64>;
    /// What people call the asset; empty where nobody has said.
    #[zbus(property)]
    fn asset_name(&self) -> zbus::Result<String>;
    /// Bytes it takes, snapshots included, when the agent last looked.
    #[zbus(property)]
    fn used(&self) -> zbus::Result<u64>;
    /// Its snapshots.
    #[zbus(property)]
    fn snapshot_count(&self) -> zbus::Result<u64>;
    /// `primary` (written to here), `replica` (was that once), or empty where nobody has said.
    #[zbus(property)]
    fn role(&self) -> zbus::Result<String>;
    /// The name of the newest one; empty when there are none.
    #[zbus(property)]
    fn newest_snapshot(&self) -> zbus::Result<String>;

    /// Snapshots made after the transaction group `after` (0: from the first on), oldest first: `limit` of them, and those of the last one's group.
    fn list_snapshots(&self, after: u64, limit: u32, options: Options<'_>) -> zbus::Result<Vec<SnapshotRow>>;
    /// Takes a recovery point of it and all that lies in it; returns its name.
    #[zbus(allow_interactive_auth)]
    fn snapshot(&self, options: Options<'_>) -> zbus::Result<String>;
    /// Destroys the recovery points that the retention policy lets go and nothing needs; says of each what becomes of it,
    /// and why. With `dry-run` nothing is destroyed.
    #[zbus(allow_interactive_auth)]
    fn prune(&self, options: Options<'_>) -> zbus::Result<Vec<PruneRow>>;
    /// Has it written to here from now on: no vector changes it any more.
    #[zbus(allow_interactive_auth)]
    fn take_over(&self, options: Options<'_>) -> zbus::Result<()>;
    /// Sets the dataset's own retention policy; empty takes it away.
    #[zbus(allow_interactive_auth)]
    fn set_retention(&self, policy: &str, options: Options<'_>) -> zbus::Result<()>;
    /// The policy, the dataset's own or that of what it lies in; empty where there is none.
    fn get_retention(&self) -> zbus::Result<String>;
    /// Sets what the asset is called: `id` (0 takes it away) or `next-id`, and `name` (empty takes it away).
    #[zbus(allow_interactive_auth)]
    fn describe(&self, options: Options<'_>) -> zbus::Result<()>;
    /// The records of the vectors that have to do with it, as they came with it: `id`, `from`, `from-device`, `source`, `to`,
    /// `to-device`, `target` and `tier`, each a text.
    fn get_vectors(&self) -> zbus::Result<Vec<HashMap<String, String>>>;
    /// Holds a snapshot, by its name or the time of a recovery point as RFC 3339 has it; one that is held so already is no
    /// error. Returns its name.
    #[zbus(allow_interactive_auth)]
    fn hold(&self, point: &str, tag: &str, options: Options<'_>) -> zbus::Result<String>;
    /// Takes a hold back; returns the snapshot's name.
    #[zbus(allow_interactive_auth)]
    fn release(&self, point: &str, tag: &str, options: Options<'_>) -> zbus::Result<String>;
    /// The holds on those of these snapshots that are there.
    fn list_holds(&self, points: &[&str], options: Options<'_>) -> zbus::Result<Vec<HoldRow>>;
    /// Makes a clone of a snapshot, which is not mounted.
    #[zbus(name = "Clone", allow_interactive_auth)]
    fn clone_point(&self, point: &str, target: &str, options: Options<'_>) -> zbus::Result<()>;
    /// Destroys a recovery point that nothing needs, of the dataset and all that lies in it; returns the names of the snapshots
    /// that went. With `dry-run` nothing is destroyed.
    #[zbus(allow_interactive_auth)]
    fn destroy_point(&self, point: &str, options: Options<'_>) -> zbus::Result<Vec<String>>;
}

/// `org.siris.Agent1.Replication`.
#[zbus::proxy(
    interface = "org.siris.Agent1.Replication",
    default_service = "org.siris.Agent1",
    default_path = "/org/siris/Agent1/replication"
)]
pub trait Replication {
    /// How many vectors sync at once.
    #[zbus(property)]
    fn at_once(&self) -> zbus::Result<u32>;

    /// Sets `at-once` (u).
    #[zbus(allow_interactive_auth)]
    fn configure(&self, options: Options<'_>) -> zbus::Result<()>;
    /// The public key that a machine of that name is dialled with; made where there is none.
    #[zbus(allow_interactive_auth)]
    fn own_key(&self, name: &str) -> zbus::Result<String>;
    /// Keeps a machine to dial: `kind`, `host`, `port`, `host-key`, `device`, `prefix`. One that is kept so already is no error.
    #[zbus(allow_interactive_auth)]
    fn add_machine(&self, name: &str, machine: Options<'_>) -> zbus::Result<()>;
    /// Forgets a machine, and destroys the key it was dialled with.
    #[zbus(allow_interactive_auth)]
    fn remove_machine(&self, name: &str, options: Options<'_>) -> zbus::Result<()>;
    /// Machines that this box dials.
    fn list_machines(&self) -> zbus::Result<Details>;
    /// Lets a machine dial this one: `device`, `key`, `prefix`, `receive`, `send`. One that may already is no error. Returns
    /// this box's device id and host key.
    #[zbus(allow_interactive_auth)]
    fn allow_peer(&self, name: &str, peer: Options<'_>) -> zbus::Result<(String, String)>;
    /// Takes that back.
    #[zbus(allow_interactive_auth)]
    fn remove_peer(&self, name: &str, options: Options<'_>) -> zbus::Result<()>;
    /// Machines that may dial this box.
    fn list_peers(&self) -> zbus::Result<Details>;
    /// Makes a vector: `dataset`, `machine`, `from`, `direction`, `other`, `tier`, `mode`, `path`. Returns its object.
    #[zbus(allow_interactive_auth)]
    fn add_vector(&self, vector: Options<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Sets aside what a target's dataset has since its snapshot `back-to` (s), or all of it; the name it has then.
    #[zbus(allow_interactive_auth)]
    fn set_aside(&self, dataset: &str, options: Options<'_>) -> zbus::Result<String>;
}

/// `org.siris.Agent1.Vector`.
#[zbus::proxy(interface = "org.siris.Agent1.Vector", default_service = "org.siris.Agent1", assume_defaults = false)]
pub trait Vector {
    /// `UUID_N`: device id of the box that made it, and its number there.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;
    /// The other machine.
    #[zbus(property(emits_changed_signal = "const"))]
    fn machine(&self) -> zbus::Result<String>;
    /// `push`, `pull` or `relay`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn direction(&self) -> zbus::Result<String>;
    /// Of a relay, the machine that the data comes from.
    #[zbus(property(emits_changed_signal = "const"))]
    fn from(&self) -> zbus::Result<String>;
    /// `zfs` (streams) or `rsync` (a directory of a machine that need not have ZFS).
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> zbus::Result<String>;
    /// The dataset on the source, or the directory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn source(&self) -> zbus::Result<String>;
    /// The dataset on the target, or the directory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn target(&self) -> zbus::Result<String>;
    /// `primary` or `secondary`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn tier(&self) -> zbus::Result<String>;
    /// Who goes first where several wait: 1 (first) to 5.
    #[zbus(property)]
    fn priority(&self) -> zbus::Result<u32>;
    /// How much of the link it may take, and when: `mon-fri/08:00-18:00=2MiB none`.
    #[zbus(property)]
    fn limits(&self) -> zbus::Result<String>;
    /// When it syncs by itself: `points`, a period (`6h`), or times of day (`02:00 mon-fri/22:30`).
    #[zbus(property)]
    fn when(&self) -> zbus::Result<String>;
    /// When a sync is next due by that, in seconds since 1970; 0 with `points`, and while it is paused.
    #[zbus(property(emits_changed_signal = "false"))]
    fn next_at(&self) -> zbus::Result<u64>;
    /// `idle`, `waiting`, `syncing`, `paused` or `failed`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Why the last sync failed: its code, a colon, a text. Empty when it did not.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<String>;
    /// Bytes that the sync under way, or else the last one, has sent.
    #[zbus(property)]
    fn sent(&self) -> zbus::Result<u64>;
    /// Bytes a second, of late; 0 when it does not sync.
    #[zbus(property)]
    fn rate(&self) -> zbus::Result<u64>;
    /// Bytes that the stream under way still has, by the source's estimate; 0 when that is not known.
    #[zbus(property)]
    fn remaining(&self) -> zbus::Result<u64>;
    /// The newest snapshot that both ends have; empty when none is known.
    #[zbus(property)]
    fn base(&self) -> zbus::Result<String>;
    /// The newest snapshot of which both ends were read and found the same; empty where none was, or the last was not.
    #[zbus(property)]
    fn proven_to(&self) -> zbus::Result<String>;
    /// When a sync last ended well, in seconds since 1970; 0 when none has since the agent started.
    #[zbus(property)]
    fn synced_at(&self) -> zbus::Result<u64>;

    /// Syncs, or has it wait for its turn; returns at once.
    #[zbus(allow_interactive_auth)]
    fn sync(&self, options: Options<'_>) -> zbus::Result<()>;
    /// Has both ends read the newest snapshot that they share, each from its own disks, and compares. Returns its name, how
    /// many paths there are, some of those that differ, and bytes of content: `here-read` of `here-data`, and `there-read` of
    /// `there-data` unless the other machine does not say. Each end reads what was written since it read the dataset last;
    /// with `whole` all.
    #[zbus(allow_interactive_auth)]
    fn verify(&self, options: Options<'_>) -> zbus::Result<(String, u64, Vec<String>, HashMap<String, u64>)>;
    /// Has both ends change places: what was the replica is the primary, and is sent the other way from then on. The object
    /// is made anew.
    #[zbus(allow_interactive_auth)]
    fn turn(&self, options: Options<'_>) -> zbus::Result<()>;
    /// How far the target is behind: recovery points, seconds since the oldest of them was taken, bytes.
    fn lag(&self) -> zbus::Result<(u64, u64, u64)>;
    /// Sets `priority` (u), `limits` (s) and `when` (s), also of a sync under way.
    #[zbus(allow_interactive_auth)]
    fn configure(&self, options: Options<'_>) -> zbus::Result<()>;
    /// Stops it, until it is resumed. What was sent stays sent.
    #[zbus(allow_interactive_auth)]
    fn pause(&self) -> zbus::Result<()>;
    /// Has it go on.
    #[zbus(allow_interactive_auth)]
    fn resume(&self) -> zbus::Result<()>;
    /// Takes back what it has marked on both ends, and forgets it. With `here-only` the other end is left as it is.
    #[zbus(allow_interactive_auth)]
    fn remove(&self, options: Options<'_>) -> zbus::Result<()>;
}

/// `org.siris.Agent1.Upgrade`.
#[zbus::proxy(
    interface = "org.siris.Agent1.Upgrade",
    default_service = "org.siris.Agent1",
    default_path = "/org/siris/Agent1/upgrade"
)]
pub trait Upgrade {
    /// `a`, `b`, or empty when the box was not booted from a slot.
    #[zbus(property(emits_changed_signal = "const"))]
    fn boot_slot(&self) -> zbus::Result<String>;
    /// `idle` or `installing`.
    #[zbus(property)]
    fn operation(&self) -> zbus::Result<String>;
    /// Percent, what is done, and how deep in other steps that is (always 1).
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;
    /// Why the last install failed: its code, a colon, a text. Empty when it did not.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<String>;
    /// The install is over: 0 when the other slot is armed, 1 when it is not.
    #[zbus(signal)]
    fn completed(&self, result: i32) -> zbus::Result<()>;

    /// What a bundle is, and whether it is for this box. Reads its manifest and no more.
    fn inspect_fd(&self, bundle: zbus::Fd<'_>, options: Options<'_>) -> zbus::Result<ConfigMap>;
    /// Writes a bundle into the slot that is not booted, and arms it; returns when that has begun.
    #[zbus(allow_interactive_auth)]
    fn install_fd(&self, bundle: zbus::Fd<'_>, options: Options<'_>) -> zbus::Result<()>;
    /// As [`Self::inspect_fd`], of a bundle on a web server or a file of the box.
    #[zbus(allow_interactive_auth)]
    fn inspect_bundle(&self, source: &str, options: Options<'_>) -> zbus::Result<ConfigMap>;
    /// As [`Self::install_fd`], of a bundle on a web server or a file of the box.
    #[zbus(allow_interactive_auth)]
    fn install_bundle(&self, source: &str, options: Options<'_>) -> zbus::Result<()>;
    /// Stops an install; returns when it was told to. [`Self::receive_completed`] says when it is over.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;
    /// Reboots the box: `now`, `idle` (when nothing holds an inhibitor), `HH:MM` in UTC or a time as RFC 3339 has it;
    /// `cancel` takes that back. Returns what will be, in words.
    #[zbus(allow_interactive_auth)]
    fn reboot(&self, when: &str) -> zbus::Result<String>;
    /// Marks a slot (`a`, `b`, `booted`, `other`) as `good`, `bad` or `active`; returns its name and what was done.
    #[zbus(allow_interactive_auth)]
    fn mark(&self, state: &str, slot: &str) -> zbus::Result<(String, String)>;
    /// Both slots.
    fn get_slot_status(&self) -> zbus::Result<Vec<SlotStatus>>;
    /// The slot the next boot tries first.
    fn get_primary(&self) -> zbus::Result<String>;
}
