use super::*;

#[test]
fn files_round_trip_and_the_secret_stays_secret() {
    let key = SecretKey::generate("build box", Role::Development, Epoch(3)).unwrap();
    let secret_file = key.to_bytes();
    let back = SecretKey::parse(&secret_file).unwrap();
    assert_eq!(back.public(), key.public());
    assert_eq!(PublicKey::parse(&key.public().to_bytes()).unwrap(), *key.public());
    let secret = hex::encode(key.signing.as_bytes());
    assert!(!format!("{key:?}").contains(&secret));

    let text = String::from_utf8(secret_file).unwrap();
    assert!(text.contains(&secret));
    let broken = text.replace(&secret, &secret[..60]);
    let error = SecretKey::parse(broken.as_bytes()).unwrap_err();
    assert!(!format!("{error:?}").contains(&secret[..60]));
    let other = text.replace(&secret, &"11".repeat(32));
    assert_eq!(SecretKey::parse(other.as_bytes()).unwrap_err().code(), "key-mismatch");
    let newer = text.replace("schema = 1", "schema = 2");
    assert_eq!(SecretKey::parse(newer.as_bytes()).unwrap_err().code(), "unknown-schema");
    assert!(PublicKey::parse(text.as_bytes()).is_err(), "a secret key file is no public key file");
}

#[test]
fn a_key_id_is_the_head_of_the_keys_digest() {
    // RFC 8032, test 1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).unwrap();
    let key = SecretKey::from_seed("rfc", Role::Release, Epoch(1), bytes);
    assert_eq!(key.public().public.to_string(), public);
    let digest = Sha256::of(&hex::decode(public).unwrap()).to_string();
    assert_eq!(key.public().id().to_string(), digest[..16]);
    assert_eq!(digest[..16].parse(), Ok(key.public().id()));
}
