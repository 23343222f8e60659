use std::cell::Cell;
use std::io::Cursor;

use proptest::prelude::{any, prop, proptest};
use uuid::Uuid;

use super::*;
use crate::verity::{self, Salt, Verity};

const SALT: [u8; 32] = [5; 32];

/// A file on a server that counts what is asked of it.
struct Served {
    bytes: Vec<u8>,
    given: Cell<u64>,
}

impl Served {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, given: Cell::new(0) }
    }
}

impl Remote for Served {
    fn parts(&self, parts: &[Range<u64>]) -> io::Result<Box<dyn Read>> {
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&self.bytes[part.start as usize..part.end as usize]);
        }
        self.given.set(self.given.get() + all.len() as u64);
        Ok(Box::new(Cursor::new(all)))
    }
}

/// An image: its blocks, how many are the boot image's, and what belongs to its root image.
#[derive(Clone)]
struct Image {
    bytes: Vec<u8>,
    shape: Shape,
    verity: Verity,
    tree: Vec<u8>,
}

impl Image {
    /// Of blocks that are told apart by a number; the first ten are the boot image.
    fn new(blocks: &[u32]) -> Self {
        Self::of(blocks.iter().flat_map(|seed| content(*seed)).collect())
    }

    fn of(bytes: Vec<u8>) -> Self {
        let shape = Shape { boot: 10, root: (bytes.len() / BLOCK_LEN) as u64 - 10 };
        let (root, mut tree) = (&bytes[10 * BLOCK_LEN..], Vec::new());
        let verity = verity::build(root, root.len() as u64, Salt::from_bytes(SALT), Uuid::nil(), &mut tree).unwrap();
        Self { shape, verity, tree, bytes }
    }

    fn leaves(&self) -> Vec<u8> {
        verity::check_tree(&self.verity, &self.tree[..]).unwrap()
    }

    fn blocks_file(&self) -> Vec<u8> {
        let (mut out, mut scratch) = (Vec::new(), Cursor::new(Vec::new()));
        blocks::write(&mut out, &mut scratch, &mut &self.bytes[..], self.shape, &self.verity, 3).unwrap();
        out
    }

    fn patch_from(&self, old: &Image) -> Vec<u8> {
        let mut out = Vec::new();
        let side = |image: &'_ Image| (image.shape, image.verity.clone());
        let ((old_shape, old_verity), (new_shape, new_verity)) = (side(old), side(self));
        let old = patch::Side { blocks: &mut &old.bytes[..], shape: old_shape, verity: &old_verity };
        let new = patch::Side { blocks: &mut &self.bytes[..], shape: new_shape, verity: &new_verity };
        patch::write(&mut out, old, new, 3).unwrap();
        out
    }
}

/// A block: noise, but for every eighth, which is zeros.
fn content(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) | 1 << 40;
    let noise = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u8
    };
    if seed.is_multiple_of(8) { vec![0; BLOCK_LEN] } else { (0..BLOCK_LEN).map(|_| noise(&mut state)).collect() }
}

/// The new image out of an old one and a blocks file; with what it cost.
fn by_blocks(
    old: &[u8],
    known: &Known,
    there: &[u8],
    new: &Image,
    file: &Served,
) -> Result<(Vec<u8>, Counts), DeltaError> {
    let index = blocks::Index::read(file, new.shape, &new.verity.root_hash)?;
    let plan = index.plan(known, &mut &there[..], new.verity.salt).unwrap();
    let (mut old, mut there) = (old, there);
    let assembly = Assembly::of_blocks(file, &plan, new.shape, &new.verity, &mut old, &mut there)?;
    read(assembly, new)
}

