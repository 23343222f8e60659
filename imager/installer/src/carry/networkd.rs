//! Files of systemd-networkd whose matches by name become matches by MAC address.

use super::{Ports, of_files};
use crate::answers::Network;

/// The same files, found by the addresses of the ports.
pub(super) fn network(files: &[(String, String)], ports: &Ports) -> Result<Network, String> {
    // Devices that the files themselves make keep their names.
    let made: Vec<&str> =
        files.iter().filter(|(name, _)| name.ends_with(".netdev")).filter_map(|f| name_of(&f.1)).collect();
    let mut carried = Vec::new();
    for (name, text) in files {
        let text = match name.ends_with(".network") {
            true => by_address(name, text, &made, ports)?,
            false => text.clone(),
        };
        carried.push((name.clone(), text));
    }
    match carried.is_empty() {
        true => Err("the old system's network has no files".to_owned()),
        false => Ok(of_files(carried)),
    }
}

fn name_of(netdev: &str) -> Option<&str> {
    let mut section = "";
    netdev.lines().map(str::trim).find_map(|line| {
        if line.starts_with('[') {
            section = line;
        }
        line.strip_prefix("Name=").filter(|_| section == "[NetDev]").map(str::trim)
    })
}

fn by_address(file: &str, text: &str, made: &[&str], ports: &Ports) -> Result<String, String> {
    let mut out = String::new();
    let mut section = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            section = trimmed.to_owned();
        }
        let name = trimmed.strip_prefix("Name=").or_else(|| trimmed.strip_prefix("OriginalName="));
        match name.map(str::trim).filter(|_| section == "[Match]") {
            None => out += line,
            Some(name) if made.contains(&name) => out += line,
            Some(names) => {
                let mut macs = Vec::new();
                for name in names.split_ascii_whitespace() {
                    match ports.get(name) {
                        Some(mac) => macs.push(mac.to_string()),
                        None if name.contains(['*', '?', '[', '!']) => {
                            return Err(format!("{file} matches ports by the pattern `{name}`"));
                        }
                        None => return Err(format!("{file} is for `{name}`, and no port is known by that name")),
                    }
                }
                out += &format!("PermanentMACAddress={}\nType=ether\nKind=!*", macs.join(" "));
            }
        }
        out.push('\n');
    }
    Ok(out)
}
