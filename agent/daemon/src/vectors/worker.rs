//! The process that syncs one vector: it ends when it has, and its memory with it.
//!
//! Out: a line of JSON for each [`Said`], on its standard output. Owns: that a broken link is tried again, with pauses.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use siris_zfs::{DatasetName, Datasets, Refusal, Snapshot};

use super::digest::{Amount, Scope};
use super::end::{End, EndError, Local};
use super::keys;
use super::lag::{self, Lag};
use super::limit::{Limits, Rate};
use super::pace::{Pace, Speed};
use super::plan::Obstacle;
use super::prove::{Proof, prove};
use super::record::{Direction, Machine, MachineKind, Vector};
use super::remote::{Remote, Ssh};
use super::role;
use super::rsync::{Mirror, MirrorError, Way};
use super::server::Server;
use super::sync::{Pair, SyncError, Watch, sync};
use super::travel::{self, VectorRecord};
use crate::identity::{IdentityError, ensure_device_id};
use crate::observe;
use crate::root::Root;
use crate::store::{Store, StoreError};

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum Said {
    /// So many bytes of streams have left since it began.
    Sent {
        /// Bytes.
        bytes: u64,
        /// Bytes a second, of late.
        rate: u64,
        /// Bytes that the stream under way still has, by the source's estimate; 0 where that is not known.
        remaining: u64,
    },
    /// The vector's limit lets nothing pass at this hour. What was sent stays sent.
    Held,
    /// How far the target is behind.
    Lag {
        /// Recovery points that it lacks.
        points: u64,
        /// Seconds since the oldest of them was taken; 0 where none is, or its name does not say when it was.
        seconds: u64,
        /// Bytes to be sent, by the source's estimate.
        bytes: u64,
    },
    /// The link broke, and is tried again.
    Again {
        /// Why.
        text: String,
        /// Seconds from now.
        wait: u64,
    },
    /// Both ends have this snapshot as their newest.
    Synced {
        /// Its name.
        base: String,
        /// And its guid.
        guid: u64,
        /// Bytes that were sent for it.
        bytes: u64,
        /// The target had nothing when it began.
        anew: bool,
    },
    /// The newest snapshot that both ends have was compared.
    Compared {
        /// Its name.
        base: String,
        /// The digest of what the source has in it.
        digest: String,
        /// How many paths there are.
        paths: u64,
        /// Some of those that differ, for people; none where the replica is what it should be.
        differing: Vec<String>,
        /// Bytes that this machine has read for it, of how many.
        here: Option<(u64, u64)>,
        /// And the other one; absent where it does not say.
        there: Option<(u64, u64)>,
    },
    /// The target is the primary now; nothing but the record is left to be turned.
    Turned,
    /// Nothing marks anything for the vector any more.
    Forgotten,
    /// It is over, and something is to be done.
    Failed {
        /// Stable code.
        code: String,
        /// What, why, and what to do.
        text: String,
    },
}

/// Why it could not begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no vector {0}")]
    NoVector(u64),
    #[error(transparent)]
    Device(#[from] IdentityError),
}

/// How many paths that differ are named.
const SHOWN: usize = 20;
/// Longest pause before a broken link is tried again, and how many tries may pass without a byte.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const TRIES: u32 = 14;
/// How many may in a row if what arrives is not what was sent, whatever passes: that is no link that is down for a while.
const TRIES_DAMAGED: u32 = 3;
/// How often it says how far it is.
const TOLD: Duration = Duration::from_secs(1);

/// Syncs the vector, and says how it goes. Says whether it went well.
pub fn run(root: &Root, zfs: &dyn Datasets, number: u64, out: &mut (dyn Write + Send)) -> bool {
    let mut teller = Teller::new(out, || limits(root, number));
    let ended = begin(root, number);
    let said = match ended {
        Err(error) => Said::Failed { code: "sync-not-begun".to_owned(), text: crate::chain(&error) },
        Ok(begun) => match begun.sync(root, zfs, &mut teller) {
            Ok(base) => Said::Synced {
                base: base.label.to_string(),
                guid: base.guid.as_u64(),
                bytes: teller.bytes,
                anew: teller.anew,
            },
            Err(SyncError::Stopped) if teller.held => Said::Held,
            Err(error) => Said::Failed { code: error.code().to_owned(), text: crate::chain(&error) },
        },
    };
    say(teller.out, &said);
    matches!(said, Said::Synced { .. } | Said::Held)
}