fn by_patch(old: &Image, new: &Image, file: &[u8]) -> Result<(Vec<u8>, Counts), DeltaError> {
    let mut body: Box<dyn Read> = Box::new(Cursor::new(file.to_vec()));
    let patch = patch::Patch::read(&mut body, (old.shape, &old.verity.root_hash), (new.shape, &new.verity.root_hash))?;
    let (mut blocks, mut nothing) = (&old.bytes[..], &[][..]);
    read(Assembly::of_patch(body, &patch, &new.verity, &mut blocks, &mut nothing), new)
}

fn read(mut assembly: Assembly<'_>, new: &Image) -> Result<(Vec<u8>, Counts), DeltaError> {
    let mut bytes = Vec::new();
    assembly.read_to_end(&mut bytes).map_err(|error| error.downcast::<DeltaError>().unwrap())?;
    let counts = assembly.counts();
    assert_eq!(counts.copied + counts.kept + counts.fetched, bytes.len() as u64);
    if bytes == new.bytes {
        assert!(assembly.tree().unwrap() == new.tree, "another tree");
    }
    Ok((bytes, counts))
}

fn known(image: &Image) -> Known {
    Known::look(&mut &image.bytes[..], image.shape, image.verity.salt, Some(&image.leaves())).unwrap()
}

fn empty(image: &Image) -> Vec<u8> {
    vec![0xee; image.bytes.len()]
}

fn pair() -> (Image, Image) {
    let old: Vec<u32> = (1..=400).collect();
    let mut new = old.clone();
    new.splice(100..103, [7001, 7002, 7003, 7004]);
    new[200] = 7005;
    new.remove(300);
    new.extend(7006..7030);
    (Image::new(&old), Image::new(&new))
}

#[test]
fn both_ways_make_the_same_image_and_fetch_little() {
    let (old, new) = pair();
    let file = Served::new(new.blocks_file());
    let (bytes, counts) = by_blocks(&old.bytes, &known(&old), &empty(&new), &new, &file).unwrap();
    assert!(bytes == new.bytes);
    // 29 blocks are new; of these, those that are zeros are anywhere.
    assert_eq!((counts.kept, counts.fetched / BLOCK_LEN as u64), (0, 26));
    assert!(file.given.get() < file.bytes.len() as u64 / 5, "{} of {}", file.given.get(), file.bytes.len());

    let patch = new.patch_from(&old);
    let (bytes, counts) = by_patch(&old, &new, &patch).unwrap();
    assert!(bytes == new.bytes);
    assert_eq!(counts.fetched / BLOCK_LEN as u64, 26);
    assert!(patch.len() < 27 * BLOCK_LEN, "{}", patch.len());
}

#[test]
fn a_patch_says_what_changed_within_a_block() {
    let old = Image::new(&(1..=3000).map(|n| n * 2 + 1).collect::<Vec<_>>());
    let mut bytes = old.bytes.clone();
    // Everything behind it moves by some bytes: no block is the same there.
    let moved: Vec<u8> = bytes.splice(50 * BLOCK_LEN + 9..50 * BLOCK_LEN + 9, [1; 100]).collect();
    assert!(moved.is_empty());
    bytes.truncate(old.bytes.len());
    let new = Image::of(bytes);
    let patch = new.patch_from(&old);
    assert!(patch.len() < 40_000, "{}", patch.len());
    assert!(by_patch(&old, &new, &patch).unwrap().0 == new.bytes);
}

#[test]
fn what_an_earlier_attempt_left_is_not_fetched_again() {
    let (old, new) = pair();
    let mut there = empty(&new);
    let done = 350 * BLOCK_LEN;
    there[BLOCK_LEN..done].copy_from_slice(&new.bytes[BLOCK_LEN..done]);
    let file = Served::new(new.blocks_file());
    let (bytes, counts) = by_blocks(&old.bytes, &known(&old), &there, &new, &file).unwrap();
    assert!(bytes == new.bytes);
    assert_eq!((counts.kept / BLOCK_LEN as u64, counts.fetched / BLOCK_LEN as u64), (5, 21));
}

