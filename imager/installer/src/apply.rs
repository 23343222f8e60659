//! Carries a plan out on one disk. Decides nothing: where everything goes, and what is cleared, the plan says.
//!
//! Order of writes: what is on the disk is made unrecognisable, its partition table first, so that no half of an old
//! system boots; then everything but the new table is written and read back from the disk; then the table, which makes
//! it a system. Until then the disk boots nothing, and running the installer again completes it. The receipt goes last
//! of all ([`Written::seal`]). Only the disk of the plan is opened for writing, its fence is opened for no longer than
//! that, and it is closed again whatever happens.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use siris_host::cmd::CmdError;
use siris_ibu::{Class, MemberKind, Sha256, SignedManifest};
use siris_slots::bootenv::{self, BootEnv};
use siris_slots::compose::{BiosCode, ComposeError, ComposeInput, write_content};
use siris_slots::device::{Device, Window, Zeros};
use siris_slots::fat::{self, FatFile};
use siris_slots::gpt::{self, GptError};
use siris_slots::layout::Part;
use siris_slots::writer::{Payload, Proof, WriteOptions};
use siris_slots::{Layout, SectorSize, Slot};

mod newpool;
mod open;

pub use newpool::create;

use crate::carry::stash;
use crate::check::{self, CheckError};
use crate::host::{Host, HostError};
use crate::plan::{Disabled, Plan, TargetPlan, Wipe};
use crate::run::{Progress, Stop};
use crate::state::{Image, StateError};

use open::{Guarded, Open};

/// Where the boot loader's files are in the image.
const BOOT: &str = "/usr/lib/siris/boot";
/// Bytes compared at once.
const CHUNK: usize = 1 << 20;
/// The variable of the boot environment that names the finished install.
pub const INSTALL_VARIABLE: &str = "install";
/// The variable that names the medium it was installed from: a BMC that keeps the medium first finds it there.
pub const MEDIUM_VARIABLE: &str = "medium_of";
/// Digits of the manifest's digest that are enough to tell media apart; the boot environment has room for few.
pub const MEDIUM_DIGITS: usize = 16;

