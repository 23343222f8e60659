//! How the box is reached, as values that were checked.

use std::net::IpAddr;

/// An address and the length of its prefix: `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads one; none when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (1..=most).contains(&prefix).then_some(Self { address, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How the box is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Where addresses come from.
    pub kind: Static,
    /// Name servers; none: the network's.
    pub dns: Vec<IpAddr>,
    /// Time servers; none: the network's or the distribution's.
    pub ntp: Vec<String>,
}

/// Where addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Static {
    /// Nobody says: as the pools know it, where the box is who it was; else every wired port asks.
    Unsaid,
    /// Every wired port asks.
    Dhcp,
    /// As it is on the OS that is on the target.
    CarryOver,
    /// Files of systemd-networkd, by name, as they are.
    Files(Vec<(String, String)>),
    /// As written here.
    Given {
        /// Ports with addresses of their own.
        interfaces: Vec<Interface>,
        /// Ports that work as one.
        bonds: Vec<Bond>,
        /// VLANs on either.
        vlans: Vec<Vlan>,
    },
}

/// Addresses of something that has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addressing {
    /// It asks.
    pub dhcp: bool,
    /// It has these.
    pub addresses: Vec<Cidr>,
    /// Its ways out.
    pub gateways: Vec<IpAddr>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// A MAC address: six lower-case pairs of digits with colons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(String);

impl Mac {
    /// Reads one; none when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase().replace('-', ":");
        let pairs: Vec<&str> = text.split(':').collect();
        let fits = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
        (pairs.len() == 6 && pairs.iter().all(fits)).then_some(Self(text))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its address on the wire.
    pub mac: Mac,
    /// Its addresses.
    pub addressing: Addressing,
}

/// Ports that work as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// Its name.
    pub name: String,
    /// As systemd.netdev(5) names it: `802.3ad`, `active-backup`, ...
    pub mode: String,
    /// The ports.
    pub members: Vec<Mac>,
    /// Its addresses.
    pub addressing: Addressing,
}

/// What a VLAN is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A port.
    Port(Mac),
    /// A bond.
    Bond(String),
}

/// A VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// What it is on.
    pub on: Base,
    /// Its addresses.
    pub addressing: Addressing,
}
