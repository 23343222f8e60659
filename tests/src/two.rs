//! Two boxes, or three, that know each other: one dataset, and where it is replicated to.

use anyhow::Result;

use crate::suites::NEW_POOL;
use crate::vm::Vm;

/// The asset whose dataset it is.
pub const ASSET: &str = "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";
/// The port of a box's own loopback that leads to the other one's SSH.
pub const OTHER: u16 = 2222;

/// Two boxes, `office` with the pool `tank` and a dataset of an asset, `vault` with the pool `vault`; office knows vault as
/// a machine that it may send to.
pub struct Two<'a> {
    /// The one with the source.
    pub office: Vm<'a>,
    /// The one with the target.
    pub vault: Vm<'a>,
}

/// The dataset on `office`.
pub fn source() -> String {
    format!("tank/home/agents/{ASSET}")
}

/// The dataset on `vault`.
pub fn target() -> String {
    format!("vault/home/agents/{ASSET}")
}

/// Makes another box out of one that comes from the same snapshot as others.
///
/// # Errors
/// When it cannot be made.
pub fn renew(vm: &Vm<'_>) -> Result<()> {
    vm.guest.ok(
        "cat /proc/sys/kernel/random/uuid > /var/lib/siris/device-id && rm /var/lib/ssh/ssh_host_ed25519_key* && \
         /usr/libexec/siris/siris-agent ssh-host-keys && systemctl restart siris-agent && systemctl reload ssh",
    )?;
    Ok(())
}

/// Has `from` know `to`, which `port` of its own loopback leads to from now on: each under its name there. `from` may have
/// streams received below `prefix`. As an operator does it who reaches both, and carries what each says to the other.
///
/// # Errors
/// When one of them refuses.
pub fn introduce(from: (&Vm<'_>, &str), to: (&Vm<'_>, &str), port: u16, prefix: &str) -> Result<()> {
    let ((from, own), (to, name)) = (from, to);
    from.guest.forward(port, to.guest.port())?;
    let key = from.guest.ok(&format!("sirisctl machine key {name}"))?;
    let device = from.guest.ok("cat /var/lib/siris/device-id")?;
    let allow = format!("sirisctl machine allow {own} --device {device} --key '{key}' --prefix {prefix}");
    let allowed = to.guest.ok(&format!("{allow} --receive"))?;
    from.guest.ok(&format!("sirisctl machine add {name} 127.0.0.1:{port} --prefix {prefix} {allowed}"))?;
    Ok(())
}

impl<'a> Two<'a> {
    /// Makes both out of booted machines: pools on these disks, and an introduction.
    ///
    /// # Errors
    /// When a pool or a record cannot be made.
    pub fn new(office: Vm<'a>, vault: Vm<'a>, disks: &str) -> Result<Self> {
        let two = Two::apart(office, vault, disks)?;
        introduce((&two.office, "office"), (&two.vault, "vault"), OTHER, "vault/home/agents")?;
        Ok(two)
    }

    /// As [`Two::new`], but office reaches vault, and neither knows of the other.
    ///
    /// # Errors
    /// When a pool cannot be made.
    pub fn apart(office: Vm<'a>, vault: Vm<'a>, disks: &str) -> Result<Self> {
        renew(&vault)?;
        office.guest.ok(&format!("{NEW_POOL}new_pool tank {disks} && zfs create -p {}", source()))?;
        vault.guest.ok(&format!("{NEW_POOL}new_pool vault {disks} && zfs create -p vault/home/agents"))?;
        office.guest.forward(OTHER, vault.guest.port())?;
        Ok(Two { office, vault })
    }

    /// Brings the pools back after their machines lost power: no box expects them.
    ///
    /// # Errors
    /// When one is not to be imported.
    pub fn import(&self) -> Result<()> {
        self.office.guest.forward(OTHER, self.vault.guest.port())?;
        for (vm, pool) in [(&self.office, "tank"), (&self.vault, "vault")] {
            vm.guest.ok(&format!(
                "zpool list -Ho name {pool} 2>/dev/null || zpool import -f -R /srv/pools/{pool} -o cachefile=none {pool}"
            ))?;
        }
        Ok(())
    }
}

/// Three boxes in a row: those of [`Two`], and `cloud` with the pool `cloud`, which both of them know. Vault may have streams
/// received below `cloud/home/agents`, office below `cloud/home/direct`.
pub struct Three<'a> {
    /// Office and vault.
    pub two: Two<'a>,
    /// The one that both send to.
    pub cloud: Vm<'a>,
}

/// The port of office's own loopback that leads to the cloud's SSH.
const CLOUD: u16 = 2223;

impl<'a> Three<'a> {
    /// Makes them out of booted machines.
    ///
    /// # Errors
    /// When a pool or a record cannot be made.
    pub fn new([office, vault, cloud]: [Vm<'a>; 3], disks: &str) -> Result<Self> {
        let two = Two::new(office, vault, disks)?;
        renew(&cloud)?;
        cloud.guest.ok(&format!(
            "{NEW_POOL}new_pool cloud {disks} && zfs create -p cloud/home/agents && zfs create cloud/home/direct"
        ))?;
        introduce((&two.vault, "vault"), (&cloud, "cloud"), OTHER, "cloud/home/agents")?;
        introduce((&two.office, "office"), (&cloud, "cloud"), CLOUD, "cloud/home/direct")?;
        Ok(Three { two, cloud })
    }
}
