//! An install from its first look to its receipt.
//!
//! Owns the order: [`prepare`] looks and decides, [`execute`] checks, writes and proves. Between the two a person may
//! look at the plan. How it goes is told through [`Progress`]; a person stops it through [`Stop`].

mod error;

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use siris_ibu::{Sha256, SignedManifest};

use crate::answers::{Answers, InstallId, Static};
use crate::apply::{self, ApplyError, BootFiles, Sources, Written};
use crate::carry;
use crate::check::{self, CheckError};
use crate::facts::{Disk, DiskName, Facts};
use crate::host::{Host, HostError};
use crate::observe::{observe, open_pools};
use crate::plan::{self, Image, Plan, Purpose};
use crate::prove::{self, Evidence, KeptDigest, Proof};
use crate::receipt::{self, BoxKey, Receipt, WrittenDisk};
use crate::refusal::Refusals;
use crate::state;

pub use error::InstallError;

/// How an install is told about.
pub trait Progress {
    /// A step begins; `total` bytes, or 0 where that is not known.
    fn step(&mut self, what: &str, total: u64);
    /// The step has come to byte `done`.
    fn at(&mut self, done: u64);
    /// The step is over.
    fn done(&mut self);
    /// Something to be told.
    fn line(&mut self, text: &str);
}

/// Tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &str, _: u64) {}
    fn at(&mut self, _: u64) {}
    fn done(&mut self) {}
    fn line(&mut self, _: &str) {}
}

