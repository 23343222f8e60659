use super::*;
use crate::keys::SecretKey;
use crate::manifest::tests::manifest;

fn key(seed: u8, role: Role, epoch: u32) -> SecretKey {
    SecretKey::from_seed("test", role, Epoch(epoch), [seed; 32])
}

fn signed(bytes: &[u8], keys: &[&SecretKey]) -> SignatureFile {
    SignatureFile::new(keys.iter().map(|key| key.sign(bytes)).collect())
}

const STRICT: Policy = Policy { allow_development: false, min_epoch: Epoch(1) };

#[test]
fn each_refusal_has_its_own_code() {
    let (old, new) = (key(1, Role::Release, 0), key(2, Role::Release, 1));
    let (dev, stranger) = (key(3, Role::Development, 1), key(4, Role::Release, 9));
    let trusted = [&old, &new, &dev].map(|k| k.public().clone());
    let code = |bytes: &[u8], file: &SignatureFile| verify(bytes, file, &trusted, STRICT).map_err(|e| e.code());

    let by = |keys: &[&SecretKey]| signed(b"manifest", keys);
    assert_eq!(code(b"manifest", &by(&[&new])).unwrap().key, *new.public());
    assert_eq!(code(b"manifest", &by(&[&stranger, &dev, &old, &new])).unwrap().key, *new.public());
    assert_eq!(code(b"manifest", &by(&[])), Err("unknown-key"));
    assert_eq!(code(b"manifest", &by(&[&stranger])), Err("unknown-key"));
    assert_eq!(code(b"manifest", &by(&[&dev])), Err("development-key"));
    assert_eq!(code(b"manifest", &by(&[&old])), Err("key-epoch"));
    assert_eq!(code(b"manifesT", &by(&[&new])), Err("bad-signature"));

    let lax = Policy { allow_development: true, min_epoch: Epoch(0) };
    assert_eq!(verify(b"manifest", &by(&[&dev]), &trusted, lax).unwrap().key, *dev.public());
}

#[test]
fn a_signature_under_another_keys_name_is_bad() {
    let (good, stranger) = (key(1, Role::Release, 1), key(4, Role::Release, 1));
    let mut forged = stranger.sign(b"manifest");
    forged.key_id = good.public().id();
    let error = verify(b"manifest", &SignatureFile::new(vec![forged]), &[good.public().clone()], STRICT);
    assert_eq!(error.unwrap_err().code(), "bad-signature");
}

#[test]
fn a_verified_manifest_keeps_the_exact_bytes() {
    let key = key(1, Role::Release, 1);
    let mut bytes = manifest().to_bytes().unwrap();
    bytes.extend_from_slice(b"\n# a comment is part of what is signed\n");
    let sig = signed(&bytes, &[&key]).to_bytes();
    let trusted = [key.public().clone()];
    let verified = SignedManifest::verify(&bytes, &sig, &trusted, STRICT).unwrap();
    assert_eq!((verified.bytes(), verified.signature_bytes()), (&bytes[..], &sig[..]));
    assert_eq!(*verified.manifest(), manifest());
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert_eq!(SignedManifest::verify(&bad, &sig, &trusted, STRICT).unwrap_err().code(), "bad-signature");
    }
}
