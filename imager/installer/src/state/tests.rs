use siris_host::cmd::Tool;

use super::*;
use crate::answers::Answers;
use crate::testbox;

const NETWORK_GOLDEN: &str = include_str!("golden/network.txt");

#[test]
fn the_files_of_networkd_are_these() {
    let answers = Answers::parse(include_str!("../answers/example.toml").as_bytes()).unwrap();
    let mut text = String::new();
    for (name, content) in network_files(&answers.network) {
        text += &format!("==> {name}\n{content}\n");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/golden/network.txt"), &text).unwrap();
    }
    assert_eq!(text, NETWORK_GOLDEN);
}

#[test]
fn what_the_agent_reads_is_what_the_answers_say() {
    let answers = Answers::parse(include_str!("../answers/example.toml").as_bytes()).unwrap();
    let table: toml::Table = config(&answers).parse().unwrap();
    let text = |key: &str| table[key].as_str().unwrap();
    assert_eq!((text("role"), text("hostname"), text("timezone")), ("cloud", "node12.example.net", "Europe/Berlin"));
    assert_eq!(table["ssh"]["authorized-keys"][0].as_str().unwrap(), answers.access.ssh_keys[0]);
    assert_eq!(table["dns"]["servers"][0].as_str(), Some("192.0.2.53"));
    assert!(!config(&answers).contains("$y$"), "anybody on the box may read config.toml");
}

#[test]
fn the_receipt_goes_into_its_file_beneath_the_file_system() {
    if !testbox::has_mkfs() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = [file("/var/lib/siris/device-id", 0o644, "x\n"), file(PASSWORD_HASH, 0o600, "$y$secret\n")];
    let mut image = Image::make(dir.path(), &files).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "secrets are left behind");
    let mut bytes = Vec::new();
    image.reader().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len() as u64, Sha256::of(&bytes)), (image.size(), image.sha256()));
    let path = dir.path().join("image");
    let show = |command: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Cmd::new(Tool::Debugfs).args(["-R", command]).arg(&path).text().unwrap()
    };
    let receipt_path = format!("/persist{RECEIPT}");
    assert!(show(&format!("cat {receipt_path}"), &bytes).starts_with("no receipt yet"));
    let receipt = format!("{{\"a\": \"{}\"}}\n", "b".repeat(300_000));
    for (at, block) in image.receipt_blocks(receipt.as_bytes()).unwrap() {
        bytes[at as usize..][..block.len()].copy_from_slice(&block);
    }
    assert_eq!(show(&format!("cat {receipt_path}"), &bytes).trim_end(), receipt.trim_end());
    let secret = show(&format!("stat /persist{PASSWORD_HASH}"), &bytes);
    assert!(secret.contains("Mode:  0600") && secret.contains("User:     0"), "{secret}");
    assert!(show("stat /persist/var/lib", &bytes).contains("Mode:  0755"));
    Cmd::new(Tool::FsckExt4).arg("-fn").arg(&path).run().unwrap();
    assert_eq!(image.receipt_blocks(&vec![b' '; 600_000]).unwrap_err().code(), "receipt-too-long");
}
