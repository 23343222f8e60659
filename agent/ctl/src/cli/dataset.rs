//! The arguments of `sirisctl dataset`.

use std::str::FromStr;

use clap::Subcommand;

/// The tag of the holds of whoever names none.
const OPERATOR: &str = "siris-operator";

/// A snapshot, as ZFS names it, with the asset's UUID or number in the dataset's place if need be. Its own part may be a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The dataset.
    pub dataset: String,
    /// What follows the `@`.
    pub point: String,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('@').filter(|(dataset, point)| !dataset.is_empty() && !point.is_empty());
        let (dataset, point) = parts.ok_or("it is POOL/DATASET@POINT")?;
        Ok(At { dataset: dataset.to_owned(), point: point.to_owned() })
    }
}

/// Commands on the datasets of assets. A dataset is named as ZFS does, POOL/PATH, or by its asset's UUID or number. A recovery point is
/// named by its second, or by its time: POOL/PATH@1568402268 is POOL/PATH@2019-09-13T19:17:48Z.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Lists them.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows one, and the vectors that have to do with it: where else there is a replica.
    Show {
        /// The dataset.
        dataset: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sets what an asset is called; what is set goes along with each replica.
    Describe {
        /// The dataset.
        dataset: String,
        /// Its number, which no other asset of the fleet has: digits, `next` for the next one of this box's range (`config set
        /// asset-ids`), or `none`.
        #[arg(long, required_unless_present = "name")]
        id: Option<String>,
        /// Its name, for people; empty takes it away.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists the snapshots of one, oldest first, with their times and who holds them; or those of all, without who holds them.
    Points {
        /// The dataset.
        dataset: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes a recovery point, and prints its name.
    Snapshot {
        /// The dataset.
        dataset: String,
    },
    /// Holds a recovery point, or another snapshot: nobody destroys it until it is released.
    ///
    /// What vectors need is held by them already, and these holds cannot be set or released here.
    Hold {
        /// POOL/DATASET@POINT.
        point: At,
        /// Whose hold it is. Each tag holds on its own.
        #[arg(long, default_value = OPERATOR)]
        tag: String,
    },
    /// Takes a hold back.
    Release {
        /// POOL/DATASET@POINT.
        point: At,
        /// Whose hold it is.
        #[arg(long, default_value = OPERATOR)]
        tag: String,
    },
    /// Makes a clone of a recovery point: a dataset that can be written to, and takes no space but for what is changed.
    ///
    /// It is not mounted: `zfs mount POOL/NAME` does that. As long as it is there its recovery point stays; `dataset destroy
    /// POOL/NAME` ends it.
    Clone {
        /// POOL/DATASET@POINT.
        point: At,
        /// The clone: on the same pool, and not in an asset's dataset.
        #[arg(value_name = "POOL/NAME")]
        target: String,
    },
    /// Destroys one recovery point that nothing needs, or a clone that `dataset clone` made.
    ///
    /// A point stays where a vector needs it, somebody holds it, a clone is made of it, or it is the newest; retention does not
    /// keep it. A clone stays where it has snapshots, or datasets in it. Nothing is forced.
    Destroy {
        /// POOL/DATASET@POINT, or the POOL/NAME of a clone.
        what: String,
        /// Do it. Without this it is only said what would go.
        #[arg(long)]
        yes: bool,
    },
    /// Destroys the recovery points that the retention policy lets go and nothing needs; says why the others stay.
    Prune {
        /// The dataset.
        #[arg(required_unless_present = "all")]
        dataset: Option<String>,
        /// Of every dataset that has a policy.
        #[arg(long, conflicts_with = "dataset")]
        all: bool,
        /// Destroy nothing, only say what would become of each.
        #[arg(long)]
        dry_run: bool,
    },
    /// Makes a replica the primary: it is written to here from now on, and no vector changes it any more.
    ///
    /// For when the machine that sent it is gone. Where both are there, `vector turn` loses nothing and leaves no two
    /// that are written to.
    TakeOver {
        /// The dataset.
        dataset: String,
    },
    /// Sets aside what a replica has that its source has not: the remedy where a vector says so.
    ///
    /// The dataset ends at the snapshot then, and what came after it, changes since its last snapshot among them, is in a
    /// dataset of another name, which is printed. Nothing is destroyed, and no space is taken twice.
    SetAside {
        /// POOL/DATASET@SNAPSHOT, the snapshot being the newest that both ends have; or without one, for the whole dataset.
        dataset: String,
    },
    /// Shows or sets the retention policy.
    ///
    /// For how long points stay: all of them, then the first one of each hour, day, week and month. Without a policy
    /// everything stays; what a vector or a restore needs stays in any case, and so does the newest point.
    Retention {
        /// The dataset.
        dataset: String,
        /// Words such as all=2d hourly=1w daily=1m weekly=3m monthly=2y (h, d, w, m: 30 days, y: 365 days), or none.
        policy: Vec<String>,
    },
}
