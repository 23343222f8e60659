use super::*;
use crate::Sha256;
use crate::keys::{Epoch, Role, SecretKey};
use crate::manifest::Member;
use crate::manifest::tests::manifest;
use crate::signature::SignatureFile;
use crate::verity::{self, Salt};

const POLICY: Policy = Policy { allow_development: false, min_epoch: Epoch(1) };

fn key() -> SecretKey {
    SecretKey::from_seed("test", Role::Release, Epoch(1), [7; 32])
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * at / 7) as u8).collect()
}

/// A bundle whose three members decode to `content` of 5000, 70000 and 300000 bytes.
fn sample(boot: &[u8], root: &[u8]) -> Vec<u8> {
    let manifest = manifest().to_bytes().unwrap();
    let signatures = SignatureFile::new(vec![key().sign(&manifest)]).to_bytes();
    let tree = content(5000);
    let mut out = Vec::new();
    let bodies = Bodies {
        tree: (tree.len() as u64, &mut &tree[..]),
        boot: (boot.len() as u64, &mut &*boot),
        root: (root.len() as u64, &mut &*root),
    };
    write(&mut out, &manifest, &signatures, bodies).unwrap();
    let sizes = [manifest.len(), signatures.len(), tree.len(), boot.len(), root.len()].map(|n| n as u64);
    assert_eq!(out.len() as u64, len(sizes));
    out
}

fn whole() -> Vec<u8> {
    sample(&frame(&content(70_000)), &frame(&content(300_000)))
}

/// The stable name of what is wrong, or the three members.
fn read(bytes: &[u8]) -> Result<[Vec<u8>; 3], String> {
    let trusted = [key().public().clone()];
    let bundle = Bundle::open(bytes, &trusted, POLICY).map_err(|e| e.code().to_owned())?;
    let Members { mut tree, mut boot, mut root } = bundle.members();
    let all = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|error| {
            let inner = error.get_ref().and_then(|e| e.downcast_ref::<BundleError>());
            inner.map_or_else(|| "decode".to_owned(), |e| e.code().to_owned())
        })
    };
    Ok([all(&mut tree)?, all(&mut boot)?, all(&mut root)?])
}

#[test]
fn members_come_out_as_they_went_in() {
    assert_eq!(read(&whole()).unwrap(), [content(5000), content(70_000), content(300_000)]);
}

#[test]
fn any_tar_lists_it() {
    let bytes = whole();
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["manifest.toml", "manifest.sig", "tree", "boot", "root"]);
}

#[test]
fn a_flipped_bit_in_a_header_or_in_padding_is_refused() {
    let bytes = whole();
    let plain = read(&bytes).unwrap();
    let (boot, root) = (frame(&content(70_000)), frame(&content(300_000)));
    // Bodies of members are for the manifest's digests to judge, and a signature file may be written in two ways.
    let root_at = bytes.len() - 1024 - root.len().next_multiple_of(512);
    let boot_at = root_at - 512 - boot.len().next_multiple_of(512);
    let tree_at = boot_at - 512 - 5000usize.next_multiple_of(512);
    let signature_at = 1024 + manifest().to_bytes().unwrap().len().next_multiple_of(512);
    let signature = (signature_at, tree_at - 512 - signature_at);
    let bodies = [signature, (tree_at, 5000), (boot_at, boot.len()), (root_at, root.len())];
    for at in 0..bytes.len() {
        if bodies.iter().any(|(start, len)| (*start..start + len).contains(&at)) {
            continue;
        }
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(read(&bad).is_err(), "byte {at} of {} may be anything", bytes.len());
        assert_ne!(read(&bad).ok(), Some(plain.clone()));
    }
}

#[test]
fn a_bundle_cut_anywhere_is_refused() {
    let bytes = whole();
    for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1, bytes.len() - 1024]) {
        assert!(read(&bytes[..at]).is_err(), "cut at {at} of {}", bytes.len());
    }
    assert_eq!(read(&bytes[..400]).unwrap_err(), "bundle-truncated");
}

#[test]
fn what_follows_a_frame_in_its_member_is_refused() {
    let twice = [frame(&content(70_000)), frame(b"more")].concat();
    assert_eq!(read(&sample(&twice, &frame(b"root"))).unwrap_err(), "bundle-malformed");
    let trailing = [frame(&content(70_000)), vec![0; 3]].concat();
    assert_eq!(read(&sample(&trailing, &frame(b"root"))).unwrap_err(), "bundle-malformed");
}

#[test]
fn a_frame_that_needs_much_memory_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    io::copy(&mut io::repeat(7).take(200 << 20), &mut encoder).unwrap();
    let large = encoder.finish().unwrap();
    assert_eq!(read(&sample(&large, &frame(b"root"))).unwrap_err(), "member-digest");
}

#[test]
fn members_out_of_order_are_refused() {
    let trusted = [key().public().clone()];
    let bytes = whole();
    let mut members = Bundle::open(&bytes[..], &trusted, POLICY).unwrap().members();
    assert!(members.root.read(&mut [0; 16]).is_err());
}

#[test]
fn an_announced_giant_is_not_allocated() {
    let mut bytes = header(MANIFEST, u64::MAX / 2).to_vec();
    bytes.resize(4096, 0);
    assert_eq!(read(&bytes).unwrap_err(), "bundle-oversized");
    // A size that no octal field holds has one form too.
    assert_eq!(header("root", 9 << 30), header("root", 9 << 30));
}

/// A bundle whose manifest says what its members are.
fn sound() -> Vec<u8> {
    let (boot, root, mut tree) = (content(17 * 4096), content(75 * 4096), Vec::new());
    let uuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
    let verity = verity::build(&root[..], root.len() as u64, Salt::from_bytes([1; 32]), uuid, &mut tree).unwrap();
    let member = |bytes: &[u8]| Member { size: ByteSize::from_bytes(bytes.len() as u64), sha256: Sha256::of(bytes) };
    let members = (member(&tree), member(&boot), member(&root));
    let manifest = Manifest { verity, tree: members.0, boot: members.1, root: members.2, ..manifest() };
    let bytes = manifest.to_bytes().unwrap();
    let signatures = SignatureFile::new(vec![key().sign(&bytes)]).to_bytes();
    let (boot, root) = (frame(&boot), frame(&root));
    let mut out = Vec::new();
    let bodies = Bodies {
        tree: (tree.len() as u64, &mut &tree[..]),
        boot: (boot.len() as u64, &mut &boot[..]),
        root: (root.len() as u64, &mut &root[..]),
    };
    write(&mut out, &bytes, &signatures, bodies).unwrap();
    out
}

#[test]
fn a_bundle_is_proven_to_its_last_byte() {
    let trusted = [key().public().clone()];
    let prove = |bytes: &[u8]| Bundle::open(bytes, &trusted, POLICY).and_then(Bundle::prove).map_err(|e| e.code());
    let whole = sound();
    if let Err(code) = prove(&whole) {
        panic!("{code}");
    }
    assert_eq!(prove(&[&whole[..], &[0]].concat()).unwrap_err(), "bundle-malformed");
    assert_eq!(prove(&whole[..whole.len() - 1]).unwrap_err(), "bundle-truncated");
    let mut changed = whole.clone();
    let at = whole.len() - 1024 - 2000;
    changed[at] ^= 1;
    assert_eq!(prove(&changed).unwrap_err(), "member-digest");
}
