use super::{MAGIC, MMP_MAGIC, RING, SLOTS, Uberblock, ring, traces};
use crate::bytes::Endian;
use crate::checksum::seal;

/// Where the ring lies in these tests.
const AT: u64 = 128 * 1024;

/// Writes an uberblock into a slot, as ZFS would.
pub(crate) fn write(ring: &mut [u8], at: u64, size: usize, slot: usize, endian: Endian, block: &Uberblock) {
    let bytes = &mut ring[slot * size..(slot + 1) * size];
    bytes.fill(0);
    let mmp = block.mmp_sequence.map_or(0, |sequence| u64::from(sequence) << 32 | 2);
    let fields = [
        (0, MAGIC),
        (1, block.version),
        (2, block.txg),
        (3, block.guid_sum),
        (4, block.timestamp),
        (22, MMP_MAGIC),
        (24, mmp),
        (25, block.checkpoint_txg),
    ];
    for (n, value) in fields {
        bytes[n * 8..n * 8 + 8].copy_from_slice(&endian.bytes(value));
    }
    seal(bytes, at + (slot * size) as u64, endian);
}

pub(crate) fn uberblock(txg: u64, timestamp: u64) -> Uberblock {
    Uberblock { version: 5000, txg, guid_sum: 42, timestamp, mmp_sequence: None, checkpoint_txg: 0 }
}

fn newest(bytes: &[u8]) -> Option<Uberblock> {
    ring(bytes, AT).into_iter().max_by(Uberblock::by_age)
}

#[test]
fn all_slot_sizes_and_byte_orders_are_read() {
    for size in SLOTS {
        for endian in [Endian::Little, Endian::Big] {
            let mut bytes = vec![0; RING];
            for n in 0..RING / size {
                let block =
                    Uberblock { mmp_sequence: Some(n as u16), checkpoint_txg: 3, ..uberblock(100 + n as u64, 5) };
                write(&mut bytes, AT, size, n, endian, &block);
            }
            let last = RING / size - 1;
            let found = newest(&bytes).unwrap();
            assert_eq!((found.txg, found.mmp_sequence), (100 + last as u64, Some(last as u16)), "{size} {endian:?}");
            assert_eq!((found.version, found.guid_sum, found.checkpoint_txg), (5000, 42, 3));
            assert_eq!(ring(&bytes, AT).len(), RING / size);
        }
    }
}

#[test]
fn age_goes_by_transaction_group_then_time_then_sequence() {
    let by_sequence = |sequence| Uberblock { mmp_sequence: sequence, ..uberblock(9, 7) };
    let ordered = [
        uberblock(8, 99),
        uberblock(9, 6),
        by_sequence(None),
        by_sequence(Some(1)),
        by_sequence(Some(2)),
        uberblock(9, 8),
    ];
    for pair in ordered.windows(2) {
        assert!(pair[0].by_age(&pair[1]).is_lt(), "{pair:?}");
        // The ring's order means nothing.
        for [first, second] in [[0, 1], [1, 0]] {
            let mut bytes = vec![0; RING];
            write(&mut bytes, AT, 1024, first, Endian::Little, &pair[0]);
            write(&mut bytes, AT, 1024, second, Endian::Little, &pair[1]);
            assert_eq!(newest(&bytes).as_ref(), Some(&pair[1]));
        }
    }
}

#[test]
fn an_uberblock_that_fails_its_checksum_does_not_count() {
    let mut bytes = vec![0; RING];
    write(&mut bytes, AT, 4096, 3, Endian::Little, &uberblock(10, 1));
    write(&mut bytes, AT, 4096, 4, Endian::Little, &uberblock(11, 1));
    bytes[4 * 4096 + 16] ^= 2;
    assert_eq!(newest(&bytes).map(|u| u.txg), Some(10), "a torn write would pass for the newest state");
    let (old, new) = bytes.split_at_mut(5 * 4096);
    new[..4096].copy_from_slice(&old[3 * 4096..4 * 4096]);
    assert_eq!(ring(&bytes, AT).len(), 1, "a copy in another slot would count");
    assert!(ring(&bytes, AT + 1024).is_empty(), "a ring of another place would count");
}

#[test]
fn slots_of_another_size_left_from_before_do_not_disturb() {
    let mut bytes = vec![0; RING];
    for n in 0..RING / 1024 {
        write(&mut bytes, AT, 1024, n, Endian::Little, &uberblock(n as u64 + 1, 1));
    }
    write(&mut bytes, AT, 8192, 2, Endian::Little, &uberblock(5000, 2));
    let found = ring(&bytes, AT);
    assert_eq!(found.len(), RING / 1024 - 8 + 1);
    assert_eq!(newest(&bytes).map(|u| u.txg), Some(5000));
}

#[test]
fn traces_are_seen_of_what_is_not_valid() {
    let mut bytes = vec![0; RING];
    assert!(!traces(&bytes));
    for endian in [Endian::Little, Endian::Big] {
        bytes[17 * 1024..17 * 1024 + 8].copy_from_slice(&endian.bytes(MAGIC));
        assert!(traces(&bytes));
        assert!(ring(&bytes, AT).is_empty());
    }
}