/// Whether a person wants to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// Wants it.
    pub fn want(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is wanted.
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was looked at and decided.
#[derive(Debug)]
pub struct Prepared {
    /// What was found.
    pub facts: Facts,
    /// What is decided.
    pub plan: Plan,
    /// The payload's manifest.
    pub signed: SignedManifest,
    /// What is wanted, with what was carried over.
    pub answers: Answers,
}

/// What came of looking.
#[derive(Debug)]
pub enum Preparation {
    /// An install can begin.
    Ready(Box<Prepared>),
    /// This very install was finished before, on this disk.
    AlreadyThere {
        /// The disk.
        disk: DiskName,
        /// The install.
        id: InstallId,
    },
}

/// The id of an install whose answers give none: the same answers with the same image are the same install.
pub fn id_of(answers: &[u8], manifest: Sha256) -> InstallId {
    let digest = Sha256::of(&[answers, manifest.as_bytes()].concat()).to_string();
    // Hexadecimal digits, fewer than 40.
    digest[..32].parse().expect("digits make an id")
}

/// What was looked at.
#[derive(Debug)]
pub struct Seen {
    /// What was found.
    pub facts: Facts,
    /// What is to be installed.
    pub image: Image,
    /// Its manifest.
    pub signed: SignedManifest,
}

/// Looks at the machine and at the payload's manifest.
///
/// # Errors
/// When either cannot be trusted.
pub fn look(host: &Host) -> Result<Seen, InstallError> {
    let (signed, image) = check::manifest(host).map_err(|error| Refusals(vec![error.refusal()]))?;
    let mut facts = observe(host).map_err(InstallError::Look)?;
    open_pools(host, &mut facts);
    Ok(Seen { facts, image, signed })
}

impl Seen {
    /// Decides. What is to be carried over is read here, and replaces in `answers` that it is.
    ///
    /// # Errors
    /// Every reason that stands against it.
    pub fn plan(&self, host: &Host, answers: &mut Answers, id: InstallId) -> Result<Plan, Refusals> {
        let seed = Sha256::of(uuid::Uuid::new_v4().as_bytes());
        let purpose = Purpose { image: &self.image, id, seed };
        let plan = plan::plan(&self.facts, answers, &purpose)?;
        if answers.network.kind != Static::CarryOver {
            return Ok(plan);
        }
        let target = &plan.targets[0].disk;
        let (network, from) = carry::network(host, &self.facts, target).map_err(|refusal| Refusals(vec![refusal]))?;
        let given = std::mem::replace(&mut answers.network, network);
        // What the answers say beside it goes first.
        answers.network.dns.splice(0..0, given.dns);
        answers.network.ntp.splice(0..0, given.ntp);
        let mut plan = plan::plan(&self.facts, answers, &purpose)?;
        plan.notes.push(format!("the network is carried over from {from}"));
        let bytes = carry::stash::encode(&answers.network);
        let kept = bytes.is_some_and(|bytes| plan.targets[0].keep_stash(bytes, carry::stash::START, carry::stash::LEN));
        if !kept {
            plan.notes.push("if the install is interrupted, the network has to be given by hand then".to_owned());
        }
        Ok(plan)
    }
}

/// A new id, for an install that a person asked for.
pub fn new_id() -> InstallId {
    // A UUID is letters, digits and dashes.
    uuid::Uuid::new_v4().to_string().parse().expect("a UUID is an id")
}

/// Looks at the machine and decides. `answers_bytes` is what the answers were read from. With `again`, an install that
/// was finished before is done once more.
///
/// # Errors
/// Every reason that stands against an install.
pub fn prepare(host: &Host, answers: &Answers, answers_bytes: &[u8], again: bool) -> Result<Preparation, InstallError> {
    let seen = look(host)?;
    let id = answers.id.clone().unwrap_or_else(|| id_of(answers_bytes, seen.image.digest));
    let done = |disk: &&Disk| disk.siris().is_some_and(|s| s.receipt && s.install.as_deref() == Some(id.as_str()));
    if let Some(disk) = seen.facts.disks.iter().find(done).filter(|_| !again) {
        return Ok(Preparation::AlreadyThere { disk: disk.name.clone(), id });
    }
    let mut answers = answers.clone();
    let plan = seen.plan(host, &mut answers, id)?;
    let Seen { facts, signed, .. } = seen;
    Ok(Preparation::Ready(Box::new(Prepared { facts, plan, signed, answers })))
}

/// A finished install.
#[derive(Debug)]
pub struct Finished {
    /// The proof that nothing else was written.
    pub proof: Proof,
    /// The file of the receipt, as it is on the state partition.
    pub receipt: Vec<u8>,
    /// The public key that signed it.
    pub key: String,
}

/// Does what was decided.
///
/// # Errors
/// [`InstallError`], which says whether anything was written.
pub fn execute(
    host: &Host,
    prepared: &Prepared,
    progress: &mut dyn Progress,
    stop: &Stop,
) -> Result<Finished, InstallError> {
    let Prepared { facts, plan, signed, answers } = prepared;
    let _alone = alone(host)?;
    let started = now();
    let key = BoxKey::generate().map_err(InstallError::Key)?;
    let boot = BootFiles::load(host).map_err(InstallError::Files)?;
    // Once for nothing: what cannot be made is found out before the first write.
    let make = |made| state::Image::make(&host.path("/run"), &state::files(plan, answers, &key.to_bytes(), made));
    let mut image = make(None).map_err(InstallError::State)?;
    let opened: Vec<&DiskName> = plan.opened().collect();
    let fenced = |disk: &Disk| !opened.contains(&&disk.name) && !facts.is_medium(disk);
    let (before, kept) = last_look(host, prepared, &fenced, progress, stop)?;

    let broken_off = |error| incomplete(host, facts, &before, &fenced, error);
    if let Some(pool) = &plan.new_pool {
        progress.line(&format!("making pool \"{}\"", pool.name));
        let made = apply::create(host, pool).map_err(broken_off)?;
        image = make(Some(made)).map_err(|error| broken_off(error.into()))?;
    }
    let mut written = Vec::new();
    for target in &plan.targets {
        let mut sources = Sources { signed, boot: &boot, state: &mut image };
        written.push(apply::apply(host, plan, target, &mut sources, progress, stop).map_err(broken_off)?);
    }
    for disabled in &plan.disabled {
        apply::disable(host, disabled).map_err(broken_off)?;
    }
    progress.step("proving that no other disk was written", 0);
    let proof = proof(host, facts, &before, &fenced).map_err(InstallError::Prove)?;
    progress.done();
    // From here on there is nothing to be stopped: the system is complete.
    let kept_after = prove::kept(host, plan, progress, &Stop::default());
    let proof = proof.with_kept(&kept, kept_after.map_err(|source| InstallError::Kept { written: true, source })?);
    let disk = |(target, written): (_, &Written<'_>)| WrittenDisk {
        target,
        disk_guid: written.layout().guid().to_string(),
        state_sha256: image.sha256(),
    };
    let disks: Vec<WrittenDisk<'_>> = plan.targets.iter().zip(&written).map(disk).collect();
    let receipt = Receipt::new(plan, &disks, &proof, started, now());
    let receipt = receipt::sign(&receipt, &key).map_err(InstallError::Receipt)?;
    for written in written {
        written.seal(&image, &receipt, &plan.id, plan.manifest).map_err(InstallError::Seal)?;
    }
    Ok(Finished { proof, receipt, key: key.public() })
}

/// Everything that is looked at immediately before the first write: evidence of the disks that are not written and of
/// what stays on those that are, every byte of the payload, and that the machine is still the one of the plan.
fn last_look(
    host: &Host,
    prepared: &Prepared,
    fenced: &dyn Fn(&Disk) -> bool,
    progress: &mut dyn Progress,
    stop: &Stop,
) -> Result<(Vec<Evidence>, Vec<KeptDigest>), InstallError> {
    let Prepared { facts, plan, signed, .. } = prepared;
    progress.step("looking at the other disks", 0);
    let before = prove::all(host, facts, fenced).map_err(InstallError::Look)?;
    progress.done();
    let kept = prove::kept(host, plan, progress, stop);
    if stop.wanted() {
        return Err(InstallError::StoppedBefore);
    }
    let kept = kept.map_err(|source| InstallError::Kept { written: false, source })?;
    match check::members(host, signed, progress, stop) {
        Err(CheckError::Stopped) => return Err(InstallError::StoppedBefore),
        result => result.map_err(|error| Refusals(vec![error.refusal()]))?,
    }
    unchanged(facts, &observe(host).map_err(InstallError::Look)?)?;
    if stop.wanted() { Err(InstallError::StoppedBefore) } else { Ok((before, kept)) }
}

/// Two consoles may ask at once; one of them installs.
fn alone(host: &Host) -> Result<File, InstallError> {
    let dir = host.path("/run/siris");
    let path = dir.join("installer.lock");
    let open = fs::create_dir_all(&dir).and_then(|()| File::create(&path));
    let file = open.map_err(|source| InstallError::Look(HostError::Open { path, source }))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => {
            let mut refusals = Refusals::default();
            let todo = "look at the other console (screen, serial line)";
            refusals.add("install-running", "another install is running on this machine", todo);
            Err(refusals.into())
        }
    }
}

