//! Pools: the box's own come back, and nobody else's is ever touched.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{NEW_POOL, health_is, must_contain, standard, standard_spec};
use crate::case::Case;
use crate::lab::Bench;
use crate::vm::{Machine, Vm};

const GROUP: &str = "pools";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::quick(
            GROUP,
            "a pool is there with its data after a reboot, and once exported stays exported",
            comes_back,
        ),
        Case::full(GROUP, "a pool is there with its data after the power was cut", survives_a_power_cut),
        Case::full(GROUP, "another machine's pool, exported or not, is not imported by itself", foreign_stays_out),
    ]
}

const DISK: &str = "/dev/disk/by-id/virtio-data";

fn create(vm: &Vm<'_>, name: &str, vdevs: &str) -> Result<()> {
    vm.guest.ok(&format!("{NEW_POOL}new_pool {name} {vdevs}"))?;
    vm.guest.ok(&format!("zfs create {name}/data"))?;
    Ok(())
}

/// Fills a dataset, and returns the digest of all of it.
fn fill(vm: &Vm<'_>, name: &str) -> Result<String> {
    let mount = vm.guest.ok(&format!("zfs get -Hpo value mountpoint {name}/data"))?;
    vm.guest
        .ok(&format!("head -c 20000000 /dev/urandom > {mount}/file && zpool sync {name} && sha256sum < {mount}/file"))
}

fn digest(vm: &Vm<'_>, name: &str) -> Result<String> {
    // What is mounted by itself is the profile's choice; the data is what counts.
    vm.guest.ok(&format!(
        "[ \"$(zfs get -Ho value mounted {name}/data)\" = yes ] || zfs mount {name} 2>/dev/null; \
         [ \"$(zfs get -Ho value mounted {name}/data)\" = yes ] || zfs mount {name}/data; \
         sha256sum < \"$(zfs get -Hpo value mountpoint {name}/data)/file\""
    ))
}

/// Waits until the agent has noted which pools the box is to have.
fn agent_expects(vm: &Vm<'_>, name: &str, expected: bool) -> Result<()> {
    let property = "busctl get-property org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager ExpectedPools";
    let test = if expected { "" } else { "! " };
    vm.guest.eventually(Duration::from_secs(60), &format!("{test}{property} | grep -q '\"{name}\"'")).map(drop)
}

fn comes_back(bench: &Bench<'_>) -> Result<()> {
    let mut vm = standard(bench)?;
    create(&vm, "tank", &format!("mirror {DISK}0 {DISK}1"))?;
    create(&vm, "left", &format!("{DISK}2"))?;
    let data = fill(&vm, "tank")?;
    agent_expects(&vm, "tank", true)?;
    agent_expects(&vm, "left", true)?;
    vm.guest.ok("zpool export left")?;
    agent_expects(&vm, "left", false)?;

    vm.reboot()?;
    let pools = vm.guest.ok("zpool list -Ho name,health")?;
    ensure!(pools == "tank\tONLINE", "after the reboot the pools are: {pools}");
    ensure!(digest(&vm, "tank")? == data, "the pool came back with other data");
    must_contain(&vm.guest.ok("zpool import")?, "left", "what could be imported")?;
    vm.guest.eventually(Duration::from_secs(60), &health_is("healthy"))?;
    Ok(())
}

fn survives_a_power_cut(bench: &Bench<'_>) -> Result<()> {
    let mut vm = standard(bench)?;
    create(&vm, "tank", &format!("raidz {DISK}0 {DISK}1 {DISK}2"))?;
    let data = fill(&vm, "tank")?;
    agent_expects(&vm, "tank", true)?;
    vm = vm.cut_power()?.start()?;
    vm.wait_healthy()?;
    ensure!(digest(&vm, "tank")? == data, "the pool came back with other data");
    Ok(())
}

fn foreign_stays_out(bench: &Bench<'_>) -> Result<()> {
    let other = standard(bench)?;
    create(&other, "stray", &format!("{DISK}0"))?;
    create(&other, "given", &format!("{DISK}1"))?;
    fill(&other, "stray")?;
    other.guest.ok("zpool export given")?;
    let other = other.cut_power()?;

    let machine = Machine::new(bench, standard_spec(bench.lab)?)?;
    for disk in ["data0", "data1"] {
        fs::rename(other.disk(disk), machine.disk(disk))?;
    }
    let mut vm = machine.start()?;
    vm.wait_healthy()?;
    let pools = vm.guest.ok("zpool list -Ho name")?;
    ensure!(pools.is_empty(), "pools were imported by themselves: {pools}");
    let importable = vm.guest.ok("zpool import")?;
    must_contain(&importable, "stray", "what could be imported")?;
    must_contain(&importable, "given", "what could be imported")
}
