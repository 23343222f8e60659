use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHMkYwrcAyC0vBcfaUoTMZJmyHDRTp3GY9x who";

fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    root.write("/usr/share/zoneinfo/Europe/Berlin", b"TZif", 0o644).unwrap();
    (dir, root)
}

fn load(root: &Root, text: &str) -> (BoxConfig, Vec<String>) {
    root.write(CONFIG, text.as_bytes(), 0o644).unwrap();
    let (config, faults) = BoxConfig::load(root).unwrap();
    (config, faults.into_iter().map(|f| f.path).collect())
}

#[test]
fn a_whole_file_is_read() {
    let (_dir, root) = root();
    let text = format!(
        "schema = 1\nrole = \"cloud\"\nhostname = \"box1.example\"\ntimezone = \"Europe/Berlin\"\n[ssh]\nauthorized-keys = [\"{KEY}\"]\n\
         [ntp]\nservers = [\"ntp.example\", \"fd00::1\"]\n[dns]\nservers = [\"192.0.2.1\"]\n"
    );
    let (config, faults) = load(&root, &text);
    assert_eq!(faults, [""; 0]);
    assert_eq!(config.role(), "cloud");
    assert_eq!(config.list(Key::SshAuthorizedKeys), [KEY]);
    assert_eq!(config.text(Key::Timezone), Some("Europe/Berlin"));
}

#[test]
fn each_fault_is_told_and_the_rest_is_kept() {
    let (_dir, root) = root();
    let text = "role = 7\nhostname = \"-x\"\ncolour = \"red\"\ntimezone = \"../../etc/shadow\"\n[dns]\nservers = [\"192.0.2.1\"]\n[ntp]\nserver = []\n";
    let (config, mut faults) = load(&root, text);
    faults.sort();
    assert_eq!(faults, ["colour", "hostname", "ntp.server", "role", "timezone"]);
    assert_eq!(config.list(Key::DnsServers), ["192.0.2.1"]);
    assert_eq!(config.role(), "local");
}

#[test]
fn no_toml_and_another_schema_are_refused() {
    let (_dir, root) = root();
    root.write(CONFIG, b"role = \n", 0o644).unwrap();
    assert_eq!(BoxConfig::load(&root).unwrap_err().code(), "config-unreadable");
    root.write(CONFIG, b"schema = 2\n", 0o644).unwrap();
    assert!(matches!(BoxConfig::load(&root), Err(ConfigError::Schema(2))));
}

#[test]
fn a_change_keeps_what_is_beside_it() {
    let (_dir, root) = root();
    let (mut config, _) = load(&root, "colour = \"red\"\n[dns]\nservers = [\"192.0.2.1\"]\n");
    config.change(&root, Key::Hostname, Some(ConfigValue::Text("box1".into()))).unwrap();
    config.change(&root, Key::DnsServers, None).unwrap();
    config.commit(&root).unwrap();
    let (config, faults) = BoxConfig::load(&root).unwrap();
    assert_eq!(config.text(Key::Hostname), Some("box1"));
    assert_eq!(config.value(Key::DnsServers), None);
    assert_eq!(faults.len(), 1, "the unknown key is still there to be seen");
}

#[test]
fn a_value_that_does_not_fit_changes_nothing() {
    let (_dir, root) = root();
    let mut config = BoxConfig::default();
    let bad = [
        (Key::Role, ConfigValue::Text("middle".into())),
        (Key::Role, ConfigValue::List(vec!["local".into()])),
        (Key::Hostname, ConfigValue::Text("a".repeat(65))),
        (Key::Hostname, ConfigValue::Text("a b".into())),
        (Key::SshAuthorizedKeys, ConfigValue::Text(KEY.into())),
        (Key::SshAuthorizedKeys, ConfigValue::List(vec![format!("{KEY}\nssh-ed25519 evil")])),
        (Key::SshAuthorizedKeys, ConfigValue::List(vec!["ssh-ed25519 short".into()])),
        (Key::DnsServers, ConfigValue::List(vec!["ns.example".into()])),
        (Key::NtpServers, ConfigValue::List(vec!["x\n[Time]".into()])),
    ];
    for (key, value) in bad {
        assert!(config.change(&root, key, Some(value.clone())).is_err(), "{value:?}");
    }
    assert_eq!(config, BoxConfig::default());
}