/// Why the disk is not what the plan says.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk, or its fence.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] CheckError),
    /// A file of the boot loader.
    #[error("cannot read {}", .0.display())]
    BootFile(PathBuf, #[source] io::Error),
    /// Clearing.
    #[error("clearing what was on /dev/{0}")]
    Wipe(String, #[source] io::Error),
    /// Writing.
    #[error("writing /dev/{0}")]
    Write(String, #[source] ComposeError),
    /// The partition table.
    #[error("the partition table of /dev/{0}")]
    Table(String, #[source] GptError),
    /// Something does not read back as it was written.
    #[error("{what} of /dev/{disk} does not read back as it was written")]
    ReadBack {
        /// The disk.
        disk: String,
        /// What.
        what: &'static str,
    },
    /// The disk could not be read back, or the receipt not be written.
    #[error("reading /dev/{0} back")]
    Device(String, #[source] io::Error),
    /// The state partition.
    #[error(transparent)]
    State(#[from] StateError),
    /// The plan is for another disk than this.
    #[error("the plan for /dev/{0} does not come out again")]
    Plan(String),
    /// ZFS did not make the pool.
    #[error("making the pool")]
    Pool(#[source] CmdError),
    /// The pool that was made is not to be found.
    #[error("pool \"{0}\" was made, but no label says so")]
    NoPool(String),
    /// A person stopped it.
    #[error("stopped")]
    Stopped,
}

impl ApplyError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Host(error) => error.code(),
            Self::Payload(error) => error.code(),
            Self::BootFile(..) => "boot-file",
            Self::Wipe(..) => "target-wipe",
            Self::Write(_, error) => error.code(),
            Self::Table(_, error) => error.code(),
            Self::ReadBack { .. } => "target-read-back",
            Self::Device(..) => "target-read",
            Self::State(error) => error.code(),
            Self::Plan(_) => "plan",
            Self::Pool(_) | Self::NoPool(_) => "pool-create",
            Self::Stopped => "stopped",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Host(error) => error.class(),
            Self::Payload(error) => error.class(),
            Self::BootFile(..) => Class::Environment,
            Self::Write(_, error) => error.class(),
            Self::Table(_, error) => error.class(),
            Self::State(error) => error.class(),
            Self::Plan(_) => Class::Bug,
            Self::Stopped => Class::Input,
            Self::Pool(_) | Self::NoPool(_) | Self::Wipe(..) | Self::ReadBack { .. } | Self::Device(..) => Class::Host,
        }
    }
}

/// The boot loader's files.
pub struct BootFiles {
    boot_img: Vec<u8>,
    core_img: Vec<u8>,
    efi: Vec<u8>,
    config: Vec<u8>,
}

impl BootFiles {
    /// Those of the running system, which is the one that is installed.
    ///
    /// # Errors
    /// When one is missing.
    pub fn load(host: &Host) -> Result<Self, ApplyError> {
        let read = |name: &str| {
            let path = host.path(BOOT).join(name);
            fs::read(&path).map_err(|error| ApplyError::BootFile(path, error))
        };
        let (boot_img, core_img) = (read("boot.img")?, read("core.img")?);
        Ok(Self { boot_img, core_img, efi: read("BOOTX64.EFI")?, config: read("grub.cfg")? })
    }

    fn esp(&self) -> [(&'static str, &[u8]); 2] {
        [("siris/grub.cfg", &self.config), ("EFI/BOOT/BOOTX64.EFI", &self.efi)]
    }
}

/// What is needed beside the plan.
pub struct Sources<'a> {
    /// The payload's manifest.
    pub signed: &'a SignedManifest,
    /// The boot loader's files.
    pub boot: &'a BootFiles,
    /// The state partition.
    pub state: &'a mut Image,
}

/// A disk that holds the new system; the receipt is still to come.
pub struct Written<'a> {
    open: Open<'a>,
    layout: Layout,
    disk: String,
    stashed: bool,
}

/// Writes one disk of the plan.
///
/// # Errors
/// [`ApplyError`]: the disk then boots nothing, unless the error is about its partition table.
pub fn apply<'a>(
    host: &'a Host,
    plan: &Plan,
    target: &TargetPlan,
    sources: &mut Sources<'_>,
    progress: &mut dyn Progress,
    stop: &Stop,
) -> Result<Written<'a>, ApplyError> {
    let disk = target.disk.to_string();
    let layout = layout(plan, target)?;
    let kept = target.kept.iter().map(|kept| kept.start..kept.start + kept.size.bytes()).collect();
    let mut open = Open::new(host, &target.disk, target.diskseq, kept)?;
    progress.line(&format!("writing to /dev/{disk} begins; if it is interrupted, run the installer again"));
    if let Some(stash) = &target.stash {
        put_stash(open.dev(), stash).map_err(|error| ApplyError::Wipe(disk.clone(), error))?;
    }
    if !target.entries.is_empty() {
        gpt::apply_kept(open.dev(), &layout, &target.entries)
            .map_err(|error| ApplyError::Table(disk.clone(), error))?;
    }
    wipe(open.dev(), &target.wipes, target.size.bytes()).map_err(|error| ApplyError::Wipe(disk.clone(), error))?;
    content(open.dev(), host, plan, target, &layout, sources, progress, stop)?;
    if stop.wanted() {
        return Err(ApplyError::Stopped);
    }
    progress.step("reading back", 0);
    let device = |error| ApplyError::Device(disk.clone(), error);
    open.dev().forget().map_err(device)?;
    check_esp(open.dev(), &layout, sources.boot, &disk)?;
    check_state(open.dev(), &layout, sources.state, &disk)?;
    progress.done();
    let table = |error| ApplyError::Table(disk.clone(), error);
    gpt::apply(open.dev(), &layout).map_err(table)?;
    open.dev().sync().and_then(|()| open.dev().forget()).map_err(device)?;
    match gpt::read(open.dev(), layout.sector()).map_err(table)? {
        found if found == layout => Ok(Written { open, layout, disk, stashed: target.stash.is_some() }),
        _ => Err(ApplyError::ReadBack { disk, what: "the partition table" }),
    }
}

