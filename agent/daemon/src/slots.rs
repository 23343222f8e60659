//! The slots of this box: where they are on the disk it was booted from, what GRUB's environment and the slots
//! themselves say, and the one change the agent makes: keeping the booted slot.
//!
//! Never: looks at another disk than the one that holds the booted root; mounts anything.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use siris_api::SlotStatus;
use siris_host::block::{BlockError, Disk};
use siris_slots::bootenv::{self, BootEnvError};
use siris_slots::device::Device;
use siris_slots::fat::{self, FatError};
use siris_slots::gpt::{self, GptError};
use siris_slots::layout::Part;
use siris_slots::trailer::{SlotInfo, read_slot};
use siris_slots::{BootEnv, Layout, SectorSize, Slot, SlotState};
use zbus::{OwnedVariant, Variant};

use crate::root::Root;
use crate::trial;

/// Why the slots cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The box was not booted from a slot.
    #[error("this system was not booted from a slot: the kernel command line has no siris.slot and siris.root")]
    NoSlot,
    /// The disk, or a partition of it, is not to be found.
    #[error("cannot find the disk the system was booted from")]
    FindDisk(#[from] BlockError),
    /// The disk cannot be opened or read.
    #[error("cannot read {}", .0.display())]
    ReadDisk(PathBuf, #[source] io::Error),
    /// The disk has sectors of an unknown size.
    #[error("{} has sectors of {} bytes", .0.display(), .1)]
    Sectors(PathBuf, u64),
    /// The disk's partitions are not ours.
    #[error("the partitions of the OS disk cannot be read")]
    ReadLayout(#[from] GptError),
    /// GRUB's environment cannot be read or written on its file system.
    #[error("cannot get at the boot environment on the EFI system partition")]
    ReachEnvironment(#[from] FatError),
    /// GRUB's environment makes no sense, or the change to it.
    #[error("the boot environment cannot be used")]
    UseEnvironment(#[from] BootEnvError),
    /// There is no such slot or mark.
    #[error("{0}")]
    NoSuchMark(String),
    /// The change did not reach the disk.
    #[error("cannot write the boot environment to the disk")]
    Sync(#[source] io::Error),
}

impl SlotsError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            SlotsError::NoSlot => "no-slot",
            SlotsError::FindDisk(error) => error.code(),
            SlotsError::ReadDisk(..) | SlotsError::Sectors(..) => "os-disk-unreadable",
            SlotsError::ReadLayout(error) => error.code(),
            SlotsError::ReachEnvironment(error) => error.code(),
            SlotsError::UseEnvironment(error) => error.code(),
            SlotsError::NoSuchMark(_) => "no-such-mark",
            SlotsError::Sync(_) => "os-disk-unwritable",
        }
    }
}

/// A word of the kernel command line.
pub fn boot_word(root: &Root, key: &str) -> Option<String> {
    let line = root.read("/proc/cmdline").ok().flatten().unwrap_or_default();
    line.split_ascii_whitespace().find_map(|word| Some(word.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

/// The disk that holds the booted root.
pub(crate) struct OsDisk(Disk);

impl OsDisk {
    pub(crate) fn find(root: &Root) -> Result<Self, SlotsError> {
        let partuuid = boot_word(root, "siris.root").ok_or(SlotsError::NoSlot)?;
        Ok(OsDisk(Disk::of_partition(&root.path("/"), &partuuid)?))
    }

    fn esp(&self) -> Result<PathBuf, SlotsError> {
        Ok(self.0.partition(Part::Esp.number())?)
    }

    pub(crate) fn environment(&self) -> Result<BootEnv, SlotsError> {
        let esp = self.esp()?;
        let mut device = File::open(&esp).map_err(|e| SlotsError::ReadDisk(esp, e))?;
        Ok(BootEnv::parse(&fat::read(&mut device, bootenv::PATH)?)?)
    }

    /// Writes the boot environment over the old one, and waits until it is on the disk.
    pub(crate) fn save(&self, env: &BootEnv) -> Result<(), SlotsError> {
        let esp = self.esp()?;
        let opened = OpenOptions::new().read(true).write(true).open(&esp);
        let mut device = opened.map_err(|e| SlotsError::ReadDisk(esp, e))?;
        fat::overwrite(&mut device, bootenv::PATH, &env.to_block()?)?;
        device.sync_all().map_err(SlotsError::Sync)
    }

    /// The disk, to be read, and where everything is on it.
    pub(crate) fn open(&self) -> Result<(File, Layout), SlotsError> {
        self.open_as(OpenOptions::new().read(true))
    }

    /// The disk, to be read and written, and where everything is on it.
    pub(crate) fn open_to_write(&self) -> Result<(File, Layout), SlotsError> {
        self.open_as(OpenOptions::new().read(true).write(true))
    }

    fn open_as(&self, options: &OpenOptions) -> Result<(File, Layout), SlotsError> {
        let disk = self.0.dev();
        let unreadable = |e| SlotsError::ReadDisk(disk.to_owned(), e);
        let sectors = self.0.sector_bytes()?;
        let sector = SectorSize::from_bytes(sectors).ok_or_else(|| SlotsError::Sectors(disk.to_owned(), sectors))?;
        let mut device = options.open(disk).map_err(unreadable)?;
        // What was written through a partition is in another cache than the disk's.
        device.forget().map_err(unreadable)?;
        let layout = gpt::read(&mut device, sector)?;
        Ok((device, layout))
    }
}

/// Whether the slot is on trial: complete, and not yet found good. Unknown counts as not.
pub fn on_trial(root: &Root, slot: Slot) -> bool {
    OsDisk::find(root).and_then(|disk| disk.environment()).is_ok_and(|env| env.record(slot).state == SlotState::Trial)
}

/// The booted slot does its work: it is good, and has its tries back. Says whether that changed anything.
///
/// # Errors
/// When the boot environment cannot be read or written, or the slot is marked bad.
pub fn bless(root: &Root, slot: Slot) -> Result<bool, SlotsError> {
    let disk = OsDisk::find(root)?;
    let mut env = disk.environment()?;
    if !env.bless(slot)? {
        return Ok(false);
    }
    disk.save(&env)?;
    Ok(true)
}

/// A slot, and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The slot.
    pub slot: Slot,
    /// What was done, in words.
    pub done: &'static str,
}

/// Marks a slot (`a`, `b`, `booted`, `other`): `good`, `bad`, or `active`, which is tried first at the next boot.
///
/// # Errors
/// When there is no such slot or mark, the slot is not in a state for it, or the boot environment cannot be written.
pub fn mark(root: &Root, booted: Option<Slot>, state: &str, slot: &str) -> Result<Marked, SlotsError> {
    let slot = match slot {
        "booted" => booted.ok_or(SlotsError::NoSlot)?,
        "other" => booted.ok_or(SlotsError::NoSlot)?.other(),
        name => name.parse().map_err(|_| {
            SlotsError::NoSuchMark(format!("no slot is called \"{name}\": it is a, b, booted or other"))
        })?,
    };
    let disk = OsDisk::find(root)?;
    let before = disk.environment()?;
    let mut env = before.clone();
    let done = match state {
        "good" if booted == Some(slot) => {
            env.bless(slot)?;
            "is good, and has all its tries"
        }
        "good" => return Err(SlotsError::NoSuchMark("only the booted slot can be found good".to_owned())),
        "bad" => {
            env.mark_bad(slot)?;
            "is never booted again, until it is written anew"
        }
        "active" => {
            // An armed slot is first already; one that is not armed has to be good.
            if env.record(slot).state == SlotState::Trial {
                env.arm(slot)?;
            } else {
                env.prefer(slot)?;
            }
            "is tried first at the next boot"
        }
        other => {
            let text = format!("no mark is called \"{other}\": it is good, bad or active");
            return Err(SlotsError::NoSuchMark(text));
        }
    };
    if env != before {
        disk.save(&env)?;
    }
    Ok(Marked { slot, done })
}

/// The slot the next boot tries first.
///
/// # Errors
/// When the boot environment cannot be read.
pub fn primary(root: &Root) -> Result<Option<Slot>, SlotsError> {
    let env = OsDisk::find(root)?.environment()?;
    let bootable = |slot: &Slot| {
        let record = env.record(*slot);
        matches!(record.state, SlotState::Good | SlotState::Trial) && record.tries.left() > 0
    };
    Ok(env.order().into_iter().find(bootable))
}

/// Both slots as they travel.
///
/// # Errors
/// When the boot environment cannot be read. A slot that cannot be read has an `error` among its details.
pub fn status(root: &Root, booted: Option<Slot>) -> Result<Vec<SlotStatus>, SlotsError> {
    let disk = OsDisk::find(root)?;
    let env = disk.environment()?;
    let mut opened = disk.open();
    let mut all = Vec::new();
    for slot in Slot::ALL {
        let record = env.record(slot);
        let mut details: HashMap<String, OwnedVariant> = HashMap::new();
        let mut put = |key: &str, value: Variant<'_>| {
            // Only a file descriptor that cannot be duplicated fails to become owned.
            if let Ok(value) = OwnedVariant::try_from(value) {
                details.insert(key.to_owned(), value);
            }
        };
        put("state", record.state.as_str().into());
        put("tries", u32::from(record.tries.left()).into());
        put("booted", (booted == Some(slot)).into());
        if let Some(why) = trial::failed(root, slot)? {
            put("failed", why.into());
        }
        match &mut opened {
            Ok((device, layout)) => match read_slot(device, layout, slot) {
                Ok(SlotInfo::Empty) => {}
                Ok(SlotInfo::Damaged) => put("error", "its trailer is damaged".into()),
                Ok(SlotInfo::Written(trailer)) => match trailer.unverified() {
                    Some(manifest) => put("version", manifest.version.to_string().into()),
                    None => put("error", "its manifest cannot be read".into()),
                },
                Err(error) => put("error", error.to_string().into()),
            },
            Err(error) => put("error", crate::chain(error).into()),
        }
        all.push(SlotStatus { name: slot.to_string(), details });
    }
    Ok(all)
}

/// Both slots as text, for people.
pub fn describe(root: &Root, booted: Option<Slot>) -> String {
    let slots = match status(root, booted) {
        Ok(slots) => slots,
        Err(error) => return format!("{}\n", crate::chain(&error)),
    };
    let mut text = String::new();
    for slot in slots {
        let mut details: Vec<String> = slot.details.iter().map(|(key, value)| format!("{key} {}", **value)).collect();
        details.sort();
        text += &format!("slot {}: {}\n", slot.name, details.join(", "));
    }
    if let Ok(env) = OsDisk::find(root).and_then(|disk| disk.environment()) {
        text += &format!("{env:?}\n");
    }
    text
}

#[cfg(test)]
mod tests;
