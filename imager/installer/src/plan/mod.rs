//! What will be done, decided from facts and answers, without any I/O.
//!
//! A plan prints, serialises and compares. Everything that is decided is in it; who carries it out decides nothing.
//! Where something stands against it, there is no plan, but all [`Refusals`] that apply.

mod disable;
mod keep;
mod newpool;
mod pools;
mod print;
mod target;

use serde::Serialize;
use siris_ibu::{ByteSize, Manifest, Sha256};
use siris_slots::Sizes;

use crate::answers::{Answers, DeviceId, End, InstallId, Mode};
use crate::facts::{Disk, DiskName, Facts};
use crate::refusal::Refusals;

pub use disable::Disabled;
pub use newpool::{DataDisk, NewPoolPlan};
pub use pools::{HostId, PoolPlan};
pub use target::{Kept, PartPlan, TargetPlan, Wipe};

/// What is to be installed, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its manifest, verified.
    pub manifest: Manifest,
    /// Digest of the manifest's bytes.
    pub digest: Sha256,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The install.
    pub id: String,
    /// What is made.
    pub mode: Mode,
    /// What is installed: product and version.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: Sha256,
    /// Disks that are written, the first one first.
    pub targets: Vec<TargetPlan>,
    /// The pool that is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_pool: Option<NewPoolPlan>,
    /// Other disks that are made unbootable.
    pub disabled: Vec<Disabled>,
    /// Every other disk.
    pub fenced: Vec<Fenced>,
    /// Every pool.
    pub pools: Vec<PoolPlan>,
    /// The host id that the new OS has.
    pub hostid: HostId,
    /// The box's settings, a line each.
    pub settings: Vec<String>,
    /// What happens when it is done.
    pub end: End,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where the GUIDs of the new partitions come from.
    #[serde(skip)]
    pub seed: Sha256,
    /// Sizes of the partitions.
    #[serde(skip)]
    pub sizes: Sizes,
}

impl Plan {
    /// Every disk that is opened for writing.
    pub fn opened(&self) -> impl Iterator<Item = &DiskName> {
        let targets = self.targets.iter().map(|target| &target.disk);
        let pool = self.new_pool.iter().flat_map(NewPoolPlan::all).map(|data| &data.disk);
        targets.chain(self.disabled.iter().map(|disabled| &disabled.disk)).chain(pool)
    }
}

/// A disk that is not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fenced {
    /// The disk.
    pub disk: DiskName,
    /// Its serial number, or what else it is known by.
    pub identity: String,
    /// Its number among all that the kernel has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// What it carries, in a word or two.
    pub carries: String,
    /// It is what the installer came on, and may be gone by now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub medium: bool,
}

/// What a plan is made for, beside facts and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose<'a> {
    /// What is installed.
    pub image: &'a Image,
    /// The install.
    pub id: InstallId,
    /// Where the GUIDs of new partitions come from: random, but for tests.
    pub seed: Sha256,
}

/// Decides.
///
/// # Errors
/// Every reason that stands against it.
pub fn plan(facts: &Facts, answers: &Answers, purpose: &Purpose<'_>) -> Result<Plan, Refusals> {
    let mut refusals = Refusals::default();
    let sizes = sizes(answers, &purpose.image.manifest);
    let targets = target::choose(facts, answers, &sizes, purpose, &mut refusals);
    let mut chosen: Vec<&DiskName> = targets.iter().map(|target| &target.disk).collect();
    let new_pool = newpool::decide(facts, answers, purpose, &chosen, &mut refusals);
    chosen.extend(new_pool.iter().flat_map(NewPoolPlan::all).map(|data| &data.disk));
    let disabled = disable::decide(facts, answers, &chosen, &mut refusals);
    fence(facts, &chosen, &mut refusals);
    chosen.extend(disabled.iter().map(|disabled| &disabled.disk));
    let pools = pools::decide(facts, answers, purpose, &mut refusals);
    let hostid = pools::hostid(facts, answers, &pools, &mut refusals);
    let manifest = &purpose.image.manifest;
    let others = facts.disks.iter().filter(|disk| !chosen.contains(&&disk.name));
    let fenced: Vec<Fenced> = others.map(|disk| fenced(disk, facts)).collect();
    let complete = (!targets.is_empty()).then(|| Plan {
        id: purpose.id.to_string(),
        mode: answers.mode,
        image: format!("{} {}", manifest.product, manifest.version),
        manifest: purpose.image.digest,
        notes: notes(facts, &targets),
        targets,
        new_pool,
        disabled,
        fenced,
        pools,
        hostid,
        settings: settings(answers),
        end: answers.end,
        seed: purpose.seed,
        sizes,
    });
    refusals.or(complete)
}

