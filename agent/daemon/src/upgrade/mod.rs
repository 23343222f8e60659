//! An Image Based Upgrade: a bundle, from its first byte to a slot that is armed.
//!
//! Owns: what is checked before the first write ([`gate`]), and the order: the other slot is taken out of the boot
//! order, written and read back by the one slot writer, then armed. Whatever breaks off leaves the booted slot as it
//! is, and the other one empty. Over the network, what the box has already is not fetched (`delta`).
//! Never: writes the booted slot; reads the bundle twice; holds more of it in memory than a decoder's window.

pub mod about;
mod delta;
pub mod gate;
pub mod http;
pub mod worker;

use std::fs::{self, File};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use siris_ibu::bundle::{Bundle, BundleError, Members};
use siris_ibu::keys::{Epoch, KeyFileError, PublicKey, Role};
use siris_ibu::signature::{Policy, VerifyError};
use siris_ibu::{Manifest, MemberKind, SignedManifest, Version};
use siris_slots::bootenv::{BootEnv, BootEnvError};
use siris_slots::device::{Device, Zeros};
use siris_slots::trailer::{SlotInfo, read_slot};
use siris_slots::writer::{Proof, SlotWriter, WriteError, WriteOptions};
use siris_slots::{Layout, Slot, SlotState};
use siris_zfs::{PoolName, Zfs, ZfsError};

use crate::observe;
use crate::root::Root;
use crate::settings::Settings;
use crate::slots::{OsDisk, SlotsError};
use crate::trial;
use gate::GateError;
use http::{Client, HttpError, Opened};

/// The public keys that bundles are verified with; part of the verified root.
pub const KEYS: &str = "/usr/lib/siris/keys";

