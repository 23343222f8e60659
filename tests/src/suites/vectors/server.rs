//! Vectors to and from a machine that has ZFS and SSH, and no agent.

use anyhow::{Result, ensure};

use super::super::{must_contain, standard};
use super::{DISKS, GROUP, SYNC, digest, marks, mounted};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, OTHER, Two, source};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(GROUP, "a dataset goes to a machine without an agent, and comes back from it", server)]
}

const NODE: &str = "vault/old/node";

fn server(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, node) = (&two.office, &two.vault);
    node.guest.ok("systemctl stop siris-agent && zfs create vault/old")?;
    let host_key = node.guest.ok("cut -d' ' -f1,2 /var/lib/ssh/ssh_host_ed25519_key.pub")?;
    let refused = office.guest.refused(&format!("sirisctl machine add node 127.0.0.1:{OTHER} --server"))?;
    must_contain(&refused, "--host-key", "a server without a host key")?;
    let said = office.guest.ok(&format!(
        "sirisctl machine add node 127.0.0.1:{OTHER} --server --host-key '{host_key}' --prefix vault/old"
    ))?;
    let key = said.lines().find(|line| line.starts_with("ssh-")).unwrap_or_default();
    office.guest.ok(&format!("echo one > {}/note && sirisctl dataset snapshot {ASSET}", mounted()))?;
    office.guest.ok(&format!("sirisctl vector add {ASSET} node --other {NODE}"))?;
    let sync = |number: u32| office.guest.run_for(SYNC, &format!("sirisctl vector sync {number}"), b"");
    let denied = sync(1)?;
    must_contain(&denied.text, "key-not-allowed", "a sync before the key is let in")?;
    // Where this node has it: the home of root is not to be written to.
    node.guest.ok(&format!("echo '{key}' >> /var/lib/siris/peers/authorized_keys"))?;
    let done = sync(1)?;
    ensure!(done.status == Some(0), "the first sync: {done}");
    for text in ["two", "three"] {
        office.guest.ok(&format!("echo {text} > {}/note && sirisctl dataset snapshot {ASSET}", mounted()))?;
    }
    let done = sync(1)?;
    ensure!(done.status == Some(0), "the next: {done}");
    ensure!(digest(office, &source())? == digest(node, NODE)?, "the contents differ");
    let found = marks(node, NODE)?;
    ensure!(found.lines().count() == 3 && found.ends_with('-'), "on the node is marked {found}");
    let unread = office.guest.run_for(SYNC, "sirisctl vector verify 1", b"")?;
    must_contain(&unread.text, "without an agent", "a proof where nobody can read")?;

    // What the node has of another asset is fetched.
    let other = "7d3d1d3c-1e0e-4c5b-8f0e-6d5a5b1f0a11";
    node.guest.ok("zfs create vault/old/legacy && zfs snapshot vault/old/legacy@1568402268")?;
    office.guest.ok(&format!("sirisctl vector add tank/home/agents/{other} node --pull --other vault/old/legacy"))?;
    let done = sync(2)?;
    ensure!(done.status == Some(0), "what is fetched: {done}");
    office.guest.ok(&format!("zfs list tank/home/agents/{other}@1568402268"))?;
    office.guest.ok("sirisctl vector remove 1 && sirisctl vector remove 2")?;
    let found = marks(node, NODE)?;
    ensure!(found == "-", "on the node is still marked {found}");
    Ok(())
}