/// Takes back what the vector has marked, here and, unless that is left as it is, on the other machine. Says whether it
/// went well.
pub fn forget(root: &Root, zfs: &dyn Datasets, number: u64, here_only: bool, out: &mut dyn Write) -> bool {
    let said = match begin(root, number) {
        Err(error) => Said::Failed { code: "sync-not-begun".to_owned(), text: crate::chain(&error) },
        Ok(begun) => match begun.forget(root, zfs, here_only) {
            Ok(()) => Said::Forgotten,
            Err(error) => Said::Failed { code: error.code().to_owned(), text: crate::chain(&error) },
        },
    };
    say(out, &said);
    said == Said::Forgotten
}

/// Has both ends change places. Says whether they have.
pub fn turn(root: &Root, zfs: &dyn Datasets, number: u64, out: &mut (dyn Write + Send)) -> bool {
    let failed = |code: &str, text| Said::Failed { code: code.to_owned(), text };
    let mut teller = Teller::new(out, Limits::default);
    let said = match begin(root, number) {
        Err(error) => failed("sync-not-begun", crate::chain(&error)),
        Ok(begun) => match begun.turn(root, zfs, &mut teller) {
            Ok(()) => Said::Turned,
            Err(error) => failed(error.code(), crate::chain(&error)),
        },
    };
    say(teller.out, &said);
    said == Said::Turned
}

/// Asks how far the target is behind, as the source has it. Says whether it could.
pub fn lag(root: &Root, zfs: &dyn Datasets, number: u64, out: &mut dyn Write) -> bool {
    let failed = |code: &str, text| Said::Failed { code: code.to_owned(), text };
    let said = match begin(root, number) {
        Err(error) => failed("sync-not-begun", crate::chain(&error)),
        Ok(begun) => match begun.lag(root, zfs) {
            Ok(Lag { points, seconds, bytes }) => Said::Lag { points, seconds, bytes },
            Err(error) => failed(error.code(), crate::chain(&error)),
        },
    };
    say(out, &said);
    matches!(said, Said::Lag { .. })
}

/// The vector's limits as they are on record now. Where they cannot be read, nothing is limited: a backup that is not
/// there is worse than a slow link.
fn limits(root: &Root, number: u64) -> Limits {
    let vector = Store::read(root).ok().flatten().and_then(|store| store.vector(number).ok());
    vector.map(|vector| vector.limits).unwrap_or_default()
}

/// Compares what both ends have in the newest snapshot that they share. Says whether they are the same.
pub fn verify(root: &Root, zfs: &dyn Datasets, number: u64, scope: Scope, out: &mut dyn Write) -> bool {
    let said = match begin(root, number) {
        Err(error) => Said::Failed { code: "sync-not-begun".to_owned(), text: crate::chain(&error) },
        Ok(begun) => match begun.verify(root, zfs, scope) {
            Err(error) => Said::Failed { code: error.code().to_owned(), text: crate::chain(&error) },
            Ok(proof) => begun.compared(proof),
        },
    };
    say(out, &said);
    matches!(said, Said::Compared { differing, .. } if differing.is_empty())
}

/// An end here or elsewhere.
type AnyEnd<'a> = Box<dyn End + 'a>;

struct Begun {
    pair: Pair,
    vector: Vector,
    machine: Machine,
    /// Where a relay's data comes from.
    from: Option<Machine>,
}

fn begin(root: &Root, number: u64) -> Result<Begun, BeginError> {
    let store = Store::read(root)?.ok_or(BeginError::NoVector(number))?;
    let vector = store.vector(number)?;
    let machine = store.machine(vector.machine.as_str())?;
    let from = vector.from.as_ref().map(|from| store.machine(from.as_str())).transpose()?;
    let device = ensure_device_id(root)?;
    let record = VectorRecord::of(&vector, device, &observe::hostname(root), &machine, from.as_ref());
    let pair = Pair { id: vector.id(device), source: vector.source.clone(), target: vector.target.clone(), record };
    Ok(Begun { pair, vector, machine, from })
}

impl Begun {
    /// As [`patiently`], with both ends of ZFS.
    fn patiently<T>(
        &self,
        root: &Root,
        zfs: &dyn Datasets,
        teller: &mut Teller<'_>,
        work: impl Fn(&dyn End, &dyn End, &mut dyn Watch) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        patiently(teller, |teller| self.with_ends(root, zfs, |source, target| work(source, target, &mut *teller)))
    }

    fn sync(&self, root: &Root, zfs: &dyn Datasets, teller: &mut Teller<'_>) -> Result<Snapshot, SyncError> {
        if self.vector.path.is_some() {
            let synced = patiently(teller, |teller| self.mirrored(root, zfs, |mirror| mirror.sync(teller)))?;
            travel::enter(zfs, self.here(), &self.pair.record).map_err(MirrorError::from)?;
            return Ok(synced);
        }
        self.patiently(root, zfs, teller, |source, target, watch| sync(&self.pair, source, target, watch))
    }

