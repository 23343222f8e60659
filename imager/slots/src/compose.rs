//! A whole OS disk in one go: what the image builder and a full install write.
//!
//! Slot A gets the payload and is good, slot B is empty, the state partition gets what it is given. With a seeded
//! [`GuidSource`] and a new, empty device the same input makes the same bytes.

use std::io::{self, Read};

use siris_ibu::{ByteSize, Class, SignedManifest};

use crate::boot_code::{self, BootCodeError};
use crate::bootenv::{self, BootEnv};
use crate::device::{Device, Window, Zeros, write_runs};
use crate::fat::{self, FatError, FatFile, FatSpec};
use crate::gpt::{self, GptError};
use crate::guid::GuidSource;
use crate::layout::{Layout, LayoutError, Part, SectorSize, Sizes};
use crate::slot::Slot;
use crate::writer::{self, Payload, Progress, WriteError, WriteOptions};

/// Volume label of the EFI system partition.
pub const ESP_LABEL: &str = "SIRIS_ESP";

/// GRUB for legacy BIOS.
#[derive(Debug, Clone, Copy)]
pub struct BiosCode<'a> {
    /// `boot.img`, as GRUB ships it.
    pub boot_img: &'a [u8],
    /// The core image, as `grub-mkimage` makes it.
    pub core_img: &'a [u8],
}

/// What goes on the disk.
pub struct ComposeInput<'a> {
    /// Sector size of the disk.
    pub sector: SectorSize,
    /// Sizes of the partitions.
    pub sizes: Sizes,
    /// Where GUIDs come from.
    pub guids: GuidSource,
    /// Files of the EFI system partition, without the boot environment.
    pub esp_files: Vec<FatFile<'a>>,
    /// Boot code for legacy BIOS; none on sectors of 4096 bytes, which it cannot read.
    pub bios: Option<BiosCode<'a>>,
    /// The verified manifest of the payload.
    pub signed: &'a SignedManifest,
    /// The payload, for slot A.
    pub payload: Payload<'a>,
    /// The image of the state partition's file system: at most as long as the partition.
    pub state: Option<&'a mut dyn Read>,
    /// How the slot is written, and zeros anywhere.
    pub options: WriteOptions,
}