/// Seconds since 1970, by a clock that may be wrong.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What was decided holds only for the machine that it was decided for.
fn unchanged(before: &Facts, now: &Facts) -> Result<(), Refusals> {
    let mut before = before.clone();
    // What is in a pool is looked at once.
    before.pools.iter_mut().for_each(|pool| pool.opened = None);
    if before == *now {
        return Ok(());
    }
    let names = before.disks.iter().chain(&now.disks).map(|disk| &disk.name);
    let mut changed: Vec<String> =
        names.filter(|name| before.disk(name) != now.disk(name)).map(|name| format!("/dev/{name}")).collect();
    changed.sort();
    changed.dedup();
    let what = if changed.is_empty() { "its pools".to_owned() } else { changed.join(", ") };
    let mut refusals = Refusals::default();
    refusals.add("machine-changed", format!("the machine changed since the plan was made: {what}"), "start again");
    Err(refusals)
}

fn proof(host: &Host, facts: &Facts, before: &[Evidence], fenced: &dyn Fn(&Disk) -> bool) -> Result<Proof, HostError> {
    let after = prove::all(host, &observe(host)?, fenced)?;
    Ok(prove::compare(before, &after, facts.live))
}

/// An install that broke off: what can still be said of the other disks is said.
fn incomplete(
    host: &Host,
    facts: &Facts,
    before: &[Evidence],
    fenced: &dyn Fn(&Disk) -> bool,
    source: ApplyError,
) -> InstallError {
    let others = match proof(host, facts, before, fenced) {
        Ok(proof) if proof.holds => "every other disk was looked at again and is as it was".to_owned(),
        Ok(proof) => format!("LOOK AT THE OTHER DISKS: {}", proof.failures.join("; ")),
        Err(error) => format!("the other disks could not be looked at again ({error})"),
    };
    InstallError::Incomplete { others, source }
}

#[cfg(test)]
mod pools;
#[cfg(test)]
mod tests;
