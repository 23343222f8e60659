//! Streams made by hand, field by field as the structures in `sys/zfs_ioctl.h` have them: none of ZFS's own can be recorded
//! where there is no ZFS.

use std::collections::BTreeSet;

use proptest::prelude::*;
use siris_zfs::record::MAGIC;

use super::*;

/// A record, by what it says.
#[derive(Debug, Clone)]
pub(in super::super::super) enum Made {
    /// Object, length of its attributes.
    Object(u64, u32),
    /// First object, how many.
    FreeObjects(u64, u64),
    /// Object, offset, length, and what that is compressed to.
    Write(u64, u64, u64, Option<u64>),
    /// Object, offset, length.
    Free(u64, u64, u64),
    /// Object, length.
    Spill(u64, u64),
    /// Object, offset, length, and what that is compressed to.
    Embedded(u64, u64, u64, u32),
}

struct Bytes {
    order: Order,
    out: Vec<u8>,
}

impl Bytes {
    fn u8s(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend(bytes);
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.u8s(&match self.order {
            Order::Little => number.to_le_bytes(),
            Order::Big => number.to_be_bytes(),
        })
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.u8s(&match self.order {
            Order::Little => number.to_le_bytes(),
            Order::Big => number.to_be_bytes(),
        })
    }

    /// The rest of a record, the last 32 bytes of which are its checksum, and what follows it.
    fn rest(&mut self, begun: usize, payload: u64) {
        self.out.resize(begun + RECORD - 32, 0);
        self.u8s(&[0xcc; 32]).u8s(&vec![0xaa; payload as usize]);
    }

    fn record(&mut self, record: &Made, to: u64) {
        let begun = self.out.len();
        let payload = match *record {
            Made::Object(object, attributes) => {
                self.u32(1).u32(0).u64(object).u32(19).u32(44).u32(131_072).u32(attributes);
                // Checksum, compression, slots, flags; the length that only raw streams have.
                self.u8s(&[0, 0, 1, 0]).u32(0).u64(to);
                u64::from(attributes).div_ceil(8) * 8
            }
            Made::FreeObjects(first, count) => {
                self.u32(2).u32(0).u64(first).u64(count).u64(to);
                0
            }
            Made::Write(object, offset, length, compressed) => {
                self.u32(3).u32(0).u64(object).u32(19).u32(0).u64(offset).u64(length).u64(to);
                self.u8s(&[7, 0, if compressed.is_some() { 15 } else { 0 }, 0, 0, 0, 0, 0]);
                // The key for deduplication.
                self.u8s(&[0xbb; 40]).u64(compressed.unwrap_or(0));
                compressed.unwrap_or(length)
            }
            Made::Free(object, offset, length) => {
                self.u32(4).u32(0).u64(object).u64(offset).u64(length).u64(to);
                0
            }
            Made::Spill(object, length) => {
                self.u32(7).u32(0).u64(object).u64(length).u64(to).u8s(&[0; 8]).u64(0);
                length
            }
            Made::Embedded(object, offset, length, size) => {
                self.u32(8).u32(0).u64(object).u64(offset).u64(length).u64(to);
                self.u8s(&[15, 0, 0, 0, 0, 0, 0, 0]).u32(length as u32).u32(size);
                u64::from(size).div_ceil(8) * 8
            }
        };
        self.rest(begun, payload);
    }
}

fn with_header(
    records: &[Made],
    from: u64,
    to: u64,
    order: Order,
    version: u64,
    flags: u32,
    more: fn(&mut Bytes),
) -> Vec<u8> {
    let mut bytes = Bytes { order, out: Vec::new() };
    bytes.u32(0).u32(0).u64(MAGIC).u64(version).u64(1_568_402_268).u32(2).u32(flags).u64(to).u64(from);
    bytes.u8s(b"tank/home/agents/x@1568402268").out.resize(RECORD, 0);
    records.iter().for_each(|record| bytes.record(record, to));
    more(&mut bytes);
    let begun = bytes.out.len();
    bytes.u32(5).u32(0).u8s(&[0xdd; 32]).u64(to);
    bytes.rest(begun, 0);
    bytes.out
}

/// Features that streams of `zfs send -Lc` have.
const USUAL: u64 = 1 | (1 << 2 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 22) << 2;

/// A whole stream.
pub(in super::super::super) fn made(records: &[Made], from: Guid, to: Guid) -> Vec<u8> {
    with_header(records, from.as_u64(), to.as_u64(), Order::Little, USUAL, 0b1100, |_| {})
}

const FROM: u64 = 7;
const TO: u64 = 0x1234_5678_9abc_def0;

fn read(bytes: &[u8]) -> Result<Changes, StreamError> {
    Changes::read(&mut &bytes[..], Guid::new(FROM), Guid::new(TO))
}