#[test]
fn a_block_that_went_bad_in_the_running_slot_is_fetched() {
    let (old, new) = pair();
    let mut bad = old.bytes.clone();
    for block in [20, 250] {
        bad[block * BLOCK_LEN + 17] ^= 1;
    }
    let file = Served::new(new.blocks_file());
    let (bytes, _) = by_blocks(&bad, &known(&old), &empty(&new), &new, &file).unwrap();
    assert!(bytes == new.bytes);
    // A patch has no other source, and gives what the slot writer will refuse.
    let damaged = Image { bytes: bad, ..old.clone() };
    assert!(by_patch(&damaged, &new, &new.patch_from(&old)).unwrap().0 != new.bytes);
}

#[test]
fn another_salt_or_no_old_system_costs_time_only() {
    let (old, new) = pair();
    let look = |leaves: Option<&[u8]>| Known::look(&mut &old.bytes[..], old.shape, new.verity.salt, leaves).unwrap();
    assert_eq!(look(None).ids(), look(Some(&old.leaves())).ids());
    let file = Served::new(new.blocks_file());
    let nothing = Known::of(Vec::new());
    let (bytes, counts) = by_blocks(&[], &nothing, &empty(&new), &new, &file).unwrap();
    assert!(bytes == new.bytes);
    assert_eq!(counts.fetched, bytes.len() as u64);
}

#[test]
fn a_file_of_another_system_is_not_used() {
    let (old, new) = pair();
    let file = Served::new(old.blocks_file());
    let code = |result: Result<(Vec<u8>, Counts), DeltaError>| result.err().map(|error| error.code());
    assert_eq!(code(by_blocks(&old.bytes, &known(&old), &empty(&new), &new, &file)), Some("delta-other-system"));
    assert_eq!(code(by_patch(&old, &new, &old.patch_from(&new))), Some("delta-other-system"));
    assert_eq!(code(by_patch(&old, &new, &file.bytes)), Some("delta-malformed"));
}

#[test]
fn every_changed_byte_gives_an_error_or_an_image_that_the_writer_refuses_and_never_a_panic() {
    let (old, new) = pair();
    let (blocks_file, patch) = (new.blocks_file(), new.patch_from(&old));
    let places = |len: usize| (0..200.min(len)).chain((200..len).step_by(len / 300 + 1));
    for at in places(blocks_file.len()) {
        let mut bytes = blocks_file.clone();
        bytes[at] ^= 0x10;
        bytes.extend([0; 4096]);
        let file = Served { bytes, given: Cell::new(0) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            by_blocks(&old.bytes, &known(&old), &empty(&new), &new, &file)
        }));
        // Only the file of this test panics, when it is asked for what lies beyond its end.
        if let Ok(Ok((bytes, _))) = result {
            assert!(bytes == new.bytes, "byte {at} of the blocks file");
        }
    }
    for at in places(patch.len()) {
        let mut bytes = patch.clone();
        bytes[at] ^= 0x10;
        // What comes out is compared with the signed digest by the writer.
        let _ = by_patch(&old, &new, &bytes);
    }
    for len in (0..patch.len()).step_by(997) {
        assert!(by_patch(&old, &new, &patch[..len]).is_err(), "{len} bytes of a patch");
    }
}

proptest! {
    #[test]
    fn any_pair_of_images_works(
        old in prop::collection::vec(1..200u32, 11..120),
        new in prop::collection::vec(1..200u32, 11..120),
        left in any::<bool>(),
    ) {
        let (old, new) = (Image::new(&old), Image::new(&new));
        let there = if left { let mut bytes = empty(&new); let half = bytes.len() / 2; bytes[..half].copy_from_slice(&new.bytes[..half]); bytes } else { empty(&new) };
        let file = Served::new(new.blocks_file());
        assert!(by_blocks(&old.bytes, &known(&old), &there, &new, &file).unwrap().0 == new.bytes);
        assert!(by_patch(&old, &new, &new.patch_from(&old)).unwrap().0 == new.bytes);
    }
}
