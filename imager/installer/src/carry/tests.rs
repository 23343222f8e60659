use super::*;
use crate::state;

struct Tree(BTreeMap<&'static str, &'static str>);

impl Files for Tree {
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).map(|text| (*text).to_owned())
    }

    fn list(&self, dir: &str) -> Vec<String> {
        let below = |path: &&str| path.strip_prefix(dir)?.strip_prefix('/').map(str::to_owned);
        self.0.keys().filter_map(below).filter(|name| !name.contains('/')).collect()
    }
}

fn ports() -> Ports {
    [("eno1", "00:11:22:33:44:01"), ("eno2", "00:11:22:33:44:02"), ("eno3", "00:11:22:33:44:03")]
        .map(|(name, mac)| (name.to_owned(), Mac::parse(mac).unwrap()))
        .into()
}

fn carried(files: &[(&'static str, &'static str)]) -> Result<String, String> {
    let found = find(&Tree(files.iter().copied().collect()), &ports())?;
    let mut text = format!("from {}\n{}\n", found.from, state::network_lines(&found.network).join("\n"));
    for (name, content) in state::network_files(&found.network) {
        text += &format!("==> {name}\n{content}");
    }
    Ok(text)
}

const INTERFACES: &str = r#"
# comment
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
auto eno1
iface eno1 inet manual
    bond-master bond0
auto eno2
iface eno2 inet manual
    bond-master bond0
auto bond0
iface bond0 inet static
    address 192.0.2.7
    netmask 255.255.255.0
    gateway 192.0.2.1
    dns-nameservers 192.0.2.53 192.0.2.54
    bond-slaves none
    bond-mode 4
    mtu 9000
iface bond0 inet6 static
    address 2001:db8::7/64
auto bond0.30
iface bond0.30 inet dhcp
"#;

#[test]
fn ifupdown_with_bond_vlan_and_include() {
    let text = carried(&[
        ("/etc/network/interfaces", INTERFACES),
        (
            "/etc/network/interfaces.d/mgmt",
            "iface vlan9 inet static\n address 198.51.100.9/24\n vlan-raw-device eno3\n",
        ),
    ])
    .unwrap();
    for wanted in [
        "network: bond bond0 (802.3ad): 192.0.2.7/24 2001:db8::7/64 via 192.0.2.1",
        "network: port 00:11:22:33:44:02: in bond0",
        "network: VLAN 30 (bond0.30) on bond0: DHCP",
        "network: VLAN 9 (vlan9) on 00:11:22:33:44:03: 198.51.100.9/24",
        "name server 192.0.2.54",
        "MTUBytes=9000",
        "==> 50-port-001122334403.network",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn names_of_the_old_system_go_by_its_own_rules() {
    let rules = "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"00:11:22:33:44:99\", NAME=\"eth0\"\n";
    let files = [
        ("/etc/udev/rules.d/70-persistent-net.rules", rules),
        ("/etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n"),
    ];
    assert!(carried(&files).unwrap().contains("port 00:11:22:33:44:99: DHCP"));
    assert!(carried(&files[1..]).unwrap_err().contains("no port is known by the name `eth0`"));
}

#[test]
fn what_would_be_lost_is_refused() {
    let stanza = |rest: &'static str| carried(&[("/etc/network/interfaces", rest)]).unwrap_err();
    for (text, wanted) in [
        ("iface eno1 inet static\n address 192.0.2.1\n", "without a netmask"),
        ("iface eno1 inet static\n netmask 24\n", "without an address"),
        ("iface eno1 inet static\n address 192.0.2.1\n netmask 255.0.255.0\n", "netmask 255.0.255.0"),
        ("iface eno1 inet ppp\n", "method `ppp`"),
        ("iface eno1 inet static\n address 192.0.2.1/24\n up ip route add x\n", "uses `up`"),
        ("iface br0 inet dhcp\n bridge_ports eno1\n", "uses `bridge-ports`"),
        ("iface lo inet loopback\n", "names no port"),
        ("mapping eno*\n", "mapping"),
    ] {
        assert!(stanza(text).contains(wanted), "{text}: {}", stanza(text));
    }
    assert!(carried(&[]).unwrap_err().contains("no network set-up"));
}

#[test]
fn networkd_files_are_matched_by_address() {
    let text = carried(&[
        ("/etc/systemd/network/10-b.netdev", "[NetDev]\nName=bond7\nKind=bond\n"),
        ("/etc/systemd/network/10-b.network", "[Match]\nName=bond7\n[Network]\nDHCP=yes\n"),
        ("/etc/systemd/network/20-p.network", "[Match]\nName=eno1 eno2\n\n[Network]\nBond=bond7\nDescription=Name=x\n"),
    ])
    .unwrap();
    assert!(text.contains("PermanentMACAddress=00:11:22:33:44:01 00:11:22:33:44:02\nType=ether\nKind=!*\n"));
    assert!(text.contains("[Match]\nName=bond7\n") && text.contains("Description=Name=x"));
    let fault = |text: &'static str| carried(&[("/etc/systemd/network/a.network", text)]).unwrap_err();
    assert!(fault("[Match]\nName=en*\n").contains("pattern `en*`"));
    assert!(fault("[Match]\nName=eth5\n").contains("`eth5`"));
}