    /// First what can be sent while the source is written to: what does not fit is found out, and little is left for later.
    fn turn(&self, root: &Root, zfs: &dyn Datasets, teller: &mut Teller<'_>) -> Result<(), SyncError> {
        if self.vector.path.is_some() {
            return Err(MirrorError::NotTurned.into());
        }
        match self.sync(root, zfs, teller) {
            // It comes to its own words.
            Err(SyncError::Obstacle(Obstacle::TargetIsPrimary(_) | Obstacle::NoPoints)) | Ok(_) => {}
            Err(error) => return Err(error),
        }
        self.patiently(root, zfs, teller, |source, target, watch| role::turn(&self.pair, source, target, watch))
    }

    fn verify(&self, root: &Root, zfs: &dyn Datasets, scope: Scope) -> Result<Proof, SyncError> {
        if self.vector.path.is_some() {
            return self.mirrored(root, zfs, |mirror| mirror.verify());
        }
        self.with_ends(root, zfs, |source, target| prove(&self.pair, source, target, scope))
    }

    /// Works on a vector whose other end is a directory.
    fn mirrored<T>(
        &self,
        root: &Root,
        zfs: &dyn Datasets,
        work: impl FnOnce(&Mirror<'_>) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let Some(path) = &self.vector.path else { return Err(SyncError::Stuck) };
        let shell = ssh(root, &self.machine).map_err(MirrorError::from)?;
        let way = if self.vector.direction == Direction::Pull { Way::Pull } else { Way::Push };
        work(&Mirror { id: self.pair.id, dataset: self.here(), path, way, zfs, shell: &shell })
    }

    /// The dataset of this box, where the other end is a directory.
    fn here(&self) -> &DatasetName {
        if self.vector.direction == Direction::Pull { &self.pair.target } else { &self.pair.source }
    }

    fn with_ends<T>(
        &self,
        root: &Root,
        zfs: &dyn Datasets,
        work: impl FnOnce(&dyn End, &dyn End) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let (source, target) = self.ends(root, zfs)?;
        work(&*source, &*target)
    }

    /// Source and target. New ones for each try: what was kept of a connection that broke is gone with it.
    fn ends<'a>(&self, root: &'a Root, zfs: &'a dyn Datasets) -> Result<(AnyEnd<'a>, AnyEnd<'a>), SyncError> {
        let here = || Box::new(Local::keeping(zfs, root));
        Ok(match (self.vector.direction, &self.from) {
            (Direction::Pull, _) => (reach(root, &self.machine).map_err(SyncError::Source)?, here()),
            (Direction::Relay, Some(from)) => {
                let source = reach(root, from).map_err(SyncError::Source)?;
                (source, reach(root, &self.machine).map_err(SyncError::Target)?)
            }
            _ => (here(), reach(root, &self.machine).map_err(SyncError::Target)?),
        })
    }

    fn compared(&self, proof: Proof) -> Said {
        let Proof { base, paths, digest, differing, source, target } = proof;
        let (here, there) = match self.vector.direction {
            Direction::Push => (source, target),
            Direction::Pull => (target, source),
            // None of it was read here.
            Direction::Relay => (None, None),
        };
        let amount = |amount: Amount| (amount.read, amount.data);
        Said::Compared {
            base: base.label.to_string(),
            digest,
            paths: paths as u64,
            differing: differing.iter().take(SHOWN).map(|path| path.display().to_string()).collect(),
            here: here.map(amount),
            there: there.map(amount),
        }
    }

    fn lag(&self, root: &Root, zfs: &dyn Datasets) -> Result<Lag, SyncError> {
        if self.vector.path.is_some() && self.vector.direction == Direction::Pull {
            return Err(MirrorError::LagUnknown.into());
        }
        lag::of(&self.pair, &*self.ends(root, zfs)?.0)
    }

    fn forget(&self, root: &Root, zfs: &dyn Datasets, here_only: bool) -> Result<(), SyncError> {
        let (pair, direction) = (&self.pair, self.vector.direction);
        if self.vector.path.is_some() {
            return Mirror::forget(zfs, self.here(), &pair.id).map_err(SyncError::Source);
        }
        let (source, target) = self.ends(root, zfs)?;
        let of_source = || source.forget(&pair.source, &pair.id).map_err(SyncError::Source);
        let of_target = || target.forget(&pair.target, &pair.id).map_err(SyncError::Target);
        // What lies elsewhere first: where that cannot be reached, all is as it was here.
        match (direction, here_only) {
            (Direction::Push, true) => of_source(),
            (Direction::Pull, true) => of_target(),
            (Direction::Relay, true) => Ok(()),
            (Direction::Pull, false) => of_source().and_then(|()| of_target()),
            (_, false) => of_target().and_then(|()| of_source()),
        }
    }
}