fn layout(plan: &Plan, target: &TargetPlan) -> Result<Layout, ApplyError> {
    let fault = || ApplyError::Plan(target.disk.to_string());
    let sector = SectorSize::from_bytes(target.sector).ok_or_else(fault)?;
    let layout = Layout::plan_beside(target.size, sector, &plan.sizes, &target.guids(plan.seed), &target.entries);
    let layout = layout.map_err(|_| fault())?;
    let same = layout
        .entries()
        .iter()
        .zip(&target.parts)
        .all(|(entry, part)| (layout.start(entry.part), layout.len(entry.part)) == (part.start, part.size.bytes()));
    if same && target.parts.len() == layout.entries().len() { Ok(layout) } else { Err(fault()) }
}

/// Bytes at either end of a disk that hold a partition table, whatever its sectors.
const TABLE: u64 = 64 << 10;

/// Clears ranges; partition tables first, and alone: between two syncs the kernel writes in any order, and what is
/// behind a table must not go before it. After that, nobody finds any of it.
fn wipe(dev: &mut Guarded, wipes: &[Wipe], size: u64) -> io::Result<()> {
    let (ends, rest): (Vec<Wipe>, Vec<Wipe>) =
        wipes.iter().partition(|wipe| wipe.start == 0 || wipe.start + wipe.len == size);
    let table = |wipe: &Wipe| {
        let len = wipe.len.min(TABLE);
        Wipe { start: if wipe.start == 0 { 0 } else { wipe.start + wipe.len - len }, len }
    };
    let tables: Vec<Wipe> = ends.iter().map(table).collect();
    for wipes in [tables, ends, rest] {
        for wipe in wipes {
            dev.seek(SeekFrom::Start(wipe.start))?;
            io::copy(&mut io::repeat(0).take(wipe.len), dev)?;
        }
        dev.sync()?;
    }
    Ok(())
}

/// Makes a disk unbootable that the plan says so of.
///
/// # Errors
/// When the disk is another one, in use, or fails.
pub fn disable(host: &Host, plan: &Disabled) -> Result<(), ApplyError> {
    let mut open = Open::new(host, &plan.disk, plan.diskseq, Vec::new())?;
    wipe(open.dev(), &plan.clears, plan.size.bytes())
        .map_err(|error| ApplyError::Wipe(plan.disk.to_string(), error))?;
    Ok(open.close()?)
}

fn put_stash(dev: &mut Guarded, stash: &[u8]) -> io::Result<()> {
    dev.seek(SeekFrom::Start(stash::START))?;
    dev.write_all(stash)?;
    dev.sync()
}

/// A source that ends with an error when a person wants to stop.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a Stop,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.wanted() {
            return Err(io::Error::other("stopped"));
        }
        self.inner.read(buffer)
    }
}

#[allow(clippy::too_many_arguments, reason = "all of them are what it is about")]
fn content(
    dev: &mut Guarded,
    host: &Host,
    plan: &Plan,
    target: &TargetPlan,
    layout: &Layout,
    sources: &mut Sources<'_>,
    progress: &mut dyn Progress,
    stop: &Stop,
) -> Result<(), ApplyError> {
    let open = |kind| check::member(host, kind).map(|inner| Stoppable { inner, stop });
    let (mut tree, mut boot, mut root) = (open(MemberKind::Tree)?, open(MemberKind::Boot)?, open(MemberKind::Root)?);
    let mut esp = sources.boot.esp();
    let esp_files = esp.iter_mut().map(|(path, content)| FatFile { path, content: content as &mut dyn Read }).collect();
    let state = sources.state.reader().map_err(|error| ApplyError::State(error.into()))?;
    let bios = BiosCode { boot_img: &sources.boot.boot_img, core_img: &sources.boot.core_img };
    let manifest = sources.signed.manifest();
    let total = MemberKind::ALL.iter().map(|kind| manifest.member(*kind).size.bytes()).sum();
    let input = ComposeInput {
        sector: layout.sector(),
        sizes: plan.sizes,
        guids: target.guids(plan.seed),
        esp_files,
        bios: target.bios.then_some(bios),
        signed: sources.signed,
        payload: Payload { tree: &mut tree, boot: &mut boot, root: &mut root },
        state: Some(state),
        options: WriteOptions { zeros: Zeros::Write, proof: Proof::Medium },
    };
    progress.step("writing", total);
    let before = |kind| match kind {
        MemberKind::Tree => 0,
        MemberKind::Boot => manifest.tree.size.bytes(),
        MemberKind::Root => manifest.tree.size.bytes() + manifest.boot.size.bytes(),
    };
    let mut told = |at: siris_slots::writer::Progress| {
        let done = before(at.kind) + at.done;
        progress.at(done);
        if done == total {
            progress.step("reading back from the disk", 0);
        }
    };
    match write_content(dev, layout, input, &mut told) {
        Err(_) if stop.wanted() => Err(ApplyError::Stopped),
        result => result.map_err(|error| ApplyError::Write(target.disk.to_string(), error)),
    }
}

