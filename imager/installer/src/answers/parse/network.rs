//! The network part of the answers.

use super::super::file::{BondFile, InterfaceFile, NetworkFile, NetworkMode, VlanFile};
use super::super::network::{Addressing, Base, Cidr, Mac};
use super::super::{Bond, Interface, Network, Static, Vlan};
use super::{Faults, is_hostname};

pub(super) fn network(file: &NetworkFile, faults: &mut Faults) -> Network {
    let dns = faults.all("network.dns", &file.dns, |text| text.parse().ok(), "an address");
    let server = |text: &str| (is_hostname(text) || text.parse::<std::net::IpAddr>().is_ok()).then(|| text.to_owned());
    let ntp = faults.all("network.ntp", &file.ntp, server, "a host name or address");
    let given = !(file.interfaces.is_empty() && file.bonds.is_empty() && file.vlans.is_empty());
    let kind = match file.mode {
        NetworkMode::Static if !given => {
            faults.add("network", "mode = \"static\" needs interfaces, bonds or vlans");
            Static::Dhcp
        }
        NetworkMode::Static => Static::Given {
            interfaces: file.interfaces.iter().enumerate().filter_map(|(n, f)| interface(n, f, faults)).collect(),
            bonds: file.bonds.iter().enumerate().map(|(n, f)| bond(n, f, faults)).collect(),
            vlans: file.vlans.iter().enumerate().filter_map(|(n, f)| vlan(n, f, &file.bonds, faults)).collect(),
        },
        mode => {
            if given {
                faults.add("network", "interfaces, bonds and vlans go with mode = \"static\"");
            }
            match mode {
                NetworkMode::CarryOver => Static::CarryOver,
                NetworkMode::Unsaid => Static::Unsaid,
                _ => Static::Dhcp,
            }
        }
    };
    Network { kind, dns, ntp }
}

fn addressing(
    path: &str,
    dhcp: bool,
    addresses: &[String],
    gateways: &[String],
    mtu: Option<u32>,
    faults: &mut Faults,
) -> Addressing {
    let addresses = faults.all(
        &format!("{path}.addresses"),
        addresses,
        Cidr::parse,
        "an address with its prefix, such as 192.0.2.7/24",
    );
    let gateways = faults.all(&format!("{path}.gateways"), gateways, |text| text.parse().ok(), "an address");
    if mtu.is_some_and(|mtu| !(576..=65535).contains(&mtu)) {
        faults.add(format!("{path}.mtu"), "is out of range");
    }
    Addressing { dhcp, addresses, gateways, mtu }
}

fn interface(n: usize, file: &InterfaceFile, faults: &mut Faults) -> Option<Interface> {
    let path = format!("network.interfaces[{n}]");
    let addressing = addressing(&path, file.dhcp, &file.addresses, &file.gateways, file.mtu, faults);
    if !file.dhcp && file.addresses.is_empty() {
        faults.add(&path, "has neither addresses nor dhcp = true");
    }
    let mac = Mac::parse(&file.mac);
    if mac.is_none() {
        faults.add(format!("{path}.mac"), format!("`{}` is no MAC address", file.mac));
    }
    Some(Interface { mac: mac?, addressing })
}

/// Linux takes 15 bytes; what systemd would read as a pattern is left out.
fn check_name(path: &str, name: &str, faults: &mut Faults) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 15 || !name.chars().all(fits) {
        faults.add(format!("{path}.name"), format!("`{name}` is no name of an interface"));
    }
}

fn bond(n: usize, file: &BondFile, faults: &mut Faults) -> Bond {
    const MODES: [&str; 7] =
        ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];
    let path = format!("network.bonds[{n}]");
    check_name(&path, &file.name, faults);
    if !MODES.contains(&file.mode.as_str()) {
        faults.add(format!("{path}.mode"), format!("`{}` is none of {}", file.mode, MODES.join(", ")));
    }
    let members = faults.all(&format!("{path}.members"), &file.members, Mac::parse, "a MAC address");
    if file.members.is_empty() {
        faults.add(format!("{path}.members"), "names no port");
    }
    let addressing = addressing(&path, file.dhcp, &file.addresses, &file.gateways, file.mtu, faults);
    Bond { name: file.name.clone(), mode: file.mode.clone(), members, addressing }
}

fn vlan(n: usize, file: &VlanFile, bonds: &[BondFile], faults: &mut Faults) -> Option<Vlan> {
    let path = format!("network.vlans[{n}]");
    check_name(&path, &file.name, faults);
    if !(1..=4094).contains(&file.id) {
        faults.add(format!("{path}.id"), "is out of range: 1 to 4094");
    }
    let bond = bonds.iter().find(|bond| bond.name == file.on).map(|bond| Base::Bond(bond.name.clone()));
    let on = bond.or_else(|| Mac::parse(&file.on).map(Base::Port));
    if on.is_none() {
        faults.add(format!("{path}.on"), format!("`{}` is neither a MAC address nor a bond", file.on));
    }
    let addressing = addressing(&path, file.dhcp, &file.addresses, &file.gateways, file.mtu, faults);
    Some(Vlan { name: file.name.clone(), id: file.id, on: on?, addressing })
}
