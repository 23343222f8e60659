//! GRUB's boot code for legacy BIOS: `boot.img` in the first sector, the core image in `siris-bios`.
//!
//! What is patched is what `grub-bios-setup` patches (GRUB's `include/grub/i386/pc/boot.h` names the offsets):
//! in `boot.img` the sector of the core image and the work-around for firmware that passes a wrong drive; in the
//! core image's first sector, `diskboot.img`, the list of sectors that holds the rest. The core image lies in one
//! piece, so that list has one entry.

use std::io::{self, SeekFrom};

use siris_ibu::Class;

use crate::device::Device;
use crate::layout::{Layout, Part, SectorSize};

const SECTOR: usize = 512;
/// End of the code in the first sector: disk signature and partition table follow.
const CODE_END: usize = 440;
const KERNEL_SECTOR: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: usize = 0x66;
/// Segment to which the core image's second sector is loaded: 0x8000 for the first, 512 bytes further.
const SECOND_SECTOR_SEGMENT: u16 = 0x820;
/// What lies between there and the memory that GRUB's loader uses itself.
const CORE_MAX: u64 = 0x78000 - 0x8000;

/// Why boot code could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BootCodeError {
    /// BIOS knows no such sectors.
    #[error("legacy BIOS cannot boot from sectors of {0} bytes")]
    SectorSize(u64),
    /// The file is not GRUB's boot sector.
    #[error("boot.img is not GRUB's boot sector")]
    NotBootImg,
    /// The file is not a core image, or a foreign one.
    #[error("core.img is not GRUB's core image")]
    NotCoreImg,
    /// It fits neither its partition nor the memory it is loaded to.
    #[error("core.img has {len} bytes, at most {room} can be loaded")]
    CoreTooLarge {
        /// The image.
        len: usize,
        /// The room.
        room: u64,
    },
    /// Writing failed.
    #[error("writing boot code")]
    Write(#[source] io::Error),
}

impl BootCodeError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SectorSize(_) => "bios-sector-size",
            Self::NotBootImg | Self::NotCoreImg => "boot-code-unknown",
            Self::CoreTooLarge { .. } => "boot-code-too-large",
            Self::Write(_) => "boot-code-write",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Write(_) => Class::Environment,
            _ => Class::Input,
        }
    }
}

/// Writes both parts of the boot code. The partition table in the first sector stays as it is.
pub fn write(dev: &mut dyn Device, layout: &Layout, boot_img: &[u8], core_img: &[u8]) -> Result<(), BootCodeError> {
    if layout.sector() != SectorSize::S512 {
        return Err(BootCodeError::SectorSize(layout.sector().bytes()));
    }
    let first_lba = layout.entry(Part::Bios).first_lba;
    let boot = patched_boot(boot_img, first_lba)?;
    let core = patched_core(core_img, first_lba, layout.len(Part::Bios))?;
    let mut write = |at: u64, bytes: &[u8]| {
        dev.seek(SeekFrom::Start(at)).and_then(|_| dev.write_all(bytes)).map_err(BootCodeError::Write)
    };
    write(layout.start(Part::Bios), &core)?;
    write(0, &boot[..CODE_END])
}

fn patched_boot(boot_img: &[u8], core_lba: u64) -> Result<Vec<u8>, BootCodeError> {
    let mut boot = boot_img.to_vec();
    if boot.len() != SECTOR || boot[510..] != [0x55, 0xaa] || boot[BOOT_DRIVE] != 0xff {
        return Err(BootCodeError::NotBootImg);
    }
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
    // A jump over the test of the drive number becomes two no-ops: on a hard disk the test is wanted.
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(boot)
}

fn patched_core(core_img: &[u8], core_lba: u64, room: u64) -> Result<Vec<u8>, BootCodeError> {
    let mut core = core_img.to_vec();
    let (entry, end) = (SECTOR - 12, SECTOR);
    let segment = |core: &[u8]| u16::from_le_bytes([core[entry + 10], core[entry + 11]]);
    // The entry before would be the list's second, and must end it.
    if core.len() <= SECTOR || segment(&core) != SECOND_SECTOR_SEGMENT || core[entry - 4..entry - 2] != [0, 0] {
        return Err(BootCodeError::NotCoreImg);
    }
    let room = room.min(CORE_MAX);
    let too_large = BootCodeError::CoreTooLarge { len: core_img.len(), room };
    core.resize(core.len().next_multiple_of(SECTOR), 0);
    let rest = u16::try_from(core.len() / SECTOR - 1);
    let Some(rest) = rest.ok().filter(|_| core.len() as u64 <= room) else { return Err(too_large) };
    core[entry..entry + 8].copy_from_slice(&(core_lba + 1).to_le_bytes());
    core[entry + 8..entry + 10].copy_from_slice(&rest.to_le_bytes());
    core[entry + 10..end].copy_from_slice(&SECOND_SECTOR_SEGMENT.to_le_bytes());
    Ok(core)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use siris_ibu::ByteSize;

    use super::*;
    use crate::guid::GuidSource;
    use crate::layout::Sizes;

    pub(crate) fn boot_img() -> Vec<u8> {
        let mut boot = vec![0xcc; SECTOR];
        boot[BOOT_DRIVE] = 0xff;
        boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0xeb, 0x05]);
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    pub(crate) fn core_img(len: usize) -> Vec<u8> {
        let mut core = vec![0; SECTOR];
        core[510..].copy_from_slice(&SECOND_SECTOR_SEGMENT.to_le_bytes());
        core.resize(len, 0xdd);
        core
    }

    #[test]
    fn both_parts_point_at_each_other() {
        let mib = ByteSize::mib;
        let sizes = Sizes { esp: mib(1), boot: mib(1), slot: mib(2), state_min: mib(1) };
        let layout = |sector| Layout::plan(sizes.smallest_disk(), sector, &sizes, &GuidSource::Random).unwrap();
        let mut dev = Cursor::new(vec![0x11; sizes.smallest_disk().bytes() as usize]);
        write(&mut dev, &layout(SectorSize::S512), &boot_img(), &core_img(30_000)).unwrap();
        let disk = dev.get_ref();
        assert_eq!(disk[0x5c..0x64], 2048u64.to_le_bytes());
        assert_eq!(disk[0x64..0x68], [0xff, 0xcc, 0x90, 0x90]);
        assert_eq!(disk[440..512], [0x11; 72]);
        let core = &disk[1 << 20..];
        assert_eq!(core[500..508], 2049u64.to_le_bytes());
        assert_eq!(core[508..512], [58, 0, 0x20, 0x08], "58 sectors follow the first of 59");
        assert_eq!(core[512], 0xdd);

        let error = |boot: &[u8], core: &[u8], sector| {
            write(&mut Cursor::new(vec![]), &layout(sector), boot, core).unwrap_err().code()
        };
        let (boot, core) = (boot_img(), core_img(30_000));
        assert_eq!(error(&boot, &core, SectorSize::S4096), "bios-sector-size");
        assert_eq!(error(&core[..512], &core, SectorSize::S512), "boot-code-unknown");
        assert_eq!(error(&boot, &boot, SectorSize::S512), "boot-code-unknown");
        assert_eq!(error(&boot, &core_img(0x70001), SectorSize::S512), "boot-code-too-large");
    }
}
