use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::{List, MAX_DEPTH, Value};
use crate::bytes::Endian;
use crate::damage::NvlistError;
use crate::support::unpacked;

/// Packs lists, so that lists come in that ZFS's own library would not make.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packer {
    Xdr,
    Native(Endian),
}

pub(crate) const PACKERS: [Packer; 3] = [Packer::Xdr, Packer::Native(Endian::Little), Packer::Native(Endian::Big)];

impl Packer {
    pub(crate) fn pack(self, list: &List) -> Vec<u8> {
        let mut out = match self {
            Self::Xdr => vec![1, 1, 0, 0],
            Self::Native(Endian::Big) => vec![0, 0, 0, 0],
            Self::Native(Endian::Little) => vec![0, 1, 0, 0],
        };
        match self {
            Self::Xdr => self.xdr(list, &mut out),
            Self::Native(_) => {
                self.u32(0, &mut out);
                self.u32(1, &mut out);
                self.native(list, &mut out);
            }
        }
        out
    }

    fn u32(self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Native(Endian::Little) => out.extend(number.to_le_bytes()),
            Self::Xdr | Self::Native(Endian::Big) => out.extend(number.to_be_bytes()),
        }
    }

    fn u64(self, number: u64, out: &mut Vec<u8>) {
        match self {
            Self::Native(endian) => out.extend(endian.bytes(number)),
            Self::Xdr => out.extend(number.to_be_bytes()),
        }
    }

    fn text(self, text: &str, out: &mut Vec<u8>) {
        self.u32(text.len() as u32, out);
        out.extend(text.bytes());
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn xdr(self, list: &List, out: &mut Vec<u8>) {
        self.u32(0, out);
        self.u32(1, out);
        for (name, value) in &list.0 {
            let mut body = Vec::new();
            self.text(name, &mut body);
            let (kind, count) = kind(value);
            self.u32(kind, &mut body);
            self.u32(count, &mut body);
            match value {
                Value::Flag => {}
                Value::Number(number) => self.u64(*number, &mut body),
                Value::Numbers(numbers) if numbers.is_empty() => {}
                Value::Numbers(numbers) => {
                    self.u32(count, &mut body);
                    numbers.iter().for_each(|number| self.u64(*number, &mut body));
                }
                Value::Text(text) => self.text(text, &mut body),
                Value::List(list) => self.xdr(list, &mut body),
                Value::Lists(lists) => lists.iter().for_each(|list| self.xdr(list, &mut body)),
                Value::Other => self.u32(7, &mut body),
            }
            self.u32(body.len() as u32 + 8, out);
            self.u32(body.len() as u32 + 64, out);
            out.extend(body);
        }
        self.u64(0, out);
    }

    fn native(self, list: &List, out: &mut Vec<u8>) {
        for (name, value) in &list.0 {
            let (kind, count) = kind(value);
            let mut pair = Vec::new();
            let name_bytes = name.len() as u16 + 1;
            pair.extend(match self {
                Self::Native(Endian::Little) => name_bytes.to_le_bytes(),
                Self::Xdr | Self::Native(Endian::Big) => name_bytes.to_be_bytes(),
            });
            pair.extend([0, 0]);
            self.u32(count, &mut pair);
            self.u32(kind, &mut pair);
            pair.extend(name.bytes().chain([0]));
            pair.resize((pair.len() + 4).next_multiple_of(8) - 4, 0);
            let mut behind = Vec::new();
            match value {
                Value::Flag => {}
                Value::Number(number) => self.u64(*number, &mut pair),
                Value::Numbers(numbers) => numbers.iter().for_each(|number| self.u64(*number, &mut pair)),
                Value::Text(text) => pair.extend(text.bytes().chain([0])),
                Value::List(list) => {
                    pair.extend([0; 24]);
                    self.native(list, &mut behind);
                }
                Value::Lists(lists) => {
                    pair.extend(vec![0; lists.len() * 32]);
                    lists.iter().for_each(|list| self.native(list, &mut behind));
                }
                Value::Other => self.u32(7, &mut pair),
            }
            pair.resize((pair.len() + 4).next_multiple_of(8) - 4, 0);
            self.u32(pair.len() as u32 + 4, out);
            out.extend(pair);
            out.extend(behind);
        }
        self.u32(0, out);
    }
}

