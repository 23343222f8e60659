//! Two boxes that know each other: one dataset, and where it is replicated to.

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

impl<'a> Two<'a> {
    /// Makes both out of booted machines: pools on these disks, and an introduction.
    ///
    /// # Errors
    /// When a pool or a record cannot be made.
    pub fn new(office: Vm<'a>, vault: Vm<'a>, disks: &str) -> Result<Self> {
        // Both may come from one snapshot: one of them becomes another box.
        vault.guest.ok(
            "cat /proc/sys/kernel/random/uuid > /var/lib/siris/device-id && rm /var/lib/ssh/ssh_host_ed25519_key* && \
             /usr/libexec/siris/siris-agent ssh-host-keys && systemctl restart siris-agent && \
             systemctl reload ssh",
        )?;
        office.guest.ok(&format!("{NEW_POOL}new_pool tank {disks} && zfs create -p {}", source()))?;
        vault.guest.ok(&format!("{NEW_POOL}new_pool vault {disks} && zfs create -p vault/home/agents"))?;
        office.guest.forward(OTHER, vault.guest.port())?;
        let two = Two { office, vault };
        two.introduce()?;
        Ok(two)
    }

    /// As an operator does it who reaches both.
    fn introduce(&self) -> Result<()> {
        let key = self.office.guest.ok("sirisctl machine key vault")?;
        let device = self.office.guest.ok("cat /var/lib/siris/device-id")?;
        let allow = format!("sirisctl machine allow office --device {device} --key '{key}' --prefix vault/home/agents");
        let allowed = self.vault.guest.ok(&format!("{allow} --receive"))?;
        self.office
            .guest
            .ok(&format!("sirisctl machine add vault 127.0.0.1:{OTHER} --prefix vault/home/agents {allowed}"))?;
        Ok(())
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