fn check_esp(dev: &mut Guarded, layout: &Layout, boot: &BootFiles, disk: &str) -> Result<(), ApplyError> {
    let mut esp = Window::new(dev, layout.start(Part::Esp), layout.len(Part::Esp));
    let first = BootEnv::first(Slot::A);
    let mut same = fat::read(&mut esp, bootenv::PATH).is_ok_and(|block| BootEnv::parse(&block) == Ok(first));
    for (path, content) in boot.esp() {
        same &= fat::read(&mut esp, path).is_ok_and(|bytes| bytes == content);
    }
    if same { Ok(()) } else { Err(ApplyError::ReadBack { disk: disk.to_owned(), what: "the EFI system partition" }) }
}

/// Compares the state partition with its image in memory.
fn check_state(dev: &mut Guarded, layout: &Layout, image: &mut Image, disk: &str) -> Result<(), ApplyError> {
    let device = |error| ApplyError::Device(disk.to_owned(), error);
    let mut left = image.size();
    let mut found = dev.medium(layout.start(Part::State), left).map_err(device)?;
    let reader = image.reader().map_err(|error| ApplyError::State(error.into()))?;
    let (mut on_disk, mut wanted) = (vec![0; CHUNK], vec![0; CHUNK]);
    while left > 0 {
        let n = left.min(CHUNK as u64) as usize;
        reader.read_exact(&mut wanted[..n]).map_err(|error| ApplyError::State(error.into()))?;
        found.read_exact(&mut on_disk[..n]).map_err(device)?;
        if on_disk[..n] != wanted[..n] {
            return Err(ApplyError::ReadBack { disk: disk.to_owned(), what: "the state partition" });
        }
        left -= n as u64;
    }
    Ok(())
}

impl Written<'_> {
    /// Where everything is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Puts the receipt on the state partition, and the install's id and its medium into the boot environment, reads both back, and
    /// closes the disk.
    ///
    /// # Errors
    /// When the disk fails. The system on it is complete all the same; it has no receipt.
    pub fn seal(mut self, state: &Image, receipt: &[u8], id: &str, manifest: Sha256) -> Result<(), ApplyError> {
        let disk = self.disk.clone();
        let device = |error| ApplyError::Device(disk.clone(), error);
        let (start, len) = (self.layout.start(Part::State), self.layout.len(Part::State));
        let blocks = state.receipt_blocks(receipt)?;
        let dev = self.open.dev();
        let mut window = Window::new(&mut *dev, start, len);
        for (at, bytes) in &blocks {
            window.seek(SeekFrom::Start(*at)).and_then(|_| window.write_all(bytes)).map_err(device)?;
        }
        window.sync().and_then(|()| window.forget()).map_err(device)?;
        for (at, bytes) in &blocks {
            let mut found = vec![0; bytes.len()];
            window.seek(SeekFrom::Start(*at)).and_then(|_| window.read_exact(&mut found)).map_err(device)?;
            if found != *bytes {
                return Err(ApplyError::ReadBack { disk, what: "the receipt" });
            }
        }
        if self.stashed {
            // Nobody needs it from here on.
            put_stash(&mut *dev, &vec![0; stash::LEN as usize]).map_err(device)?;
        }
        let mut env = BootEnv::first(Slot::A);
        env.set_other(INSTALL_VARIABLE, id);
        env.set_other(MEDIUM_VARIABLE, &manifest.to_string()[..MEDIUM_DIGITS]);
        let block = env.to_block().map_err(|error| device(io::Error::other(error)))?;
        let mut esp = Window::new(&mut *dev, self.layout.start(Part::Esp), self.layout.len(Part::Esp));
        fat::overwrite(&mut esp, bootenv::PATH, &block).map_err(|error| device(io::Error::other(error)))?;
        dev.sync().map_err(device)?;
        Ok(self.open.close()?)
    }
}