fn kind(value: &Value) -> (u32, u32) {
    match value {
        Value::Flag => (1, 0),
        Value::Number(_) => (8, 1),
        Value::Numbers(numbers) => (16, numbers.len() as u32),
        Value::Text(_) => (9, 1),
        Value::List(_) => (19, 1),
        Value::Lists(lists) => (20, lists.len() as u32),
        Value::Other => (5, 1),
    }
}

impl List {
    /// Puts a value in the place of another.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Takes a value away.
    pub(crate) fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// How many values there are in it, at all depths.
    fn weight(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Numbers(numbers) => numbers.len(),
            Value::List(list) => list.weight(),
            Value::Lists(lists) => lists.iter().map(List::weight).sum(),
            Value::Flag | Value::Number(_) | Value::Text(_) | Value::Other => 0,
        };
        1 + self.0.values().map(|value| 1 + of(value)).sum::<usize>()
    }
}

/// Pairs of the same list in XDR and in native form, packed by libnvpair.
pub(crate) fn by_libnvpair() -> Vec<(Vec<u8>, Vec<u8>)> {
    let file = unpacked("nvlists.zst");
    let mut rest = &file[..];
    let mut next = || {
        let (length, tail) = rest.split_first_chunk()?;
        let (list, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        rest = tail;
        Some(list.to_vec())
    };
    std::iter::from_fn(|| Some((next()?, next()?))).collect()
}

#[test]
fn both_encodings_of_libnvpair_read_the_same() {
    let lists = by_libnvpair();
    assert_eq!(lists.len(), 5);
    for (xdr, native) in &lists {
        assert_eq!((xdr[0], native[0]), (1, 0));
        let list = List::unpack(xdr).unwrap();
        assert_eq!(Ok(&list), List::unpack(native).as_ref());
        assert!(list.names().count() > 10);
    }
}

#[test]
fn every_kind_of_value_is_passed_over_or_read() {
    let (xdr, native) = by_libnvpair().pop().unwrap();
    for packed in [xdr, native] {
        let list = List::unpack(&packed).unwrap();
        let find = |name: &str| list.find(name).unwrap();
        assert_eq!(find("flag"), &Value::Flag);
        assert_eq!(find("uint64"), &Value::Number(u64::MAX));
        assert_eq!(find("int64"), &Value::Other, "a signed number would pass for a guid");
        assert_eq!(find("string"), &Value::Text("a text".to_owned()));
        assert_eq!(find("empty string"), &Value::Text(String::new()));
        assert_eq!(find("5 uint64"), &Value::Numbers(vec![0, 1, 0, 1, 0]));
        assert_eq!(find("0 uint64"), &Value::Numbers(Vec::new()));
        let mut inner = List::default();
        inner.set("in", Value::Number(7));
        assert_eq!(find("nvlist"), &Value::List(inner.clone()));
        assert_eq!(find("3 nvlist"), &Value::Lists(vec![inner; 3]));
        assert_eq!(list.names().count(), 1 + 12 + 2 + 10 * 3 + 6 + 1);
    }
}

#[test]
fn a_list_that_ends_early_is_an_error_wherever_it_ends() {
    // Not the last of them: libnvpair reserves room for empty arrays that it does not use.
    for packed in by_libnvpair().into_iter().take(4).flat_map(|(xdr, native)| [xdr, native]) {
        for end in 0..packed.len() {
            assert!(List::unpack(&packed[..end]).is_err(), "{end} of {} bytes would do", packed.len());
        }
        let more = [&packed[..], &[0xff; 100]].concat();
        assert_eq!(List::unpack(&more), List::unpack(&packed), "what follows a list would matter");
    }
}

#[test]
fn lists_in_lists_have_an_end() {
    let nested = |depth: usize| {
        (1..depth).fold(List::default(), |list, n| {
            let value = if n % 2 == 0 { Value::List(list) } else { Value::Lists(vec![list]) };
            let mut outer = List::default();
            outer.set("x", value);
            outer
        })
    };
    for packer in PACKERS {
        assert!(List::unpack(&packer.pack(&nested(MAX_DEPTH))).is_ok());
        for depth in [MAX_DEPTH + 1, MAX_DEPTH * 4] {
            assert_eq!(List::unpack(&packer.pack(&nested(depth))), Err(NvlistError::Depth), "{packer:?}");
        }
    }
}

#[test]
fn a_name_that_is_there_twice_is_an_error() {
    let mut list = List::default();
    list.set("aa", Value::Number(1));
    list.set("ab", Value::Number(2));
    for packer in PACKERS {
        let mut packed = packer.pack(&list);
        let at = packed.windows(2).position(|bytes| bytes == b"ab").unwrap();
        packed[at + 1] = b'a';
        assert_eq!(List::unpack(&packed), Err(NvlistError::Duplicate), "{packer:?}");
    }
}

#[test]
fn counts_and_lengths_that_cannot_be_are_errors() {
    let mut list = List::default();
    list.set("x", Value::Lists(vec![List::default()]));
    list.set("y", Value::Numbers(vec![1, 2, 3]));
    for packer in PACKERS {
        let packed = packer.pack(&list);
        for at in 0..packed.len() - 3 {
            for huge in [[0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0x80], [0, 1, 0, 0]] {
                let mut packed = packed.clone();
                packed[at..at + 4].copy_from_slice(&huge);
                let read = List::unpack(&packed);
                assert!(read.is_err() || read.unwrap().weight() <= packed.len(), "{packer:?} at {at}: {huge:?}");
            }
        }
    }
}

#[test]
fn texts_cannot_command_a_terminal() {
    let mut list = List::default();
    list.set("path", Value::Text("/dev/\u{1b}[2Jsda\n\u{9b}1m".to_owned()));
    for packer in PACKERS {
        let read = List::unpack(&packer.pack(&list)).unwrap();
        assert_eq!(read.find("path"), Some(&Value::Text("/dev/\u{fffd}[2Jsda\u{fffd}\u{fffd}1m".to_owned())));
    }
}

fn lists() -> impl Strategy<Value = List> {
    let leaf = prop_oneof![
        Just(Value::Flag),
        any::<u64>().prop_map(Value::Number),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(Value::Numbers),
        "[a-z/ -]{0,9}".prop_map(Value::Text),
        Just(Value::Other),
    ];
    let list = |value| prop::collection::btree_map("[a-z_]{1,7}", value, 0..6).prop_map(List);
    let value = leaf.prop_recursive(4, 40, 4, move |value| {
        let inner = prop::collection::btree_map("[a-z_]{1,7}", value, 0..4).prop_map(List);
        prop_oneof![inner.clone().prop_map(Value::List), prop::collection::vec(inner, 0..4).prop_map(Value::Lists),]
    });
    list(value)
}

proptest! {
    #[test]
    fn what_is_packed_is_what_is_read(list in lists()) {
        for packer in PACKERS {
            assert_eq!(List::unpack(&packer.pack(&list)).as_ref(), Ok(&list), "{packer:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(list in lists(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        for packer in PACKERS {
            let mut packed = packer.pack(&list);
            for (at, byte) in &edits {
                let at = at.index(packed.len());
                packed[at] = *byte;
            }
            let weight = List::unpack(&packed).map_or(0, |list| list.weight());
            assert!(weight <= packed.len(), "{weight} values out of {} bytes", packed.len());
        }
    }

    #[test]
    fn noise_does_not_make_it_panic(head in 0_u8..2, endian in 0_u8..2, noise in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..32, any::<u8>()], 0..600)) {
        let packed = [&[head, endian, 0, 0, 0, 0, 0, 0], &noise[..]].concat();
        let weight = List::unpack(&packed).map_or(0, |list| list.weight());
        assert!(weight <= packed.len());
    }
}
