//! The arguments. Shell completions and man pages are made of this, too.

mod dataset;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use dataset::{At, DatasetCommand};

/// Asks and steers the agent of a SIRIS box.
///
/// Exit status: 0 done; 1 the agent could not do it; 2 the request cannot be met as given; 3 not allowed;
/// 4 the agent (or the host) cannot be reached; 5 the box did not become what was waited for.
#[derive(Debug, Parser)]
#[command(name = "sirisctl", version)]
pub struct Cli {
    /// Which box.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which box is asked, and how it is reached.
#[derive(Debug, Args)]
pub struct Remote {
    /// Ask the box HOST through SSH, as `[user@]host[:port]`.
    #[arg(short = 'H', long = "host", global = true, value_name = "HOST")]
    pub host: Option<String>,
    /// Give ssh this option, as with its own -o; may be repeated.
    #[arg(long = "ssh-option", global = true, value_name = "OPTION", requires = "host")]
    pub ssh_options: Vec<String>,
    /// The ssh to run, with arguments if need be.
    #[arg(
        long = "ssh",
        env = "SIRIS_SSH",
        global = true,
        value_name = "COMMAND",
        default_value = "ssh",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub ssh: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what the box is and how it is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads and changes the box's configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Shows the pools and their devices.
    #[command(args_conflicts_with_subcommands = true)]
    Pools {
        /// What else to do.
        #[command(subcommand)]
        command: Option<PoolsCommand>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows the datasets of protected machines; takes, holds, clones and destroys recovery points.
    Dataset {
        /// What to do.
        #[command(subcommand)]
        command: DatasetCommand,
    },
    /// Adds and removes machines that this box exchanges data with.
    Machine {
        /// What to do.
        #[command(subcommand)]
        command: MachineCommand,
    },
    /// Replicates datasets to other machines.
    Vector {
        /// What to do.
        #[command(subcommand)]
        command: VectorCommand,
    },
    /// Collects journal, versions and states, without secrets, into a tar.gz.
    SupportBundle {
        /// Where to; `-` is standard output. Default: a name made of device and time, here.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Prints the signed receipt of the install that made the box; `siris-installer verify-receipt` checks it.
    Receipt,
    /// Brings the box to another version: an Image Based Upgrade.
    Upgrade {
        /// What to do.
        #[command(subcommand)]
        command: UpgradeCommand,
    },
    /// Waits until the box is in a state.
    Wait {
        /// Seconds to wait at most.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// The state.
        health: Awaited,
    },
    /// Prints completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the man pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        dir: PathBuf,
    },
}

/// A state that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Awaited {
    /// Everything is there.
    Healthy,
    /// Everything is there, or what is not does not hinder the OS.
    Usable,
    /// The boot is over, whatever came of it.
    Started,
}

/// Commands on machines.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// Adds a machine that this box dials.
    ///
    /// Both boxes are asked: this one makes a key, the other one lets it do a few fixed things below one dataset. The
    /// other one is reached from here as with -H; where it cannot be, say `machine allow` there with this box's device id
    /// (`status`) and key (`machine key NAME`), and give what it prints as --device and --host-key. Said again, it completes what
    /// broke off; where this box does not take the machine, the other one does not let it in either.
    Add {
        /// Its name here.
        name: String,
        /// Where this box finds it: HOST or HOST:PORT.
        address: String,
        /// Below which dataset there this box may do something.
        #[arg(long, default_value = "homePool/home/agents")]
        prefix: String,
        /// This box may also fetch from there, which `vector add --pull`, a relay's source and `vector turn` need.
        #[arg(long)]
        send: bool,
        /// What the two know of each other is replaced, and vectors stay: one of them was installed anew, is found elsewhere, or
        /// may do something else now.
        #[arg(long)]
        replace: bool,
        /// How the other one is reached from here, as `[user@]host[:port]`. Default: root at its address.
        #[arg(long, value_name = "HOST", conflicts_with_all = ["device", "host_key"])]
        via: Option<String>,
        /// Its device id.
        #[arg(long, requires = "host_key", conflicts_with = "send")]
        device: Option<String>,
        /// Its host key, as in a .pub file.
        #[arg(long)]
        host_key: Option<String>,
        /// It has SSH, and ZFS or rsync, and no agent. This box's key for it is printed, to be let in as root there; with it this box
        /// can do there what root can.
        #[arg(long, requires = "host_key", conflicts_with_all = ["via", "device", "send"])]
        server: bool,
    },
    /// Lets a machine dial this box, with a key that can do a few fixed things below one dataset, and nothing else.
    Allow {
        /// Its name here.
        name: String,
        /// Its device id.
        #[arg(long)]
        device: String,
        /// Its public key, as `machine key` there prints it.
        #[arg(long)]
        key: String,
        /// The dataset.
        #[arg(long, default_value = "homePool/home/agents")]
        prefix: String,
        /// It may have streams received here.
        #[arg(long)]
        receive: bool,
        /// It may have streams sent from here.
        #[arg(long)]
        send: bool,
        /// The machine of that name was let in before, and has another key or other rights now.
        #[arg(long)]
        replace: bool,
    },
    /// Prints the public key that this box dials a machine with; makes it first if there is none.
    Key {
        /// The machine's name here.
        name: String,
    },
    /// Lists the machines that this box dials, and those that may dial it.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forgets a machine that this box dials. What it may do there is taken back there, with `machine forbid`.
    Remove {
        /// Its name here.
        name: String,
    },
    /// A machine may not dial this box any more.
    Forbid {
        /// Its name here.
        name: String,
    },
}