/// Why a disk was not composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The plan.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The partition table.
    #[error(transparent)]
    Gpt(#[from] GptError),
    /// The boot code.
    #[error(transparent)]
    BootCode(#[from] BootCodeError),
    /// The EFI system partition.
    #[error("the EFI system partition")]
    Esp(#[source] FatError),
    /// The slot.
    #[error(transparent)]
    Slot(#[from] WriteError),
    /// The image of the state partition ended early, or was too long.
    #[error("the state partition has room for {0}, its image is larger")]
    StateTooLarge(ByteSize),
    /// The state partition could not be read or written.
    #[error("copying the state partition")]
    State(#[source] io::Error),
    /// The device failed.
    #[error("writing the disk")]
    Device(#[source] io::Error),
}

impl ComposeError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Layout(error) => error.code(),
            Self::Gpt(error) => error.code(),
            Self::BootCode(error) => error.code(),
            Self::Esp(error) => error.code(),
            Self::Slot(error) => error.code(),
            Self::StateTooLarge(_) => "state-too-large",
            Self::State(_) => "state-copy",
            Self::Device(_) => "disk-write",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Layout(error) => error.class(),
            Self::Gpt(error) => error.class(),
            Self::BootCode(error) => error.class(),
            Self::Esp(error) => error.class(),
            Self::Slot(error) => error.class(),
            Self::StateTooLarge(_) => Class::Input,
            Self::State(_) | Self::Device(_) => Class::Environment,
        }
    }
}

/// Writes the whole of `dev`, whose length is that of the disk, and returns its layout. The partition table comes
/// last: a disk that was not finished has none.
pub fn write_disk(
    dev: &mut dyn Device,
    input: ComposeInput<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Layout, ComposeError> {
    let disk = dev.seek(io::SeekFrom::End(0)).map_err(ComposeError::Device)?;
    let layout = Layout::plan(ByteSize::from_bytes(disk), input.sector, &input.sizes, &input.guids)?;
    write_content(dev, &layout, input, progress)?;
    gpt::apply(dev, &layout)?;
    dev.flush().and_then(|()| dev.sync()).map_err(ComposeError::Device)?;
    Ok(layout)
}

/// Writes everything that a disk of this layout holds, but for the partition table, and syncs it: whoever then applies
/// the table makes the disk bootable with one more step. The sizes of `input` are not looked at.
pub fn write_content(
    dev: &mut dyn Device,
    layout: &Layout,
    mut input: ComposeInput<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ComposeError> {
    let zeros = input.options.zeros;
    write_esp(dev, layout, &input.guids, &mut input.esp_files, zeros)?;
    if let Some(image) = input.state {
        write_state(dev, layout, image, zeros)?;
    }
    writer::write_slot(dev, layout, Slot::A, input.signed, input.payload, input.options, progress)?;
    if let Some(BiosCode { boot_img, core_img }) = input.bios {
        boot_code::write(dev, layout, boot_img, core_img)?;
    }
    dev.flush().and_then(|()| dev.sync()).map_err(ComposeError::Device)
}

fn write_esp(
    dev: &mut dyn Device,
    layout: &Layout,
    guids: &GuidSource,
    files: &mut [FatFile<'_>],
    zeros: Zeros,
) -> Result<(), ComposeError> {
    let size = ByteSize::from_bytes(layout.len(Part::Esp));
    // An environment of five short lines fits.
    let env = BootEnv::first(Slot::A).to_block().expect("a first environment fits its block");
    let mut env = &env[..];
    let mut all = vec![FatFile { path: bootenv::PATH, content: &mut env }];
    all.extend(files.iter_mut().map(|file| FatFile { path: file.path, content: &mut *file.content }));
    let spec = FatSpec { size, sector: layout.sector(), label: ESP_LABEL, volume_id: guids.volume_id(ESP_LABEL) };
    let mut window = Window::new(dev, layout.start(Part::Esp), size.bytes());
    fat::build(&mut window, &spec, &mut all, zeros).map(drop).map_err(ComposeError::Esp)
}

fn write_state(dev: &mut dyn Device, layout: &Layout, image: &mut dyn Read, zeros: Zeros) -> Result<(), ComposeError> {
    let room = layout.len(Part::State);
    let mut window = Window::new(dev, layout.start(Part::State), room);
    let (mut buffer, mut done) = (vec![0; 1 << 20], 0);
    loop {
        let n = writer::fill(image, &mut buffer).map_err(ComposeError::State)?;
        done += n as u64;
        match n {
            0 => return Ok(()),
            _ if done > room => return Err(ComposeError::StateTooLarge(ByteSize::from_bytes(room))),
            n => write_runs(&mut window, &buffer[..n], zeros).map_err(ComposeError::State)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Seek};

    use super::*;
    use crate::device::RUN;
    use crate::trailer::{SlotInfo, read_slot};
    use crate::writer::Proof;
    use crate::writer::tests::{Sample, sizes};

    fn compose(
        sample: &Sample,
        dev: &mut dyn Device,
        state: &[u8],
        sector: SectorSize,
    ) -> Result<Layout, ComposeError> {
        compose_over(sample, dev, state, sector, Zeros::Skip)
    }

    fn compose_over(
        sample: &Sample,
        dev: &mut dyn Device,
        state: &[u8],
        sector: SectorSize,
        zeros: Zeros,
    ) -> Result<Layout, ComposeError> {
        let (mut tree, mut boot, mut root) = (&sample.tree[..], &sample.boot[..], &sample.root[..]);
        let (mut efi, mut state) = (&b"MZ..."[..], state);
        let boot_img = boot_code::tests::boot_img();
        let core_img = boot_code::tests::core_img(3000);
        let bios = BiosCode { boot_img: &boot_img, core_img: &core_img };
        let input = ComposeInput {
            sector,
            sizes: sizes(),
            guids: GuidSource::Seed(siris_ibu::Sha256::of(b"seed")),
            esp_files: vec![FatFile { path: "EFI/BOOT/BOOTX64.EFI", content: &mut efi }],
            bios: Some(bios).filter(|_| sector == SectorSize::S512),
            signed: &sample.signed,
            payload: Payload { tree: &mut tree, boot: &mut boot, root: &mut root },
            state: Some(&mut state),
            options: WriteOptions { zeros, proof: Proof::Both },
        };
        write_disk(dev, input, &mut |_| {})
    }

    #[test]
    fn a_composed_disk_parses_back() {
        let sample = Sample::new(1);
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let mut dev = Cursor::new(vec![0; sizes().smallest_disk().bytes() as usize]);
            let layout = compose(&sample, &mut dev, &vec![5; 3 * RUN], sector).unwrap();
            let mut again = Cursor::new(vec![0; sizes().smallest_disk().bytes() as usize]);
            compose(&sample, &mut again, &vec![5; 3 * RUN], sector).unwrap();
            assert!(dev.get_ref() == again.get_ref(), "same input, same bytes");

            assert_eq!(gpt::read(&mut dev, sector).unwrap(), layout);
            let mut esp = Window::new(&mut dev, layout.start(Part::Esp), layout.len(Part::Esp));
            let env = BootEnv::parse(&fat::read(&mut esp, bootenv::PATH).unwrap()).unwrap();
            assert_eq!(env, BootEnv::first(Slot::A));
            assert_eq!(fat::read(&mut esp, "efi/boot/bootx64.efi").unwrap(), b"MZ...");
            let SlotInfo::Written(trailer) = read_slot(&mut dev, &layout, Slot::A).unwrap() else { panic!() };
            assert_eq!(sample.verify(&trailer).unwrap(), sample.signed);
            writer::check_slot(&mut dev, &layout, Slot::A, &sample.signed).unwrap();
            assert_eq!(read_slot(&mut dev, &layout, Slot::B).unwrap(), SlotInfo::Empty);
            assert_eq!(dev.get_ref()[layout.start(Part::State) as usize], 5);
        }
    }

    #[test]
    fn a_disk_with_a_table_is_a_whole_one_wherever_power_was_lost() {
        let sample = Sample::new(1);
        // What an old system left, but for its table: that is cleared before anything is written.
        let before = vec![0xaa; sizes().smallest_disk().bytes() as usize];
        let mut dev = crate::writer::tests::Recorder::new(before.clone());
        let state = vec![5; 3 * RUN];
        let layout = compose_over(&sample, &mut dev, &state, SectorSize::S512, Zeros::Write).unwrap();
        let whole = dev.disk.get_ref().clone();
        let mut complete = 0;
        dev.cuts(&before, |disk| {
            let Ok(found) = gpt::read(disk, SectorSize::S512) else { return };
            assert_eq!(found, layout);
            let content = (1 << 20)..(layout.start(Part::Bios) + disk.get_ref().len() as u64 - (2 << 20)) as usize;
            assert!(disk.get_ref()[content.clone()] == whole[content], "a table over half a system");
            assert!(disk.get_ref()[..440] == whole[..440], "a table without boot code");
            complete += 1;
        });
        assert!(complete > 2);
    }

    #[test]
    fn a_new_file_stays_sparse() {
        use std::os::unix::fs::MetadataExt;
        let sample = Sample::new(1);
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(sizes().smallest_disk().bytes()).unwrap();
        compose(&sample, &mut file, &[], SectorSize::S512).unwrap();
        file.rewind().unwrap();
        let meta = file.metadata().unwrap();
        assert!(meta.blocks() * 512 < meta.len() / 2, "{} of {}", meta.blocks() * 512, meta.len());
    }

    #[test]
    fn a_disk_that_is_not_finished_has_no_table() {
        let mut sample = Sample::new(1);
        sample.root[0] ^= 1;
        let mut dev = Cursor::new(vec![0; sizes().smallest_disk().bytes() as usize]);
        assert_eq!(compose(&sample, &mut dev, &[], SectorSize::S512).unwrap_err().code(), "member-digest");
        assert!(gpt::read(&mut dev, SectorSize::S512).is_err());
        let sample = Sample::new(1);
        let error = compose(&sample, &mut dev, &vec![0; 9 << 20], SectorSize::S512).unwrap_err();
        assert_eq!(error.code(), "state-too-large");
    }
}
