//! What was carried over, kept on the target while it is written.
//!
//! The first thing an install destroys is the old root that the network was read from. If it is interrupted then, a
//! rerun has nothing to read it from; so it lies in the half MiB before the first partition until the install is done.
//! Form: magic, length of the JSON text (u32 LE), its SHA-256, the text.

use serde::{Deserialize, Serialize};
use siris_ibu::Sha256;

use crate::answers::{Network, Static};
use crate::state;

/// Where it lies on the disk.
pub const START: u64 = 512 * 1024;
/// How long it is.
pub const LEN: u64 = 512 * 1024;
const MAGIC: &[u8; 8] = b"SIRISNET";
const HEAD: usize = 8 + 4 + 32;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stash {
    files: Vec<(String, String)>,
    dns: Vec<std::net::IpAddr>,
    ntp: Vec<String>,
}

/// Its bytes; none when there is too much of it.
pub fn encode(network: &Network) -> Option<Vec<u8>> {
    let Network { dns, ntp, .. } = network.clone();
    let text = serde_json::to_vec(&Stash { files: state::network_files(network), dns, ntp }).ok()?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(Sha256::of(&text).as_bytes());
    bytes.extend_from_slice(&text);
    (bytes.len() as u64 <= LEN).then(|| {
        bytes.resize(LEN as usize, 0);
        bytes
    })
}

/// What it says; none when there is none, or half of one.
pub fn decode(bytes: &[u8]) -> Option<Network> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let text = rest.get(..len as usize)?;
    if !head.starts_with(MAGIC) || Sha256::of(text).as_bytes() != &head[12..] {
        return None;
    }
    let Stash { files, dns, ntp } = serde_json::from_slice(text).ok()?;
    Some(Network { kind: Static::Files(files), dns, ntp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_half_of_it_does_not() {
        let files = vec![("a.network".to_owned(), "[Match]\nName=x\n".to_owned())];
        let network = Network { kind: Static::Files(files), dns: vec!["192.0.2.1".parse().unwrap()], ntp: Vec::new() };
        let bytes = encode(&network).unwrap();
        assert_eq!(decode(&bytes), Some(network));
        let mut torn = bytes.clone();
        torn[60..].fill(0);
        assert_eq!(decode(&torn), None);
        assert_eq!(decode(&[0; 4096]), None);
        assert_eq!(decode(&bytes[..20]), None);
    }
}
