use proptest::test_runner::Config;
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

/// `(data blocks, root hash, SHA-256 of the tree)`, made by `veritysetup format --salt=0001..1f
/// --uuid=11223344-5566-7788-99aa-bbccddeeff00 DATA TREE` (cryptsetup 2.7) over the data of [`data`]. The counts
/// are those where the shape of the tree changes.
const GOLDEN: [(u64, &str, &str); 6] = [
    (
        1,
        "59574574db8c4d7e4dd4bf864c74d4606d2a6621b2a66dcc4728c3e10ebdf20a",
        "ef5c876b9ab422cd683767dc85d3089e648c8719fa869ba8115d4a2fbe396ec6",
    ),
    (
        2,
        "684ab1bc68f1275dca022bc732bde3e13aaa91ea99b447fea0dc98b9ba9623b7",
        "a71dfcfc5aab89fdc41428f43f32e1cd6db79e6ca7458a0434d01d598b25355e",
    ),
    (
        128,
        "ad71d9c3a5df585ad8d52f05ed537b65460c6ddc7e823f40710940b35db9ec06",
        "9ab2c629122b50111e84ef5c07624a2bddab379e429498943a21b8523af58af7",
    ),
    (
        129,
        "fe95036bb10b79d0f5b5fb8132a15a6ef0372b6bd793d1c1918adaac41211be2",
        "dd2038b0da670ecbdf7921cb03518325a3bcc4e1824dbe0073c3a21b5eba7140",
    ),
    (
        300,
        "8a4f5fa227cacb8dc577ab55bc83789d8dadda5ec07a113af2b154fcb7e58608",
        "04a116708d449b4d8871a465f8859c450ee9a726f7b61aa2652d77fac2204eaa",
    ),
    (
        16385,
        "2a49069fab71f57d6b161a6bd32976752c18cd4ee9a05ca9c06e477e71327031",
        "200f32c689aeb4dd210c2864749d2bdd5f19092488694e172bf19c516ffa9f6d",
    ),
];

fn data(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|b| (0..BLOCK).map(move |i| (b * 7 + i * 13 + (i >> 8)) as u8)).collect()
}

fn salt() -> Salt {
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = n as u8;
    }
    Salt::from_bytes(bytes)
}

fn built(data: &[u8]) -> (Verity, Vec<u8>) {
    let uuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
    let mut tree = Vec::new();
    let verity = build(data, data.len() as u64, salt(), uuid, &mut tree).unwrap();
    (verity, tree)
}

#[test]
fn the_tree_is_veritysetups_to_the_byte() {
    for (blocks, root_hash, tree_sha256) in GOLDEN {
        let data = data(blocks);
        let (verity, tree) = built(&data);
        assert_eq!(verity.root_hash.to_string(), root_hash, "{blocks} blocks");
        assert_eq!(Sha256::of(&tree).to_string(), tree_sha256, "{blocks} blocks");
        assert_eq!(tree.len() as u64, tree_len(blocks));
        check(&verity, &data[..], &tree[..]).unwrap();
    }
}

#[test]
fn the_first_bad_block_is_named() {
    let good = data(300);
    let (verity, tree) = built(&good);

    let mut bad = good.clone();
    bad[299 * BLOCK_LEN + 17] ^= 1;
    bad[7 * BLOCK_LEN] ^= 1;
    let error = check(&verity, &bad[..], &tree[..]).unwrap_err();
    assert!(matches!(error, VerityError::BadDataBlock { block: 7 }), "{error}");

    // Superblock, top, then three blocks of leaves.
    type Wanted = fn(&VerityError) -> bool;
    let cases: [(usize, Wanted); 4] = [
        (4095, |e| matches!(e, VerityError::BadSuperblock)),
        (4096, |e| matches!(e, VerityError::BadHashBlock { level: 1, block: 0 })),
        (2 * 4096, |e| matches!(e, VerityError::BadHashBlock { level: 0, block: 0 })),
        (5 * 4096 - 1, |e| matches!(e, VerityError::BadHashBlock { level: 0, block: 2 })),
    ];
    for (at, wanted) in cases {
        let mut bad = tree.clone();
        bad[at] ^= 0x80;
        let error = check(&verity, &good[..], &bad[..]).unwrap_err();
        assert!(wanted(&error), "flip at {at}: {error}");
    }
    assert!(matches!(check(&verity, &good[1..], &tree[..]), Err(VerityError::BadDataBlock { block: 0 })));
    assert!(matches!(check(&verity, &good[..100], &tree[..]), Err(VerityError::ReadData { block: 0, .. })));
    assert!(matches!(check(&verity, &good[..], &tree[..100]), Err(VerityError::ReadTree(_))));
}

#[test]
fn only_whole_blocks_are_hashed() {
    for len in [0, 1, BLOCK - 1, BLOCK + 1] {
        let error = build(io::repeat(0), len, salt(), Uuid::nil(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), "verity-data-length");
    }
}

proptest! {
    // A tree of up to a mebibyte of data is built for each case, without optimisation.
    #![proptest_config(Config::with_cases(48))]

    #[test]
    fn any_flipped_bit_is_found(blocks in 1u64..260, at: u32, bit in 0u8..8, in_tree: bool) {
        let mut data = data(blocks);
        let (verity, mut tree) = built(&data);
        let target = if in_tree { &mut tree } else { &mut data };
        let at = at as usize % target.len();
        target[at] ^= 1 << bit;
        let error = check(&verity, &data[..], &tree[..]).unwrap_err();
        match error {
            VerityError::BadDataBlock { block } => prop_assert_eq!(block as usize, at / BLOCK_LEN),
            VerityError::BadSuperblock => prop_assert!(in_tree && at < BLOCK_LEN),
            VerityError::BadHashBlock { .. } => prop_assert!(in_tree && at >= BLOCK_LEN),
            other => prop_assert!(false, "{}", other),
        }
    }
}
