//! `/etc/network/interfaces` (interfaces(5), with what ifenslave and vlan add to it).

use std::collections::BTreeMap;

use super::{Files, Ports};
use crate::answers::{Addressing, Base, Bond, Cidr, Interface, Mac, Network, Static, Vlan};

/// More files than this include each other.
const MAX_FILES: usize = 64;

/// What the stanzas of one interface say.
#[derive(Debug, Default)]
struct Stanza {
    dhcp: bool,
    addresses: Vec<Cidr>,
    gateways: Vec<std::net::IpAddr>,
    options: BTreeMap<String, String>,
}

/// The network that `text` and what it includes describe.
pub(super) fn network(text: &str, root: &dyn Files, ports: &Ports) -> Result<Network, String> {
    let lines = included(text, root)?;
    let stanzas = stanzas(&lines)?;
    build(&stanzas, ports)
}

/// All lines, those of included files in their place, continued ones joined.
fn included(text: &str, root: &dyn Files) -> Result<Vec<String>, String> {
    let mut todo = vec![text.to_owned()];
    let (mut lines, mut files) = (Vec::new(), 0);
    while let Some(text) = todo.pop() {
        files += 1;
        if files > MAX_FILES {
            return Err("/etc/network/interfaces includes too many files".to_owned());
        }
        for line in text.replace("\\\n", " ").lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["source", pattern] => {
                    let (dir, name) = pattern.rsplit_once('/').unwrap_or(("/etc/network", pattern));
                    match name {
                        "*" => todo.extend(all(root, dir)),
                        name if !name.contains(['*', '?', '[']) => todo.extend(root.read(&format!("{dir}/{name}"))),
                        _ => return Err(format!("/etc/network/interfaces includes `{pattern}`")),
                    }
                }
                ["source-directory", dir] => todo.extend(all(root, &absolute(dir))),
                [] => {}
                _ if line.trim_start().starts_with('#') => {}
                _ => lines.push(words.join(" ")),
            }
        }
    }
    Ok(lines)
}

fn absolute(dir: &str) -> String {
    if dir.starts_with('/') { dir.to_owned() } else { format!("/etc/network/{dir}") }
}

fn all(root: &dyn Files, dir: &str) -> Vec<String> {
    let plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    root.list(dir).into_iter().filter(plain).filter_map(|name| root.read(&format!("{dir}/{name}"))).collect()
}

fn stanzas(lines: &[String]) -> Result<BTreeMap<String, Stanza>, String> {
    let mut all: BTreeMap<String, Stanza> = BTreeMap::new();
    let mut current: Option<(String, String, BTreeMap<String, String>)> = None;
    for line in lines.iter().map(String::as_str).chain(["end"]) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let begins = ["iface", "auto", "mapping", "end"].contains(&word) || word.starts_with("allow-");
        if begins && let Some((name, method, options)) = current.take() {
            let stanza = all.entry(name.clone()).or_default();
            add(&name, &method, options, stanza)?;
        }
        match word {
            "iface" => match rest.split(' ').collect::<Vec<_>>()[..] {
                [name, "inet" | "inet6", method] => {
                    current = Some((name.to_owned(), method.to_owned(), BTreeMap::new()));
                }
                _ => return Err(format!("`{line}` in /etc/network/interfaces")),
            },
            "mapping" => return Err("/etc/network/interfaces uses `mapping`".to_owned()),
            _ if begins => {}
            key => {
                if let Some((_, _, options)) = &mut current {
                    let value = options.entry(key.replace('_', "-")).or_default();
                    *value = format!("{value} {rest}").trim().to_owned();
                }
            }
        }
    }
    all.remove("lo");
    Ok(all)
}

fn add(name: &str, method: &str, options: BTreeMap<String, String>, stanza: &mut Stanza) -> Result<(), String> {
    match method {
        "dhcp" | "auto" => stanza.dhcp = true,
        "manual" | "loopback" => {}
        "static" => {
            let address = options.get("address").ok_or_else(|| format!("`{name}` is static without an address"))?;
            let text = match (address.contains('/'), options.get("netmask")) {
                (true, _) => address.clone(),
                (false, Some(mask)) => format!("{address}/{}", prefix(mask).ok_or_else(|| format!("netmask {mask}"))?),
                (false, None) => return Err(format!("`{name}` has an address without a netmask")),
            };
            stanza.addresses.push(Cidr::parse(&text).ok_or_else(|| format!("`{name}` has the address {text}"))?);
            if let Some(gateway) = options.get("gateway") {
                stanza.gateways.push(gateway.parse().map_err(|_| format!("`{name}` has the gateway {gateway}"))?);
            }
        }
        other => return Err(format!("`{name}` uses the method `{other}`")),
    }
    // What would be lost without a word: routes and bridges that commands or other packages make.
    let silent = ["bridge-ports", "up", "post-up", "pre-up", "vrf-table", "wpa-ssid", "hwaddress"];
    if let Some(key) = silent.iter().find(|key| options.contains_key(**key)) {
        return Err(format!("`{name}` uses `{key}`"));
    }
    stanza.options.extend(options);
    Ok(())
}

