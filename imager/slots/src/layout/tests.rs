use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;
use siris_ibu::Sha256;

fn plan(disk: ByteSize, sector: SectorSize, sizes: &Sizes) -> Result<Layout, LayoutError> {
    Layout::plan(disk, sector, sizes, &GuidSource::Seed(Sha256::of(b"golden")))
}

#[test]
fn the_default_layouts_are_these() {
    let mut text = String::new();
    for sector in [SectorSize::S512, SectorSize::S4096] {
        // Not a whole number of MiB, as real disks are not.
        let disk = ByteSize::from_bytes(16_013_942_784);
        text += &plan(disk, sector, &Sizes::default()).unwrap().to_string();
    }
    assert_eq!(text, include_str!("golden.txt"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let sizes = Sizes::default();
    let least = sizes.smallest_disk();
    assert!(plan(least, SectorSize::S512, &sizes).is_ok());
    let less = ByteSize::from_bytes(least.bytes() - 4096);
    assert_eq!(plan(less, SectorSize::S512, &sizes).unwrap_err().code(), "disk-too-small");
    let odd = Sizes { boot: ByteSize::from_bytes(5000), ..sizes };
    assert_eq!(plan(least, SectorSize::S512, &odd).unwrap_err().code(), "layout-unaligned");
    let tiny = Sizes { slot: TRAILER, ..sizes };
    assert_eq!(plan(least, SectorSize::S512, &tiny).unwrap_err().code(), "layout-slot-too-small");
    let huge = Sizes { slot: ByteSize::from_bytes(u64::MAX / MIB * MIB), ..sizes };
    assert_eq!(plan(least, SectorSize::S512, &huge).unwrap_err().code(), "disk-too-small");
}

#[test]
fn installs_never_share_guids() {
    let sizes = Sizes::default();
    let random = || Layout::plan(sizes.smallest_disk(), SectorSize::S512, &sizes, &GuidSource::Random).unwrap();
    let mut guids: Vec<_> = [random(), random()].iter().flat_map(|l| l.entries.map(|e| e.guid)).collect();
    guids.sort();
    guids.dedup();
    assert_eq!(guids.len(), 14);
}

proptest! {
    #[test]
    fn partitions_are_aligned_and_apart(esp in 1u64..300, boot in 1u64..300, slot in 2u64..9000, state in 1u64..500,
                                        more in 0u64..40_000_000, big: bool) {
        let sector = if big { SectorSize::S4096 } else { SectorSize::S512 };
        let sizes = Sizes { esp: ByteSize::mib(esp), boot: ByteSize::mib(boot), slot: ByteSize::mib(slot),
                            state_min: ByteSize::mib(state) };
        let disk = ByteSize::from_bytes(sizes.smallest_disk().bytes() + more * 512);
        let layout = plan(disk, sector, &sizes).unwrap();
        let mut end = 0;
        for (n, entry) in layout.entries().iter().enumerate() {
            prop_assert_eq!(entry.part.number() as usize, n + 1);
            prop_assert_eq!(layout.start(entry.part) % MIB, 0);
            prop_assert_eq!(layout.len(entry.part) % MIB, 0);
            prop_assert!(layout.start(entry.part) >= end);
            end = layout.start(entry.part) + layout.len(entry.part);
        }
        prop_assert!(layout.len(Part::State) >= sizes.state_min.bytes());
        prop_assert!(end + ENTRIES + sector.bytes() <= disk.bytes() / sector.bytes() * sector.bytes());
    }
}