/// Why there was no upgrade. Unless it says so, nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The trusted keys cannot be read.
    #[error("the trusted keys in {KEYS}")]
    Keys(#[source] io::Error),
    /// One of them is none.
    #[error("the trusted key {0}")]
    Key(String, #[source] Box<KeyFileError>),
    /// The slots of the box.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The booted slot does not say what it is.
    #[error("the booted slot does not say what it holds")]
    Running(#[source] Option<Box<VerifyError>>),
    /// The booted slot is on trial itself.
    #[error("the booted slot is on trial itself: it is kept when the box was healthy for a while, and then this works")]
    OnTrial,
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A bundle on this box.
    #[error("cannot open {0}")]
    Open(String, #[source] io::Error),
    /// It is not for this box.
    #[error(transparent)]
    Gate(Box<GateError>),
    /// ZFS does not say what its pools need.
    #[error("the pools' features are not known")]
    Pools(#[source] ZfsError),
    /// The slot was not written; it is empty now.
    #[error("writing the other slot")]
    Write(#[source] WriteError),
    /// The boot environment does not take the change.
    #[error("the boot environment cannot be used")]
    Arm(#[from] BootEnvError),
}

impl From<GateError> for UpgradeError {
    fn from(error: GateError) -> Self {
        UpgradeError::Gate(Box::new(error))
    }
}

impl UpgradeError {
    /// Code, a colon, and what happened, as it is told to people.
    pub fn said(&self) -> String {
        format!("{}: {}", self.code(), crate::chain(self))
    }

    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            UpgradeError::Keys(_) | UpgradeError::Key(..) => "keys-unreadable",
            UpgradeError::Slots(error) => error.code(),
            UpgradeError::Running(_) => "running-unknown",
            UpgradeError::OnTrial => "running-on-trial",
            UpgradeError::Bundle(error) => error.code(),
            UpgradeError::Http(error) => error.code(),
            UpgradeError::Open(..) => "bundle-not-found",
            UpgradeError::Gate(error) => error.code(),
            UpgradeError::Pools(error) => error.code(),
            UpgradeError::Write(error) => match bundle_fault(error) {
                Some(fault) => fault.code(),
                None => error.code(),
            },
            UpgradeError::Arm(error) => error.code(),
        }
    }
}

/// What is wrong with the bundle, where that is why a member could not be read.
fn bundle_fault(error: &WriteError) -> Option<&BundleError> {
    match error {
        WriteError::ReadMember(_, source) => source.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What the caller allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Allowed {
    /// A version that is not newer than the running one.
    pub downgrade: bool,
}

/// The box as it runs.
#[derive(Debug)]
pub struct Running {
    /// The booted slot.
    pub slot: Slot,
    /// What it holds.
    pub manifest: Manifest,
    /// The keys that bundles are verified with.
    pub trusted: Vec<PublicKey>,
    /// Active features of the imported pools.
    pub features: Vec<(PoolName, Vec<String>)>,
}

impl Running {
    /// Looks at the box.
    ///
    /// # Errors
    /// When it was not booted from a slot, or cannot say what it runs.
    pub fn look(root: &Root, zfs: &dyn Zfs) -> Result<Self, UpgradeError> {
        let slot = observe::booted_slot(root).slot.ok_or(SlotsError::NoSlot)?;
        let trusted = trusted(root)?;
        let (mut device, layout) = OsDisk::find(root)?.open()?;
        let unreadable = |e| SlotsError::ReadDisk("the OS disk".into(), e);
        let SlotInfo::Written(trailer) = read_slot(&mut device, &layout, slot).map_err(unreadable)? else {
            return Err(UpgradeError::Running(None));
        };
        // It runs: whether its key is still trusted is asked of what comes, not of what is there.
        let any = Policy { allow_development: true, min_epoch: Epoch(0) };
        let signed = trailer.verify(&trusted, any).map_err(|error| UpgradeError::Running(Some(Box::new(error))))?;
        let features = zfs.active_features().map_err(UpgradeError::Pools)?;
        Ok(Running { slot, manifest: signed.manifest().clone(), trusted, features })
    }

    /// What signatures will do: a box that trusts a release key takes nothing that a development key signed, and the
    /// epoch of keys only grows.
    pub fn policy(&self) -> Policy {
        let is_release = self.trusted.iter().any(|key| key.role() == Role::Release);
        Policy { allow_development: !is_release, min_epoch: self.manifest.key_epoch }
    }
}

fn trusted(root: &Root) -> Result<Vec<PublicKey>, UpgradeError> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(root.path(KEYS)).map_err(UpgradeError::Keys)? {
        let path = entry.map_err(UpgradeError::Keys)?.path();
        let bytes = fs::read(&path).map_err(UpgradeError::Keys)?;
        let key = PublicKey::parse(&bytes);
        keys.push(key.map_err(|error| UpgradeError::Key(path.display().to_string(), Box::new(error)))?);
    }
    Ok(keys)
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Bytes of the payload that are on the disk.
    pub done: u64,
    /// All of them.
    pub total: u64,
}

/// An armed slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// The slot.
    pub slot: Slot,
    /// What it holds.
    pub version: Version,
    /// How it got there over the network.
    pub fetched: Option<Fetched>,
}

/// What an install over the network cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// How.
    pub way: Way,
    /// Bytes that came in.
    pub received: u64,
    /// Bytes of the image that the box had already.
    pub reused: u64,
}

/// How an image came over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// As the difference to the running version.
    Patch,
    /// Block by block, as far as the box had not got them.
    Blocks,
    /// All of the bundle.
    Whole,
}

/// Writes the bundle in `source` into the slot that is not booted, and arms it: the next boot tries it.
///
/// # Errors
/// [`UpgradeError`]. The booted slot is untouched, and is what boots next.
pub fn install(
    root: &Root,
    zfs: &dyn Zfs,
    source: impl Read,
    allowed: Allowed,
    told: &mut dyn FnMut(Told),
) -> Result<Armed, UpgradeError> {
    let running = Running::look(root, zfs)?;
    let bundle = Bundle::open(source, &running.trusted, running.policy())?;
    let mut target = Target::find(root, &running, bundle.signed().clone(), allowed)?;
    target.empty()?;
    target.whole(bundle, told)?;
    target.arm(None)
}

/// As [`install`], with a bundle on a web server: of it, only what the box lacks is fetched where that can be.
///
/// # Errors
/// [`UpgradeError`]. The booted slot is untouched, and is what boots next.
pub fn install_from(
    root: &Root,
    zfs: &dyn Zfs,
    client: &Client,
    url: &str,
    allowed: Allowed,
    told: &mut dyn FnMut(Told),
) -> Result<Armed, UpgradeError> {
    let running = Running::look(root, zfs)?;
    let opened = http::open(client, url)?;
    let len = match &opened {
        Opened::Ranged { len, .. } => Some(*len),
        Opened::Whole(_) => None,
    };
    let bundle = Bundle::open(opened.into_reader(), &running.trusted, running.policy())?;
    let mut target = Target::find(root, &running, bundle.signed().clone(), allowed)?;
    let fetched = match len.map(|len| delta::write(&mut target, client, url, len, told)) {
        Some(Ok(Some(fetched))) => fetched,
        Some(Err(error)) => return Err(error),
        // No delta, or none that pays, or one that failed: the bundle is still there.
        Some(Ok(None)) | None => {
            target.empty()?;
            target.whole(bundle, told)?;
            Fetched { way: Way::Whole, received: client.received(), reused: 0 }
        }
    };
    target.arm(Some(fetched))
}

/// Whether an address is one on a web server, and not a path.
pub fn is_url(address: &str) -> bool {
    address.starts_with("http://") || address.starts_with("https://")
}

/// The bundle at an address, from its first byte on.
///
/// # Errors
/// When it is neither on a web server nor a file, or cannot be had.
pub fn open(client: &Client, address: &str) -> Result<Box<dyn Read>, UpgradeError> {
    if is_url(address) {
        return Ok(http::open(client, address)?.into_reader());
    }
    let opened = if address.starts_with('/') { File::open(address) } else { Err(io::ErrorKind::InvalidInput.into()) };
    opened.map(|file| Box::new(file) as Box<dyn Read>).map_err(|error| UpgradeError::Open(address.to_owned(), error))
}

/// The slot that is not booted, found fit for a payload.
pub(crate) struct Target<'a> {
    running: &'a Running,
    signed: SignedManifest,
    disk: OsDisk,
    env: BootEnv,
    device: File,
    layout: Layout,
    slot: Slot,
}

impl<'a> Target<'a> {
    /// Asks everything that can be asked before the first write.
    fn find(root: &Root, running: &'a Running, signed: SignedManifest, allowed: Allowed) -> Result<Self, UpgradeError> {
        gate::check(signed.manifest(), running, allowed)?;
        gate::room(observe::state_space(root), Settings::of(root).state_free_min)?;
        let disk = OsDisk::find(root)?;
        let env = disk.environment()?;
        if env.record(running.slot).state != SlotState::Good {
            return Err(UpgradeError::OnTrial);
        }
        let (device, layout) = disk.open_to_write()?;
        gate::fits(signed.manifest(), &layout)?;
        Ok(Target { running, signed, disk, env, device, layout, slot: running.slot.other() })
    }

    /// Takes the slot out of the boot order.
    fn empty(&mut self) -> Result<(), UpgradeError> {
        self.env.clear(self.slot);
        trial::forget(&mut self.env);
        Ok(self.disk.save(&self.env)?)
    }

    /// Writes the slot from members that `give` hands to the writer.
    fn fill(
        &mut self,
        told: &mut dyn FnMut(Told),
        give: impl FnOnce(&mut SlotWriter<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let manifest = self.signed.manifest();
        let size = |kind| manifest.member(kind).size.bytes();
        let total = MemberKind::ALL.into_iter().map(size).sum();
        // Members may come in any order.
        let mut before = 0;
        let mut last: Option<(MemberKind, u64)> = None;
        let mut progress = |at: siris_slots::writer::Progress| {
            if let Some((kind, done)) = last.replace((at.kind, at.done))
                && kind != at.kind
            {
                before += done;
            }
            told(Told { done: before + at.done, total });
        };
        let options = WriteOptions { zeros: Zeros::Write, proof: Proof::Both };
        let (device, layout, slot, signed) = (&mut self.device, &self.layout, self.slot, &self.signed);
        let mut writer = SlotWriter::begin(device, layout, slot, signed, options, &mut progress)?;
        give(&mut writer)?;
        writer.finish()
    }

    /// Writes the slot from a whole bundle.
    fn whole<R: Read>(&mut self, bundle: Bundle<R>, told: &mut dyn FnMut(Told)) -> Result<(), UpgradeError> {
        let Members { mut tree, mut boot, mut root } = bundle.members();
        let written = self.fill(told, |writer| {
            writer.member(MemberKind::Tree, &mut tree)?;
            writer.member(MemberKind::Boot, &mut boot)?;
            writer.member(MemberKind::Root, &mut root)
        });
        written.map_err(UpgradeError::Write)
    }

    /// Arms the slot: it was written.
    fn arm(mut self, fetched: Option<Fetched>) -> Result<Armed, UpgradeError> {
        // What the next look at the slot reads is what is on the disk.
        self.device.forget().map_err(|e| SlotsError::ReadDisk("the OS disk".into(), e))?;
        self.env.arm(self.slot)?;
        self.disk.save(&self.env)?;
        Ok(Armed { slot: self.slot, version: self.signed.manifest().version.clone(), fetched })
    }
}

#[cfg(test)]
#[path = "../../tests/private_bus/slots_box.rs"]
pub(crate) mod slots_box;
#[cfg(test)]
mod tamper;
#[cfg(test)]
mod tests;
