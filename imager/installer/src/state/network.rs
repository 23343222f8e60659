//! Files of systemd-networkd (systemd.network(5), systemd.netdev(5)) for what the answers say.
//!
//! Ports are matched by the address that is burnt into them: names change with the kernel, and a port of a bond takes
//! on the bond's address.

use std::fmt::Write as _;

use crate::answers::{Addressing, Base, Mac, Network, Static};

/// What a plan says of the network, a line each.
pub fn lines(network: &Network) -> Vec<String> {
    let mut lines = Vec::new();
    let say = |of: &Addressing| {
        let mut words: Vec<String> = of.addresses.iter().map(ToString::to_string).collect();
        if of.dhcp {
            words.push("DHCP".to_owned());
        }
        words.extend(of.gateways.iter().map(|gateway| format!("via {gateway}")));
        if words.is_empty() { "no address".to_owned() } else { words.join(" ") }
    };
    match &network.kind {
        Static::Unsaid => lines.push("network: DHCP, or as the pools know it where the box is who it was".to_owned()),
        Static::Dhcp => lines.push("network: every wired port asks for an address (DHCP)".to_owned()),
        Static::CarryOver => lines.push("network: as the old system on the target has it".to_owned()),
        Static::Files(files) => {
            lines.push(format!("network: {} files of systemd-networkd, as on the old system:", files.len()));
            for (name, text) in files {
                lines.push(format!("  {name}"));
                let telling =
                    ["PermanentMACAddress=", "Name=", "Address=", "Gateway=", "DHCP=", "Bond=", "VLAN=", "DNS="];
                let told = text.lines().filter(|line| telling.iter().any(|key| line.starts_with(key)));
                lines.extend(told.map(|line| format!("    {line}")));
            }
        }
        Static::Given { interfaces, bonds, vlans } => {
            for port in interfaces {
                lines.push(format!("network: port {}: {}", port.mac, say(&port.addressing)));
            }
            for bond in bonds {
                lines.push(format!("network: bond {} ({}): {}", bond.name, bond.mode, say(&bond.addressing)));
                lines.extend(bond.members.iter().map(|mac| format!("network: port {mac}: in {}", bond.name)));
            }
            for vlan in vlans {
                let on = match &vlan.on {
                    Base::Port(mac) => mac.to_string(),
                    Base::Bond(name) => name.clone(),
                };
                lines.push(format!("network: VLAN {} ({}) on {on}: {}", vlan.id, vlan.name, say(&vlan.addressing)));
            }
        }
    }
    lines.extend(network.dns.iter().map(|dns| format!("name server {dns}")));
    lines.extend(network.ntp.iter().map(|ntp| format!("time server {ntp}")));
    lines
}

/// The files, by name. None for DHCP: the image's own file says that.
pub fn files(network: &Network) -> Vec<(String, String)> {
    let (interfaces, bonds, vlans) = match &network.kind {
        Static::Given { interfaces, bonds, vlans } => (interfaces, bonds, vlans),
        Static::Files(files) => return files.clone(),
        Static::Unsaid | Static::Dhcp | Static::CarryOver => return Vec::new(),
    };
    let mut files = Vec::new();
    let on_port = |mac: &Mac| -> Vec<&str> {
        vlans.iter().filter(|vlan| vlan.on == Base::Port(mac.clone())).map(|vlan| vlan.name.as_str()).collect()
    };
    let name = |mac: &Mac| format!("50-port-{}.network", mac.to_string().replace(':', ""));
    for port in interfaces {
        let text = port_match(&port.mac) + &link(&port.addressing) + &section(&port.addressing, &on_port(&port.mac));
        files.push((name(&port.mac), text));
    }
    for bond in bonds {
        for mac in &bond.members {
            let text = format!("{}\n[Network]\nBond={}\n", port_match(mac), bond.name);
            files.push((name(mac), text));
        }
        let (bond_name, mode) = (&bond.name, &bond.mode);
        let netdev = format!("[NetDev]\nName={bond_name}\nKind=bond\n\n[Bond]\nMode={mode}\nMIIMonitorSec=100ms\n");
        files.push((format!("40-bond-{bond_name}.netdev"), netdev));
        let on: Vec<&str> =
            vlans.iter().filter(|v| v.on == Base::Bond(bond_name.clone())).map(|v| v.name.as_str()).collect();
        let text = format!("[Match]\nName={bond_name}\n") + &link(&bond.addressing) + &section(&bond.addressing, &on);
        files.push((format!("60-bond-{bond_name}.network"), text));
    }
    for vlan in vlans {
        let (vlan_name, id) = (&vlan.name, vlan.id);
        let netdev = format!("[NetDev]\nName={vlan_name}\nKind=vlan\n\n[VLAN]\nId={id}\n");
        files.push((format!("40-vlan-{vlan_name}.netdev"), netdev));
        let text = format!("[Match]\nName={vlan_name}\n") + &link(&vlan.addressing) + &section(&vlan.addressing, &[]);
        files.push((format!("60-vlan-{vlan_name}.network"), text));
        // A port that carries nothing but VLANs.
        if let Base::Port(mac) = &vlan.on
            && !interfaces.iter().any(|port| port.mac == *mac)
            && !files.iter().any(|(other, _)| *other == name(mac))
        {
            let text = port_match(mac) + &section(&Addressing::default(), &on_port(mac));
            files.push((name(mac), text));
        }
    }
    files.sort();
    files
}

fn port_match(mac: &Mac) -> String {
    format!("[Match]\nPermanentMACAddress={mac}\nType=ether\nKind=!*\n")
}

fn link(addressing: &Addressing) -> String {
    addressing.mtu.map(|mtu| format!("\n[Link]\nMTUBytes={mtu}\n")).unwrap_or_default()
}

fn section(addressing: &Addressing, vlans: &[&str]) -> String {
    let mut text = String::from("\n[Network]\n");
    // Writing to a string never fails.
    let _ = writeln!(text, "DHCP={}", if addressing.dhcp { "yes" } else { "no" });
    if addressing.addresses.is_empty() && !addressing.dhcp {
        text += "LinkLocalAddressing=no\nIPv6AcceptRA=no\n";
    }
    for address in &addressing.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &addressing.gateways {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for vlan in vlans {
        let _ = writeln!(text, "VLAN={vlan}");
    }
    if addressing.dhcp {
        text += "\n[DHCPv4]\nClientIdentifier=mac\nUseDomains=yes\n";
    }
    text
}
