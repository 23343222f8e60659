//! Three boxes: from one to the next to the one behind it, and several targets and sources.

use anyhow::{Result, ensure};

use super::super::{must_contain, standard};
use super::turned::write;
use super::{DISKS, GROUP, SYNC, digest, marks};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Three, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let name = "a point goes from box to box by itself, none is pruned on its way, and the rest goes on when the first is gone";
    // Three machines at once.
    vec![Case::full(GROUP, name, cascade).alone()]
}

/// What vault sends, on the cloud.
fn far() -> String {
    format!("cloud/home/agents/{ASSET}")
}

/// What office sends there itself.
fn direct() -> String {
    format!("cloud/home/direct/{ASSET}")
}

/// Points by the names that a policy lets go.
const OLD: [&str; 2] = ["1568402268", "1568405868"];

fn arrives(vm: &Vm<'_>, dataset: &str, point: &str) -> Result<()> {
    vm.guest.eventually(SYNC, &format!("zfs list {dataset}@{point}")).map(drop)
}

/// Waits until so many vectors of a box say that both ends have the point.
fn settled(vm: &Vm<'_>, vectors: usize, point: &str) -> Result<()> {
    let count = format!("[ $(sirisctl vector list | tee /dev/stderr | grep -c 'idle *{point}') = {vectors} ]");
    vm.guest.eventually(SYNC, &count).map(drop)
}

/// Which of the old points are left of a dataset.
fn old(vm: &Vm<'_>, dataset: &str) -> Result<usize> {
    let list = vm.guest.ok(&format!("zfs list -Hd1 -t snapshot -o name {dataset}"))?;
    Ok(OLD.iter().filter(|label| list.lines().any(|name| name.ends_with(&format!("@{label}")))).count())
}

fn cascade(bench: &Bench<'_>) -> Result<()> {
    let three = Three::new([standard(bench)?, standard(bench)?, standard(bench)?], DISKS)?;
    let Three { two: Two { office, vault }, cloud } = &three;
    office.guest.ok(&format!("sirisctl dataset describe {ASSET} --id 4711 --name 'mail server'"))?;
    office.guest.ok(&format!("sirisctl vector add {ASSET} vault && sirisctl vector add {ASSET} cloud --secondary"))?;
    // Nothing is there to be sent yet.
    vault.guest.ok(&format!("sirisctl vector add {} cloud --secondary", target()))?;

    let mut newest = String::new();
    for file in ["first", "second"] {
        write(office, &source(), file)?;
        newest = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
        let taken = digest(office, &source())?;
        for (vm, dataset) in [(vault, target()), (cloud, far()), (cloud, direct())] {
            arrives(vm, &dataset, &newest)?;
            ensure!(digest(vm, &dataset)? == taken, "{dataset} has something else in {newest}");
        }
    }
    settled(office, 2, &newest)?;
    settled(vault, 1, &newest)?;
    // Each vector has its own marks where two meet.
    for (vm, dataset) in [(office, source()), (vault, target())] {
        let found = marks(vm, &dataset)?;
        let (holds, bookmarks) = (found.matches("siris:vector:").count(), found.matches("siris-vector-").count());
        ensure!((holds, bookmarks) == (2, 2) && found.ends_with('-'), "of {dataset} is marked {found}");
    }

    // What vault has yet to send stays there, however old it is.
    vault.guest.ok("sirisctl vector pause 1 && zfs set org.siris:retention=all=1h vault/home/agents")?;
    office.guest.ok(&format!("for p in {}; do zfs snapshot {}@$p || exit 1; done", OLD.join(" "), source()))?;
    write(office, &source(), "third")?;
    newest = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    settled(office, 2, &newest)?;
    let prune = format!("sirisctl dataset prune {ASSET}");
    let dry = vault.guest.ok(&format!("{prune} --dry-run"))?;
    must_contain(&dry, "has yet to send it", "why an old point stays")?;
    vault.guest.ok(&prune)?;
    ensure!(old(vault, &target())? == OLD.len(), "vault has pruned what it has yet to send");
    ensure!(old(cloud, &far())? == 0, "a vector that was paused has sent something");

    vault.guest.ok("sirisctl vector resume 1")?;
    arrives(cloud, &far(), &newest)?;
    settled(vault, 1, &newest)?;
    vault.guest.ok(&prune)?;
    ensure!(old(vault, &target())? == 0, "vault keeps what nothing needs");
    ensure!(old(cloud, &far())? == OLD.len(), "the cloud has lost what it was sent");
    ensure!(old(office, &source())? == OLD.len(), "office has lost what nobody pruned there");
    write(office, &source(), "fourth")?;
    newest = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    arrives(cloud, &far(), &newest)?;
    settled(office, 2, &newest)?;
    settled(vault, 1, &newest)?;

    // The first one is gone for good; each of the others knows what it has, from whom, and who has it too.
    let id = office.guest.ok("sirisctl vector list --json | grep -o '\"id\": \"[^\"]*_1\"' | cut -d'\"' -f4")?;
    let Three { two: Two { office, vault }, cloud } = three;
    drop(office.cut_power()?);
    for (vm, dataset) in [(&vault, "4711".to_owned()), (&cloud, far())] {
        let shown = vm.guest.ok(&format!("sirisctl dataset show {dataset}"))?;
        let (first, second) = (format!("{id}, primary: "), format!(" to cloud:{}", direct()));
        for told in ["4711", "mail server", ASSET, &first, &second, &format!(" to cloud:{}", far())] {
            must_contain(&shown, told, &dataset)?;
        }
    }
    vault.guest.ok(&format!("sirisctl dataset take-over {ASSET}"))?;
    write(&vault, &target(), "fifth")?;
    newest = vault.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    arrives(&cloud, &far(), &newest)?;
    settled(&vault, 1, &newest)?;
    ensure!(digest(&cloud, &far())? == digest(&vault, &target())?, "the contents differ");
    let refused = cloud.guest.refused(&format!("sirisctl dataset snapshot {ASSET}"))?;
    must_contain(&refused, "dataset-is-replica", "a point of what is a replica still")
}