fn record() -> impl Strategy<Value = Made> {
    let (object, offset, length) = (0..6u64, 0..(9 * CHUNK), 1..(3 * CHUNK));
    let small = (object.clone(), offset.clone(), 1..200_000u64);
    prop_oneof![
        (object.clone(), 0..400u32).prop_map(|(object, attributes)| Made::Object(object, attributes)),
        (10..20u64, 1..4u64).prop_map(|(first, count)| Made::FreeObjects(first, count)),
        small.clone().prop_map(|(object, offset, length)| Made::Write(object, offset, length, None)),
        (object.clone(), offset.clone(), length.clone(), 1..9000u64)
            .prop_map(|(object, offset, length, size)| Made::Write(object, offset, length, Some(size))),
        (object.clone(), offset.clone(), length)
            .prop_map(|(object, offset, length)| Made::Free(object, offset, length)),
        (object.clone(), offset).prop_map(|(object, offset)| Made::Free(object, offset, u64::MAX)),
        (object, 512..9000u64).prop_map(|(object, length)| Made::Spill(object, length)),
        (small, 1..113u32).prop_map(|((object, offset, length), size)| Made::Embedded(object, offset, length, size)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_records_say_was_written_or_freed_is_what_is_touched(
        records in prop::collection::vec(record(), 0..30),
        big in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let stream = with_header(&records, FROM, TO, order, USUAL, 0b1100, |_| {});
        let changes = read(&stream).unwrap();
        let mut touched = BTreeSet::new();
        for record in &records {
            match *record {
                Made::Write(object, offset, length, _)
                | Made::Free(object, offset, length)
                | Made::Embedded(object, offset, length, _) => {
                    let last = offset.saturating_add(length - 1) / CHUNK;
                    touched.extend((offset / CHUNK..=last.min(20)).map(|chunk| (object, chunk)));
                }
                Made::FreeObjects(first, count) => {
                    touched.extend((first..first + count).flat_map(|object| (0..=20).map(move |chunk| (object, chunk))));
                }
                Made::Object(..) | Made::Spill(..) => {}
            }
        }
        for (object, chunk) in (0..25).flat_map(|object| (0..=20).map(move |chunk| (object, chunk))) {
            let bytes = chunk * CHUNK..(chunk + 1) * CHUNK;
            prop_assert_eq!(changes.touches(object, &bytes), touched.contains(&(object, chunk)), "{} {}", object, chunk);
        }
        // Of one that breaks off, wherever, nothing is known.
        prop_assert!(read(&stream[..cut.index(stream.len())]).is_err());
    }

    #[test]
    fn anything_else_is_no_stream(bytes in prop::collection::vec(any::<u8>(), 0..2000), behind_header in any::<bool>()) {
        let header = made(&[], Guid::new(FROM), Guid::new(TO))[..RECORD].to_vec();
        let bytes = if behind_header { [header, bytes].concat() } else { bytes };
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn what_is_free_behind_a_files_end_does_not_touch_it() {
    let records = [Made::Object(3, 168), Made::Free(3, 131_072, u64::MAX - 131_072), Made::Free(4, 0, u64::MAX)];
    let changes = read(&made(&records, Guid::new(FROM), Guid::new(TO))).unwrap();
    assert!(!changes.touches(3, &(0..100)) && !changes.touches(3, &(0..131_072)) && changes.touches(3, &(0..131_073)));
    assert!(changes.touches(4, &(0..1)));
}

#[test]
fn nothing_is_known_of_a_stream_of_another_kind() {
    let some = [Made::Write(3, 0, 4096, None)];
    let (guids, order) = ((FROM, TO), Order::Little);
    assert!(read(&with_header(&some, guids.0, guids.1, order, USUAL, 0b1100, |_| {})).is_ok());
    let refused = |stream: Vec<u8>, why: &str| {
        let said = read(&stream).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    // Between other snapshots.
    refused(with_header(&some, 8, TO, order, USUAL, 0b1100, |_| {}), "other snapshots");
    refused(with_header(&some, FROM, 8, order, USUAL, 0b1100, |_| {}), "other snapshots");
    // A package of streams; deduplicated, resumed, redacted, raw ones, and features that are not known.
    refused(with_header(&some, FROM, TO, order, USUAL & !3 | 2, 0b1100, |_| {}), "not one stream");
    for feature in [0, 1, 3, 18, 20, 21, 24, 30, 55] {
        refused(with_header(&some, FROM, TO, order, USUAL | 4 << feature, 0b1100, |_| {}), "is not known");
    }
    // Of a clone, and with flags that are not known.
    for flags in [1, 1 << 4, 1 << 31] {
        refused(with_header(&some, FROM, TO, order, USUAL, flags, |_| {}), "is not known");
    }
    // Records by reference, of object ranges, of redaction, and kinds that do not exist.
    let kinds: [fn(&mut Bytes); 4] = [
        |bytes| bytes.u32(6).rest(RECORD + RECORD + 4096, 0),
        |bytes| bytes.u32(9).rest(RECORD + RECORD + 4096, 0),
        |bytes| bytes.u32(10).rest(RECORD + RECORD + 4096, 0),
        |bytes| bytes.u32(11).rest(RECORD + RECORD + 4096, 0),
    ];
    for kind in kinds {
        refused(with_header(&some, FROM, TO, order, USUAL, 0b1100, kind), "is not known");
    }
    // A header in the middle, a record of another snapshot, and something behind the end.
    refused(
        with_header(&some, FROM, TO, order, USUAL, 0b1100, |bytes| bytes.u32(0).rest(RECORD * 2 + 4096, 0)),
        "kind 0",
    );
    refused(
        with_header(&some, FROM, TO, order, USUAL, 0b1100, |bytes| bytes.record(&Made::Free(3, 0, 1), 8)),
        "is not the snapshot's",
    );
    refused([made(&some, Guid::new(FROM), Guid::new(TO)), vec![0]].concat(), "follows");
    // What a header brings along.
    let mut package = made(&some, Guid::new(FROM), Guid::new(TO));
    package[4] = 16;
    refused(package, "is not known");
}
