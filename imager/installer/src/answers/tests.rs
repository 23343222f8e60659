use super::*;

const GOOD: &str = include_str!("example.toml");

#[test]
fn the_example_says_what_it_means() {
    let answers = Answers::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(answers.target, Target::Disk(DiskSpec::Wwn("5000c500a1b2c3d4".into())));
    assert_eq!((answers.mode, answers.end), (Mode::OsOnly, End::Poweroff));
    assert_eq!(answers.keep, [Keep::Number(4), Keep::Label("data".into())]);
    let pools = answers.pools.unwrap();
    assert_eq!((pools[0].name.as_str(), pools[0].guid.unwrap().number()), ("tank", 10_641_064_106_410_641_064));
    assert_eq!(answers.other_os, [(DiskSpec::Serial("OLD-2".into()), OtherOs::Keep)]);
    assert_eq!(answers.identity.hostid, HostIdChoice::Id(0x00c0_ffee));
    let Static::Given { interfaces, bonds, vlans } = &answers.network.kind else { panic!() };
    assert_eq!((interfaces.len(), bonds.len(), vlans.len()), (1, 1, 2));
    assert!(!format!("{:?}", answers.access).contains("$y$"), "a hash is a secret");
}

#[test]
fn all_faults_are_told_at_once_with_their_paths() {
    let bad = r#"
schema = 1
mode = "full"
id = "not an id"
[target]
disk = "sda"
slot-size = "big"
keep-partitions = [0, "part4"]
[[pools]]
name = ""
guid = "x"
[[destroy]]
name = "tank"
guid = "-1"
[other-os.disks]
"sdb" = "keep"
[identity]
hostname = "-x"
device-id = "1"
hostid = "00000000"
timezone = "Mars?"
[access]
ssh-keys = ["hello"]
password-hash = "hunter2"
[network]
mode = "static"
dns = ["ns1"]
ntp = ["-"]
[[network.interfaces]]
mac = "0"
[[network.bonds]]
name = "a bond"
mode = "lacp"
members = []
[[network.vlans]]
name = "v"
id = 4095
on = "bond9"
addresses = ["192.0.2.1"]
gateways = ["here"]
mtu = 1
"#;
    let error = Answers::parse(bad.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "answers-faulty");
    let text = error.to_string();
    assert!(!text.contains("hunter2"), "a password goes into no message");
    let AnswersError::Faults(faults) = error else { panic!() };
    let mut paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort();
    let wanted = [
        "access.password-hash",
        "access.ssh-keys[0]",
        "destroy[0].guid",
        "id",
        "identity.device-id",
        "identity.hostid",
        "identity.hostname",
        "identity.role",
        "identity.timezone",
        "network.bonds[0].members",
        "network.bonds[0].mode",
        "network.bonds[0].name",
        "network.dns[0]",
        "network.interfaces[0]",
        "network.interfaces[0].mac",
        "network.ntp[0]",
        "network.vlans[0].addresses[0]",
        "network.vlans[0].gateways[0]",
        "network.vlans[0].id",
        "network.vlans[0].mtu",
        "network.vlans[0].on",
        "other-os.disks.\"sdb\"",
        "pool",
        "pools[0].guid",
        "pools[0].name",
        "target.disk",
        "target.keep-partitions[0]",
        "target.keep-partitions[1]",
        "target.slot-size",
    ];
    assert_eq!(paths, wanted);
}

#[test]
fn unknown_keys_and_schemas_are_refused() {
    let code = |text: &str| Answers::parse(text.as_bytes()).unwrap_err().code();
    assert_eq!(code("schema = 2\nbrand-new = 1\n"), "unknown-schema");
    assert_eq!(code(&GOOD.replace("[identity]", "[identity]\nrolle = \"x\"")), "answers-faulty");
    assert_eq!(code("schema"), "answers-faulty");
    assert_eq!(Answers::parse(b"\xff").unwrap_err().code(), "answers-faulty");
}

#[test]
fn a_new_pool_needs_enough_disks_each_once() {
    let full = |disks: &str| {
        let text = format!(
            "schema = 1\nmode = \"full\"\n[target]\ndisk = \"auto\"\n[identity]\nrole = \"local\"\n\
             [pool]\nname = \"homePool\"\nlayout = \"raidz2\"\ndisks = [{disks}]\nspares = [\"serial:D\"]\n"
        );
        Answers::parse(text.as_bytes()).map(|answers| answers.new_pool.unwrap().disks.len())
    };
    assert_eq!(full("\"serial:A\", \"serial:B\", \"serial:C\"").unwrap(), 3);
    assert!(full("\"serial:A\", \"serial:B\"").unwrap_err().to_string().contains("pool.disks: 2 are named"));
    assert!(full("\"serial:A\", \"serial:B\", \"serial:D\"").unwrap_err().to_string().contains("names a disk twice"));
}

#[test]
fn specs_are_read_in_the_forms_people_paste() {
    for (text, same) in [
        ("wwn:0x5000C500A1B2C3D4", "wwn:5000c500a1b2c3d4"),
        ("wwn:naa.5000c500a1b2c3d4", "wwn:5000c500a1b2c3d4"),
        ("by-id:/dev/disk/by-id/ata-X_1", "by-id:ata-X_1"),
        ("path:pci-0000:00:1f.2-ata-1", "path:pci-0000:00:1f.2-ata-1"),
        ("serial: S1", "serial:S1"),
    ] {
        assert_eq!(text.parse::<DiskSpec>().unwrap().to_string(), same);
    }
    for bad in ["sda", "/dev/sda", "serial:", "wwn:xyz", "disk:1"] {
        assert!(bad.parse::<DiskSpec>().is_err(), "{bad}");
    }
}
