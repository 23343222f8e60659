use std::io::Cursor;

use proptest::{prop_assert, proptest};
use siris_ibu::{ByteSize, Sha256};

use super::*;
use crate::gpt;
use crate::guid::GuidSource;
use crate::layout::{Layout, SectorSize, Sizes};

fn sizes() -> Sizes {
    let mib = ByteSize::mib;
    Sizes { esp: mib(1), boot: mib(1), slot: mib(2), state_min: mib(1) }
}

fn ours(sector: SectorSize) -> (Cursor<Vec<u8>>, Layout) {
    let disk = sizes().smallest_disk();
    let layout = Layout::plan(disk, sector, &sizes(), &GuidSource::Seed(Sha256::of(b"table"))).unwrap();
    let mut dev = Cursor::new(vec![0; disk.bytes() as usize]);
    gpt::apply(&mut dev, &layout).unwrap();
    (dev, layout)
}

fn table(dev: &mut Cursor<Vec<u8>>, sector: u64) -> Table {
    let bytes = dev.get_ref().len() as u64;
    read(dev, bytes, sector).unwrap()
}

#[test]
fn what_another_writer_made_reads_back() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let (mut dev, layout) = ours(sector);
        let Table::Gpt(found) = table(&mut dev, sector.bytes()) else { panic!() };
        assert_eq!((found.guid, found.primary, found.backup, found.slots), (layout.guid(), true, true, 128));
        for (entry, part) in layout.entries().iter().zip(&found.parts) {
            assert_eq!((part.number, part.name.as_str()), (entry.part.number(), entry.part.label()));
            assert_eq!((part.first_lba, part.last_lba, part.guid), (entry.first_lba, entry.last_lba, entry.guid));
        }
        // Half a table is told apart from a whole one, and from none.
        dev.get_mut()[sector.bytes() as usize + 60] ^= 1;
        let Table::Gpt(half) = table(&mut dev, sector.bytes()) else { panic!() };
        assert_eq!((half.primary, half.backup, &half.parts), (false, true, &found.parts));
        let last = dev.get_ref().len() - sector.bytes() as usize;
        dev.get_mut()[last] ^= 1;
        assert!(matches!(table(&mut dev, sector.bytes()), Table::Damaged(_)));
    }
}

#[test]
fn an_mbr_with_logical_partitions() {
    let mut disk = vec![0; 1 << 20];
    let mut entry = |block: usize, n: usize, active: u8, kind: u8, first: u32, sectors: u32| {
        let at = block * 512 + 446 + 16 * n;
        disk[at] = active;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        disk[block * 512 + 510..block * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    };
    entry(0, 0, 0x80, 0x83, 64, 100);
    entry(0, 1, 0, 0x05, 200, 1000);
    entry(200, 0, 0, 0x82, 10, 50);
    entry(200, 1, 0, 0x05, 300, 100);
    entry(500, 0, 0, 0xfd, 10, 20);
    // A chain that bites its tail ends all the same.
    entry(500, 1, 0, 0x05, 0, 100);
    let Table::Mbr(parts) = read(&mut Cursor::new(disk), 1 << 20, 512).unwrap() else { panic!() };
    let seen: Vec<_> = parts.iter().take(4).map(|p| (p.number, p.kind, p.first_lba, p.sectors, p.active)).collect();
    assert_eq!(
        seen,
        [(1, 0x83, 64, 100, true), (2, 0x05, 200, 1000, false), (5, 0x82, 210, 50, false), (6, 0xfd, 510, 20, false)]
    );
    assert!(parts.len() <= 130);
}

#[test]
fn empty_disks_and_boot_sectors_are_no_tables() {
    assert_eq!(read(&mut Cursor::new(vec![0; 1 << 20]), 1 << 20, 512).unwrap(), Table::None);
    let mut fat = vec![0; 1 << 20];
    fat[446..510].fill(b'x');
    fat[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(read(&mut Cursor::new(fat), 1 << 20, 512).unwrap(), Table::None);
    assert_eq!(read(&mut Cursor::new(vec![0; 100]), 100, 512).unwrap(), Table::None);
}

proptest! {
    #[test]
    fn damaged_tables_never_panic(at in 0usize..40_000, byte: u8, big: bool) {
        let sector = if big { SectorSize::S4096 } else { SectorSize::S512 };
        let (mut dev, _) = ours(sector);
        dev.get_mut()[at] = byte;
        if let Table::Gpt(found) = table(&mut dev, sector.bytes()) {
            let sectors = dev.get_ref().len() as u64 / sector.bytes();
            prop_assert!(found.parts.iter().all(|p| p.first_lba <= p.last_lba && p.last_lba < sectors));
        }
    }
}
