//! The fixtures: devices with labels that ZFS wrote, and what ZFS's own tools said of them.
//!
//! `fixtures/make.sh` made them, `fixtures/INDEX` lists them.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Bytes of one label region, and of the four that a fixture holds.
pub const REGION: usize = 256 * 1024;
pub const REGIONS: usize = 4 * REGION;

/// A case: a pool or what is left of it, with all of its devices.
pub struct Case {
    pub name: String,
    pub devices: Vec<Device>,
    /// What `zpool` said.
    pub zpool: String,
}

/// A device, of which only the label regions exist. Reading anything else is an error.
#[derive(Clone)]
pub struct Device {
    pub name: String,
    pub bytes: u64,
    pub regions: Vec<u8>,
    /// What `zdb -luuuu` said.
    pub zdb: String,
    at: u64,
}

impl Device {
    pub fn new(name: &str, bytes: u64, regions: Vec<u8>) -> Self {
        assert_eq!(regions.len(), REGIONS);
        Self { name: name.to_owned(), bytes, regions, zdb: String::new(), at: 0 }
    }

    /// Where the regions lie.
    pub fn places(&self) -> [u64; 4] {
        let end = self.bytes - self.bytes % REGION as u64;
        [0, REGION as u64, end - 2 * REGION as u64, end - REGION as u64]
    }
}

impl Read for Device {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for (n, place) in self.places().into_iter().enumerate() {
            let Some(within) = self.at.checked_sub(place).filter(|within| *within < REGION as u64) else { continue };
            let rest = &self.regions[n * REGION + within as usize..(n + 1) * REGION];
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            self.at += len as u64;
            return Ok(len);
        }
        Err(io::Error::other(format!("read at {}, outside of every label", self.at)))
    }
}

impl Seek for Device {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        match pos {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::Current(_) | SeekFrom::End(_) => return Err(io::Error::other("a relative seek")),
        }
        Ok(self.at)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// An unpacked file of the fixtures.
pub fn unpacked(name: &str) -> Vec<u8> {
    let packed = fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    zstd::decode_all(&packed[..]).unwrap()
}

/// Names of all cases, with the names and sizes of their devices.
pub fn index() -> Vec<(String, Vec<(String, u64)>)> {
    let mut cases: Vec<(String, Vec<_>)> = Vec::new();
    for line in fs::read_to_string(folder().join("INDEX")).unwrap().lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["case", case, ..] => cases.push((case.to_owned(), Vec::new())),
            ["device", case, device, bytes] => {
                let (name, devices) = cases.last_mut().unwrap();
                assert_eq!(name, case);
                devices.push((device.to_owned(), bytes.parse().unwrap()));
            }
            ["file" | "#", ..] => {}
            _ => panic!("INDEX: {line}"),
        }
    }
    cases
}

/// The case of that name.
pub fn case(name: &str) -> Case {
    let (_, devices) = index().into_iter().find(|(case, _)| case == name).unwrap();
    let labels = unpacked(&format!("{name}.labels.zst"));
    assert_eq!(labels.len(), devices.len() * REGIONS, "{name}");
    let zdb = String::from_utf8(unpacked(&format!("{name}.zdb.zst"))).unwrap();
    let mut said: BTreeMap<_, _> = zdb.split("=== ").filter_map(|part| part.split_once('\n')).collect();
    let device = |((device, bytes), regions): ((String, u64), &[u8])| Device {
        zdb: said.remove(&*format!("{device} {bytes}")).unwrap().to_owned(),
        ..Device::new(&device, bytes, regions.to_vec())
    };
    let devices = devices.into_iter().zip(labels.chunks(REGIONS)).map(device).collect();
    let zpool = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
    Case { name: name.to_owned(), devices, zpool }
}

impl Case {
    /// Its device of that name.
    pub fn device(&self, name: &str) -> Device {
        self.devices.iter().find(|device| device.name == name).unwrap().clone()
    }
}