fn ssh(root: &Root, machine: &Machine) -> Result<Ssh, EndError> {
    let ssh = Ssh::new(machine.address.clone(), &keys::private(root, &machine.name));
    ssh.map_err(|error| EndError::Zfs(siris_zfs::ZfsError::Stream(error)))
}

/// Another machine, as an end.
fn reach(root: &Root, machine: &Machine) -> Result<AnyEnd<'static>, EndError> {
    let ssh = ssh(root, machine)?;
    Ok(match machine.kind {
        MachineKind::Device => Box::new(Remote::new(ssh)),
        MachineKind::Server => Box::new(Server::new(ssh)),
    })
}

/// Tries until it went well, or failed of something that does not pass.
fn patiently<T>(
    teller: &mut Teller<'_>,
    work: impl Fn(&mut Teller<'_>) -> Result<T, SyncError>,
) -> Result<T, SyncError> {
    let (mut tries, mut damaged, mut pause) = (0, 0, Duration::from_secs(1));
    loop {
        let before = teller.bytes;
        let error = match work(teller) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if is_damaged(&error) {
            damaged += 1;
        } else if teller.bytes > before {
            (tries, damaged, pause) = (0, 0, Duration::from_secs(1));
        }
        tries += 1;
        if !passes(&error) || tries > TRIES || damaged > TRIES_DAMAGED {
            return Err(error);
        }
        say(teller.out, &Said::Again { text: crate::chain(&error), wait: pause.as_secs() });
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether trying again may help.
fn passes(error: &SyncError) -> bool {
    let of_end = |error: &EndError| error.refusal() == Some(Refusal::Incomplete);
    match error {
        SyncError::Source(error) | SyncError::Target(error) => of_end(error),
        SyncError::Both { target_failed, .. } => of_end(target_failed),
        SyncError::Damaged(_) => true,
        SyncError::HalfTurned(error) => passes(error),
        SyncError::Mirror(error) => error.passes(),
        SyncError::Obstacle(_) | SyncError::Stuck | SyncError::Stopped | SyncError::Sealed(..) => false,
    }
}

/// Whether what arrived is not what was sent.
fn is_damaged(error: &SyncError) -> bool {
    match error {
        SyncError::Damaged(_) => true,
        SyncError::HalfTurned(error) => is_damaged(error),
        _ => false,
    }
}

/// Says it; whether somebody listens.
fn say(out: &mut dyn Write, said: &Said) -> bool {
    let line = serde_json::to_string(said).unwrap_or_default();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Tells how a sync goes, and keeps it to its limit.
struct Teller<'a> {
    out: &'a mut (dyn Write + Send),
    bytes: u64,
    /// Of the stream under way; what has left of it goes off.
    remaining: u64,
    told: Instant,
    pace: Pace<'a>,
    speed: Speed,
    /// The limit lets nothing pass.
    held: bool,
    /// The target had nothing when it began.
    anew: bool,
}

impl<'a> Teller<'a> {
    fn new(out: &'a mut (dyn Write + Send), limits: impl FnMut() -> Limits + Send + 'a) -> Self {
        let (pace, speed) = (Pace::new(limits), Speed::new());
        Teller { out, bytes: 0, remaining: 0, told: Instant::now(), pace, speed, held: false, anew: false }
    }
}

impl Watch for Teller<'_> {
    fn is_anew(&mut self) {
        self.anew = true;
    }

    fn begins(&mut self, bytes: Option<u64>) {
        self.remaining = bytes.unwrap_or(0);
    }

    fn passes(&mut self, bytes: u64) -> bool {
        if !self.pace.passes(bytes) {
            self.held = true;
            return false;
        }
        self.passed(bytes)
    }

    fn passed(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        self.remaining = self.remaining.saturating_sub(bytes);
        self.speed.add(bytes);
        if self.told.elapsed() < TOLD {
            return true;
        }
        self.told = Instant::now();
        // Nobody listens any more: an agent that was started anew starts its syncs anew too.
        say(self.out, &Said::Sent { bytes: self.bytes, rate: self.speed.take(), remaining: self.remaining })
    }

    fn rate(&mut self) -> Rate {
        let rate = self.pace.rate();
        self.held = rate == Rate::Stop;
        rate
    }
}
