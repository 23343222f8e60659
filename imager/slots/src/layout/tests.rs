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

fn kept(number: u32, first: u64, last: u64) -> KeptEntry {
    let mut raw = [1; 128];
    raw[32..40].copy_from_slice(&first.to_le_bytes());
    raw[40..48].copy_from_slice(&last.to_le_bytes());
    KeptEntry::new(number, raw)
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let sizes = Sizes::default();
    let disk = ByteSize::from_bytes(sizes.smallest_disk().bytes() + (8 << 20));
    let code = |entries: &[KeptEntry]| {
        let guids = GuidSource::Seed(Sha256::of(b"k"));
        Layout::plan_beside(disk, SectorSize::S512, &sizes, &guids, entries).map_err(|error| error.code())
    };
    let end = disk.bytes() / 512;
    assert!(code(&[kept(1, 34, 2047)]).is_ok(), "before the first MiB is room that is not used");
    assert!(code(&[kept(1, end - 34, end - 34)]).is_ok());
    assert_eq!(code(&[kept(1, 33, 2047)]).unwrap_err(), "layout-kept");
    assert_eq!(code(&[kept(1, end - 33, end - 33)]).unwrap_err(), "layout-kept");
    assert_eq!(code(&[kept(1, 9, 8)]).unwrap_err(), "layout-kept");
    assert_eq!(code(&[kept(1, u64::MAX - 1, u64::MAX)]).unwrap_err(), "layout-kept");
    assert_eq!(code(&[kept(1, 4096, 8191), kept(2, 8191, 9000)]).unwrap_err(), "layout-kept");
    // In the middle, it leaves no gap for a slot.
    assert_eq!(code(&[kept(1, end / 4, end / 4 * 3)]).unwrap_err(), "disk-too-small");
}

proptest! {
    #[test]
    fn nothing_touches_what_is_kept(starts in proptest::collection::vec((34u64..200_000, 1u64..40_000), 0..5),
                                    slot in 2u64..20, more in 0u64..400_000) {
        let mib = ByteSize::mib;
        let sizes = Sizes { esp: mib(4), boot: mib(3), slot: mib(slot), state_min: mib(2) };
        let disk = ByteSize::from_bytes(sizes.smallest_disk().bytes() + more * 512);
        let entries: Vec<KeptEntry> = starts.iter().zip(1..).map(|((s, l), n)| kept(n, *s, s + l)).collect();
        let guids = GuidSource::Seed(Sha256::of(b"k"));
        if let Ok(layout) = Layout::plan_beside(disk, SectorSize::S512, &sizes, &guids, &entries) {
            let ours = layout.entries().iter().map(|e| (e.first_lba, e.last_lba));
            let mut all: Vec<_> = ours.chain(layout.kept().iter().map(|k| (k.first_lba(), k.last_lba()))).collect();
            all.sort();
            prop_assert!(all.windows(2).all(|two| two[0].1 < two[1].0), "{all:?}");
            prop_assert!(all.last().unwrap().1 + 33 < disk.bytes() / 512);
            let mut numbers: Vec<u32> = layout.kept().iter().map(KeptEntry::number).collect();
            numbers.dedup();
            prop_assert!(numbers.len() == entries.len() && numbers.iter().all(|n| *n > 7));
        }
    }
}