/// Commands on vectors. A vector is named by its id, or its number where that is enough.
#[derive(Debug, Subcommand)]
pub enum VectorCommand {
    /// Makes a vector: a dataset of this box is sent to a machine, whenever it has a new recovery point (or as `set --when` says).
    Add {
        /// The dataset of this box, POOL/home/agents/UUID or the asset's UUID or number.
        dataset: String,
        /// The machine.
        machine: String,
        /// It is fetched from the machine instead.
        #[arg(long)]
        pull: bool,
        /// It lies on this other machine: this box dials both, and relays it, where neither reaches the other.
        #[arg(long, value_name = "MACHINE", conflicts_with_all = ["pull", "rsync"])]
        from: Option<String>,
        /// The dataset on the machine. Default: the same UUID below the machine's prefix.
        #[arg(long, value_name = "DATASET")]
        other: Option<String>,
        /// With rsync, to this directory of the machine, which was added with --server and need not have ZFS; with --pull,
        /// from it.
        ///
        /// Sent there, the newest recovery point takes the place of the one before when it is whole. Fetched, the dataset,
        /// which has to be there, is made the same as the directory, and a recovery point is taken when that went well.
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "other")]
        rsync: Option<String>,
        /// The replica is the second place to restore from.
        #[arg(long)]
        secondary: bool,
    },
    /// Lists them.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows one, and how far its target is behind.
    Show {
        /// The vector.
        vector: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sets who goes first, how much of the link one may take, and when it syncs; also of a sync under way.
    Set {
        /// The vector.
        vector: String,
        /// 1 (first) to 5 where several wait; 3 where nothing was set.
        #[arg(long, required_unless_present_any = ["limit", "when"])]
        priority: Option<u32>,
        /// A rate each second (2MiB, 500KiB, none, stop), and before it other ones for days and hours by the box's clock:
        /// mon-fri/08:00-18:00=2MiB 22:00-06:00=none 20MiB. The first that fits the hour decides.
        #[arg(long, num_args = 1.., value_name = "WORD")]
        limit: Option<Vec<String>>,
        /// When it syncs by itself: points (with each new recovery point, as where nothing was set; one that fetches asks
        /// every 15 minutes), a period (30m, 6h, 1d), or times of day by the box's clock, each with its days unless it is
        /// every day's: 12:00 mon-fri/22:30 sat,sun/04:00.
        ///
        /// A period is from the beginning of one sync to that of the next. A time that passes while the box is off, the
        /// limit says stop or the vector is paused is made up for, several of them by one sync. What failed is tried again
        /// after 15 minutes whatever the times. Times count from when they are set.
        #[arg(long, num_args = 1.., value_name = "WORD")]
        when: Option<Vec<String>>,
    },
    /// Shows or sets how many sync at once.
    AtOnce {
        /// 1 to 64.
        count: Option<u32>,
    },
    /// Syncs one now, and waits until it is done.
    Sync {
        /// The vector.
        vector: String,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// Has both ends read the newest snapshot that they share, each from its own disks, and compares.
    ///
    /// Each end reads names and metadata, and of the content what was written since it last read the dataset; it takes the
    /// rest as it was then. That proves that what was written arrived. It finds neither bytes that have gone bad on a disk
    /// since, nor changes that ZFS itself knows nothing of. With --whole both read all of it, which finds these too. An end
    /// that has not read the dataset before, or cannot tell what was written, reads all either way.
    Verify {
        /// The vector.
        vector: String,
        /// Read all again, not only what was written since the last time. Takes as long as it takes to read all.
        #[arg(long)]
        whole: bool,
    },
    /// Has both ends of one change places: the replica becomes the primary, and the vector goes the other way.
    ///
    /// The source takes its last point and is read-only from then on, and nothing is lost. The other machine has to let
    /// this one both send and receive (`machine add --send`).
    Turn {
        /// The vector.
        vector: String,
    },
    /// Stops one until it is resumed. What was sent stays sent.
    Pause {
        /// The vector.
        vector: String,
    },
    /// Has one go on.
    Resume {
        /// The vector.
        vector: String,
    },
    /// Takes back what one has marked on both ends, and forgets it. The replica stays, and so does a copy made with rsync.
    Remove {
        /// The vector.
        vector: String,
        /// Leave the other end as it is: the machine is gone.
        #[arg(long)]
        here_only: bool,
    },
}

/// Commands on the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Shows every key that is set.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the value of one key; a list one item a line.
    Get {
        /// The key.
        key: String,
    },
    /// Sets a key: one value, or for a list any number of them.
    Set {
        /// Also where it is meant to be set at install only.
        #[arg(long)]
        force: bool,
        /// The key: role, hostname, timezone, ssh.authorized-keys, ntp.servers, dns.servers, asset-ids.
        key: String,
        /// The value or values.
        #[arg(required = true)]
        values: Vec<String>,
    },
    /// Takes a key out.
    Unset {
        /// Also where it is meant to be set at install only.
        #[arg(long)]
        force: bool,
        /// The key.
        key: String,
    },
}

