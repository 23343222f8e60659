//! All cases, by suite, and what several suites share.

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::lab::{Bench, Lab};
use crate::machine::{Bus, Firmware, Spec};
use crate::snapshot;
use crate::vm::Vm;

pub mod agent;
pub mod bad_input;
pub mod boot;
pub mod corrupt;
pub mod datasets;
pub mod health;
pub mod install;
pub mod pools;
pub mod repro;
pub mod upgrade;
pub mod vectors;

/// Every case there is.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(boot::cases());
    cases.extend(pools::cases());
    cases.extend(health::cases());
    cases.extend(agent::cases());
    cases.extend(datasets::cases());
    cases.extend(vectors::cases());
    cases.extend(corrupt::cases());
    cases.extend(install::cases());
    cases.extend(upgrade::cases());
    cases.extend(bad_input::cases());
    cases.extend(repro::cases());
    cases
}

/// root's password on the standard machine.
pub(crate) const PASSWORD: &str = "correct-horse-9";
/// Its hash, as `openssl passwd -6 -salt siristests` makes it.
const PASSWORD_HASH: &str =
    "$6$siristests$5LxapWHuY0VbJeJtGyaUnmpQkb57n4lx04om/9O1PerIwt2BIiH8u.k8zV2K/EFypWNy/OpkY8KsaNhua/zV2/";
/// The address that the standard machine is told to take in addition to DHCP's.
pub(crate) const EXTRA_ADDRESS: &str = "10.0.2.77";

/// The machine most cases run on: four blank disks, and a credential of each kind.
pub(crate) fn standard_spec(lab: &Lab) -> Result<Spec> {
    let network = format!("[Match]\nName=en*\n[Network]\nDHCP=yes\nAddress={EXTRA_ADDRESS}/24\n");
    Ok(Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &lab.public_key()?)
        .with("passwd.hashed-password.root", PASSWORD_HASH)
        .with("network.network.10-siris-tests", &network)
        .with_data_disks(&[256, 256, 256, 256]))
}

/// The standard machine, booted and healthy.
pub(crate) fn standard<'a>(bench: &Bench<'a>) -> Result<Vm<'a>> {
    snapshot::booted(bench, &standard_spec(bench.lab)?)
}

/// A function of the shell, `new_pool NAME VDEVS...`: makes a pool below `/srv/pools/NAME`.
///
/// `zpool create` partitions each disk and opens the partition by its link, which udev takes away for a moment when it
/// reads the new table again; it then says that there is no such pool, or a device unavailable. That says nothing of the
/// image, and only that is tried again.
pub(crate) const NEW_POOL: &str = "new_pool() { for try in 1 2 3 4 5 6 7 8; do \
    said=$(zpool create -o cachefile=none -R \"/srv/pools/$1\" \"$@\" 2>&1) && return 0; \
    case $said in *'no such pool or dataset'* | *'currently unavailable'*) udevadm settle ;; *) break ;; esac; done; echo \"$said\" >&2; return 1; }\n";

/// A function of the shell, `partition DISK SGDISK-WORDS...`: partitions a disk, and waits for the link of its second one.
///
/// Udev looks at the disk while the kernel is asked to read the new table, which it then does not; so it is asked again.
pub(crate) const PARTITION: &str = "partition() { d=$1; shift; sgdisk \"$@\" $d >/dev/null; for try in 1 2 3 4 5 6 7 8 9 10; do \
    udevadm settle; [ ! -e $d-part2 ] || return 0; sleep 1; blockdev --rereadpt $d || :; done; \
    { sgdisk -p $d; cat /proc/partitions; ls -l /dev/disk/by-id; } >&2; return 1; }\n";

/// A property of the agent's root object, as `busctl` prints it.
pub(crate) fn manager_property(vm: &Vm<'_>, name: &str) -> Result<String> {
    vm.guest.ok(&format!("busctl get-property org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager {name}"))
}

/// A shell test that succeeds once the agent's health is the word.
pub(crate) fn health_is(word: &str) -> String {
    format!(
        "h=$(busctl get-property org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager Health); \
         r=$(busctl get-property org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager HealthReasons); \
         echo \"$h $r\"; [ \"$h\" = 's \"{word}\"' ]"
    )
}

/// Fails unless `text` has `part`.
pub(crate) fn must_contain(text: &str, part: &str, what: &str) -> Result<()> {
    ensure!(text.contains(part), "{what} does not say \"{part}\": {text}");
    Ok(())
}