fn prefix(mask: &str) -> Option<u32> {
    if let Ok(bits) = mask.parse::<u32>() {
        return Some(bits);
    }
    let bits = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == u32::MAX).then(|| bits.leading_ones())
}

fn build(stanzas: &BTreeMap<String, Stanza>, ports: &Ports) -> Result<Network, String> {
    let port = |name: &str| -> Result<Mac, String> {
        ports.get(name).cloned().ok_or_else(|| format!("no port is known by the name `{name}`"))
    };
    let slaves = |stanza: &Stanza| -> Vec<String> {
        let list = stanza.options.get("bond-slaves").or_else(|| stanza.options.get("slaves"));
        list.into_iter().flat_map(|list| list.split(' ')).filter(|s| *s != "none").map(str::to_owned).collect()
    };
    let in_bond = |name: &str| stanzas.values().any(|stanza| slaves(stanza).iter().any(|slave| slave == name));
    let master = |name: &str| stanzas.get(name).and_then(|s| s.options.get("bond-master")).cloned();
    let is_bond = |name: &str, stanza: &Stanza| {
        !slaves(stanza).is_empty() || stanzas.keys().any(|other| master(other).as_deref() == Some(name))
    };
    let (mut interfaces, mut bonds, mut vlans, mut dns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, stanza) in stanzas {
        let mtu = stanza.options.get("mtu").and_then(|mtu| mtu.parse().ok());
        let addressing = Addressing {
            dhcp: stanza.dhcp,
            addresses: stanza.addresses.clone(),
            gateways: stanza.gateways.clone(),
            mtu,
        };
        dns.extend(
            stanza
                .options
                .get("dns-nameservers")
                .into_iter()
                .flat_map(|l| l.split(' '))
                .filter_map(|a| a.parse::<std::net::IpAddr>().ok()),
        );
        if is_bond(name, stanza) {
            let mut names = slaves(stanza);
            names.extend(stanzas.keys().filter(|other| master(other).as_deref() == Some(name)).cloned());
            let members = names.iter().map(|name| port(name)).collect::<Result<_, _>>()?;
            let mode = stanza.options.get("bond-mode").map_or("balance-rr", String::as_str);
            bonds.push(Bond { name: name.clone(), mode: bond_mode(mode)?, members, addressing });
        } else if let Some((base, id)) = vlan(name, stanza)? {
            let on = match stanzas.get(&base).is_some_and(|stanza| is_bond(&base, stanza)) {
                true => Base::Bond(base),
                false => Base::Port(port(&base)?),
            };
            vlans.push(Vlan { name: name.clone(), id, on, addressing });
        } else if !in_bond(name) && master(name).is_none() && (stanza.dhcp || !stanza.addresses.is_empty()) {
            // One that is there without addresses carries VLANs, or nothing.
            interfaces.push(Interface { mac: port(name)?, addressing });
        }
    }
    dns.dedup();
    if interfaces.is_empty() && bonds.is_empty() && vlans.is_empty() {
        return Err("/etc/network/interfaces names no port".to_owned());
    }
    Ok(Network { kind: Static::Given { interfaces, bonds, vlans }, dns, ntp: Vec::new() })
}

/// The modes have numbers too.
fn bond_mode(text: &str) -> Result<String, String> {
    const MODES: [&str; 7] =
        ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];
    let by_number = text.parse::<usize>().ok().and_then(|number| MODES.get(number));
    let found = by_number.or_else(|| MODES.iter().find(|mode| **mode == text));
    found.map(|mode| (*mode).to_owned()).ok_or_else(|| format!("bond mode `{text}`"))
}

/// `eth0.7`, or `vlan7` with `vlan-raw-device`.
fn vlan(name: &str, stanza: &Stanza) -> Result<Option<(String, u16)>, String> {
    let raw = stanza.options.get("vlan-raw-device").cloned();
    let number = |text: &str| text.parse::<u16>().ok().filter(|id| (1..=4094).contains(id));
    match (name.rsplit_once('.'), raw) {
        (Some((base, id)), raw) => match number(id) {
            Some(id) => Ok(Some((raw.unwrap_or_else(|| base.to_owned()), id))),
            None => Err(format!("`{name}` is no VLAN that is understood")),
        },
        (None, Some(raw)) => {
            let id = stanza.options.get("vlan-id").cloned();
            let id = id.unwrap_or_else(|| name.trim_start_matches("vlan").to_owned());
            number(&id).map(|id| Some((raw, id))).ok_or_else(|| format!("`{name}` is a VLAN without a number"))
        }
        (None, None) => Ok(None),
    }
}