fn sizes(answers: &Answers, manifest: &Manifest) -> Sizes {
    let default = Sizes::default();
    let wanted = answers.slot_size.unwrap_or(default.slot).max(manifest.slot_size_min);
    let slot = ByteSize::from_bytes(wanted.bytes().next_multiple_of(1 << 20));
    let boot = ByteSize::from_bytes(manifest.boot.size.bytes().next_multiple_of(1 << 20)).max(default.boot);
    Sizes { slot, boot, ..default }
}

/// What must hold for every disk that is not written.
fn fence(facts: &Facts, chosen: &[&DiskName], refusals: &mut Refusals) {
    if !facts.live {
        refusals.add(
            "not-live",
            "this machine does not run from an installer's medium",
            "boot the medium: only there every disk is closed before anything else looks at it",
        );
    }
    for disk in facts.disks.iter().filter(|disk| !chosen.contains(&&disk.name)) {
        let name = who(disk);
        if !disk.holders.is_empty() {
            refusals.add(
                "fenced-disk-has-holders",
                format!("{name} is held by {}, which can write to it through the fence", disk.holders.join(", ")),
                "boot the medium again without what assembles it; please report which program did",
            );
        }
        if !disk.used_as.is_empty() {
            refusals.add(
                "fenced-disk-in-use",
                format!("{name} is in use ({})", disk.used_as.join(", ")),
                "unmount it, or boot the medium again",
            );
        }
        if facts.live && !facts.is_medium(disk) {
            if !disk.read_only {
                refusals.add(
                    "disk-not-fenced",
                    format!("{name} is not read-only"),
                    format!("close it with `blockdev --setro /dev/{}`, or boot the medium again", disk.name),
                );
            }
            if (disk.written, disk.discarded) != (0, 0) {
                refusals.add(
                    "fenced-disk-written",
                    format!(
                        "{name} was written to since the medium was booted ({} sectors written, {} discarded)",
                        disk.written, disk.discarded
                    ),
                    "find out what wrote to it; boot the medium again",
                );
            }
        }
    }
}

/// A disk, for messages.
pub(crate) fn who(disk: &Disk) -> String {
    let serial = disk.serial.as_ref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
    format!("/dev/{} ({}{serial})", disk.name, disk.size.rounded())
}

fn fenced(disk: &Disk, facts: &Facts) -> Fenced {
    Fenced {
        disk: disk.name.clone(),
        identity: disk.identity().to_owned(),
        diskseq: disk.diskseq,
        carries: crate::report::carries(disk, facts),
        medium: facts.is_medium(disk),
    }
}

fn notes(facts: &Facts, targets: &[TargetPlan]) -> Vec<String> {
    let mut notes = Vec::new();
    for disk in facts.disks.iter().filter(|disk| disk.unreadable.is_some()) {
        notes.push(format!("/dev/{} cannot be read: what it carries is unknown", disk.name));
    }
    for target in targets.iter().filter(|target| !target.bios) {
        notes.push(format!("/dev/{} has sectors of {} bytes: it boots under UEFI only", target.disk, target.sector));
    }
    notes
}

fn settings(answers: &Answers) -> Vec<String> {
    let identity = &answers.identity;
    let mut lines = vec![format!("role {}", identity.role.as_str())];
    lines.extend(identity.hostname.iter().map(|name| format!("host name {name}")));
    lines.push(match identity.device_id {
        DeviceId::Restore => "device id: who the box was, if its pools know it".to_owned(),
        DeviceId::New => "device id: a new one".to_owned(),
        DeviceId::Given(id) => format!("device id {id}"),
    });
    lines.extend(identity.timezone.iter().map(|zone| format!("time zone {zone}")));
    lines.push(format!("SSH keys: {}", answers.access.ssh_keys.len()));
    lines.push(format!("root password: {}", if answers.access.password_hash.is_some() { "set" } else { "none" }));
    lines.extend(crate::state::network_lines(&answers.network));
    lines
}

#[cfg(test)]
mod tests;
