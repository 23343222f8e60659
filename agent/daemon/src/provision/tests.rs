use super::*;
use crate::root::CONFIG;

const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHMkYwrcAyC0vBcfaUoTMZJmyHDRTp3GY9x one";
const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHMkYwrcAyC0vBcfaUoTMZJmyHDRTp3GY9y two";

struct Machine {
    _dir: tempfile::TempDir,
    root: Root,
    credentials: Credentials,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().join("root"));
    root.write("/usr/share/zoneinfo/Europe/Berlin", b"TZif", 0o644).unwrap();
    root.write("/usr/lib/os-release", b"IMAGE_ID=siris\n", 0o644).unwrap();
    root.write(SHADOW, b"root:*:19000:0:99999:7:::\n", 0o640).unwrap();
    let credentials = dir.path().join("credentials");
    fs::create_dir_all(&credentials).unwrap();
    Machine { _dir: dir, root, credentials: Credentials::in_directory(credentials) }
}

impl Machine {
    fn give(&self, name: &str, text: &str) {
        fs::write(self.credentials.0.as_ref().unwrap().join(name), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        self.root.read(path).unwrap().unwrap_or_default()
    }
}

#[test]
fn without_configuration_and_credentials_nobody_gets_in() {
    let m = machine();
    assert_eq!(provision(&m.root, &m.credentials), [""; 0]);
    assert!(!m.root.path(AUTHORIZED_KEYS).exists());
    assert!(m.text(SHADOW).starts_with("root:*:"));
    assert!(m.text("/etc/hostname").starts_with("siris-"));
    assert_eq!(fs::read(m.root.path("/etc/hostid")).unwrap().len(), 4);
}

#[test]
fn everything_is_applied_and_a_second_run_changes_nothing() {
    let m = machine();
    m.give(KEYS_CREDENTIAL, &format!("# a comment\n{ONE}\n\n"));
    m.give(HASH_CREDENTIAL, "$y$j9T$abcdefgh$ijklmnop\n");
    let config = format!(
        "hostname = \"box1\"\ntimezone = \"Europe/Berlin\"\n[ssh]\nauthorized-keys = [\"{ONE}\", \"{TWO}\"]\n\
         [ntp]\nservers = [\"a\", \"b\"]\n[dns]\nservers = [\"192.0.2.1\"]\n"
    );
    m.root.write(CONFIG, config.as_bytes(), 0o644).unwrap();
    m.root.write(crate::root::HOST_ID, b"00c0ffee\n", 0o644).unwrap();
    for _ in 0..2 {
        assert_eq!(provision(&m.root, &m.credentials), [""; 0]);
        assert_eq!(m.text("/etc/hostname"), "box1\n");
        assert_eq!(
            fs::read_link(m.root.path("/etc/localtime")).unwrap(),
            Path::new("../usr/share/zoneinfo/Europe/Berlin")
        );
        assert_eq!(m.text(AUTHORIZED_KEYS), format!("{ONE}\n{TWO}\n"));
        assert_eq!(m.text(SHADOW), "root:$y$j9T$abcdefgh$ijklmnop:19000:0:99999:7:::\n");
        assert_eq!(fs::read(m.root.path("/etc/hostid")).unwrap(), [0xee, 0xff, 0xc0, 0x00]);
        assert_eq!(m.text(TIMESYNCD), "[Time]\nNTP=a b\n");
        assert_eq!(m.text(RESOLVED), "[Resolve]\nDNS=192.0.2.1\n");
    }
    let mode = |path: &str| fs::metadata(m.root.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(SHADOW), mode(AUTHORIZED_KEYS), mode("/root/.ssh")), (0o640, 0o600, 0o700));
}

#[test]
fn a_faulty_configuration_costs_only_its_faulty_part() {
    let m = machine();
    m.root.write(CONFIG, b"hostname = \"box1\"\ntimezone = \"Nowhere\"\n", 0o644).unwrap();
    m.give(HASH_CREDENTIAL, "plain");
    let faults = provision(&m.root, &m.credentials);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(m.text("/etc/hostname"), "box1\n");
    assert!(m.text(SHADOW).starts_with("root:*:"));
    assert_eq!(m.text(PROVISION_FAULTS).lines().count(), 1);
    m.root.write(CONFIG, b"hostname = \n", 0o644).unwrap();
    m.give(KEYS_CREDENTIAL, ONE);
    provision(&m.root, &m.credentials);
    assert_eq!(
        m.text(AUTHORIZED_KEYS),
        format!("{ONE}\n"),
        "the credential lets its owner in to mend the configuration"
    );
}

#[test]
fn what_the_installer_left_is_applied() {
    let m = machine();
    m.root.write(PASSWORD_HASH, b"$y$j9T$installed$hash\n", 0o600).unwrap();
    m.root.write(crate::root::HOST_ID, b"none\n", 0o644).unwrap();
    m.root.write("/etc/hostid", &[1, 2, 3, 4], 0o644).unwrap();
    m.root.write(&format!("{NETWORK}/10-lan.network"), b"[Match]\nMACAddress=52:54:00:00:00:01\n", 0o644).unwrap();
    m.root.write(&format!("{NETWORK}/notes.txt"), b"not networkd's", 0o644).unwrap();
    assert_eq!(provision(&m.root, &m.credentials), [""; 0]);
    assert!(m.text(SHADOW).starts_with("root:$y$j9T$installed$hash:"));
    assert!(!m.root.path("/etc/hostid").exists(), "a box whose pools have no host id has none");
    assert!(m.text("/etc/systemd/network/10-lan.network").starts_with("[Match]"));
    assert!(!m.root.path("/etc/systemd/network/notes.txt").exists());
    m.give(HASH_CREDENTIAL, "$y$j9T$credential$hash\n");
    provision(&m.root, &m.credentials);
    assert!(m.text(SHADOW).starts_with("root:$y$j9T$credential$hash:"), "who starts the machine has the last word");
}