/// Commands on upgrades.
#[derive(Debug, Subcommand)]
pub enum UpgradeCommand {
    /// Shows what a bundle is, and whether it is for this box. Nothing is written.
    Inspect {
        /// The bundle: a file, `-` for standard input, or an address that starts with http:// or https://.
        bundle: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes a bundle into the slot that is not booted; the next boot tries it, and keeps it if the box is healthy.
    Install {
        /// The bundle: a file, `-` for standard input, or an address that starts with http:// or https://.
        ///
        /// With -H a file is streamed to the box. An address is fetched by the box, which fetches only what it lacks
        /// where the server serves ranges.
        bundle: PathBuf,
        /// Also a version that is not newer than the running one.
        #[arg(long)]
        allow_downgrade: bool,
        /// Reboot when it is done: now, when nothing is running that must not be cut off (idle), at HH:MM (UTC), or at a
        /// time such as 2026-01-31T03:00:00Z.
        #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "now",
              value_parser = reboot_time)]
        reboot: Option<String>,
    },
    /// Stops an install. The box keeps the system that it runs.
    Cancel,
    /// Shows the slots, and how far an install is.
    Status,
    /// Has the next boot try this slot first; it has to be good, or armed.
    Activate {
        /// `a`, `b`, `booted` or `other`.
        slot: String,
    },
    /// Has the next boot try the slot that is not booted, which has to be good.
    Rollback {
        /// Reboot then: now, idle, HH:MM (UTC), or a time such as 2026-01-31T03:00:00Z.
        #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "now",
              value_parser = reboot_time)]
        reboot: Option<String>,
    },
    /// Reboots the box, or takes that back.
    Reboot {
        /// now, idle (when nothing is running that must not be cut off), HH:MM (UTC), a time such as
        /// 2026-01-31T03:00:00Z, or cancel.
        #[arg(value_parser = reboot_time)]
        when: String,
    },
    /// Marks a slot.
    Mark {
        /// `good` (the booted slot, as if it was found healthy), `bad` (not to be booted again), or `active`.
        state: String,
        /// `a`, `b`, `booted` or `other`.
        #[arg(default_value = "booted")]
        slot: String,
    },
}

/// Commands on the pools.
#[derive(Debug, Subcommand)]
pub enum PoolsCommand {
    /// Has the agent look at the pools again.
    Refresh,
    /// Gives up an expected pool that will not come back. The pool itself is not touched.
    Forget {
        /// Its guid.
        guid: u64,
    },
}

/// What can only be a time to the box: it goes through a shell where it is passed on over SSH.
fn reboot_time(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":+-.".contains(c);
    match !text.is_empty() && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("it is now, idle, HH:MM (UTC), or a time such as 2026-01-31T03:00:00Z".to_owned()),
    }
}
