//! Somebody has the key that one box dials another one with.

use anyhow::{Result, ensure};

use super::super::must_contain;
use super::SYNC;
use crate::two::{OTHER, Two, target};

/// An asset that only the one who has the key knows of.
const SMUGGLED: &str = "7d3d1d3c-1e0e-4c5b-8f0e-6d5a5b1f0a22";

/// SSH to vault with office's key, up to the machine's name.
fn ssh() -> String {
    format!(
        "ssh -F none -i /var/lib/siris/peers/vault.key -p {OTHER} -o BatchMode=yes -o IdentitiesOnly=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    )
}

/// What somebody with office's key can do on vault: nothing beside.
pub(super) fn tried(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let ssh = ssh();
    vault.guest.ok("zfs create vault/other && zfs snapshot vault/other@1 && touch /tmp/untouched")?;
    let before = vault.guest.ok("zfs list -Ht all -o name")?;
    let dataset = target();
    for tried in [
        "id".to_owned(),
        "rm /tmp/untouched".to_owned(),
        format!("zfs destroy -r {dataset}"),
        "{\"look\":{\"dataset\":\"vault/other\"}}".to_owned(),
        "{\"receive\":{\"dataset\":\"vault/elsewhere\"}}".to_owned(),
        "{\"receive\":{\"dataset\":\"vault/home/agents/../../other\"}}".to_owned(),
        format!(
            "{{\"send\":{{\"dataset\":\"{dataset}\",\"stream\":{{\"snapshot\":{{\"snapshot\":\"{dataset}@1\",\"base\":\"nothing\",\"between\":false,\"raw\":false}}}}}}}}"
        ),
    ] {
        let done = office.guest.run(&format!("{ssh} root@127.0.0.1 '{tried}' </dev/null"))?;
        ensure!(done.status == Some(1), "with the key, {tried}: {done}");
        must_contain(&done.text, "peer-", &tried)?;
    }
    // No terminal, no shell, no way through to somewhere else, no file.
    for (what, tried) in [
        ("a shell", format!("{ssh} -tt root@127.0.0.1 </dev/null")),
        ("a forwarded port", format!("{ssh} -o ExitOnForwardFailure=yes -W 127.0.0.1:22 root@127.0.0.1 </dev/null")),
        ("SFTP", format!("{ssh} -s root@127.0.0.1 sftp </dev/null")),
    ] {
        let done = office.guest.run(&tried)?;
        ensure!(done.status != Some(0), "with the key, {what}: {done}");
    }
    let now = vault.guest.ok("ls /tmp/untouched >/dev/null && zfs list -Ht all -o name")?;
    ensure!(now == before, "something changed on the target: {now}");
    // Nobody but the group's members changes what is replicated; everybody may look.
    office.guest.ok("runuser -u nobody -- sirisctl vector list | grep -q vault")?;
    for change in ["vector sync 1", "vector pause 1", "vector remove 1", "machine remove vault", "machine key other"] {
        let refused = office.guest.refused(&format!("runuser -u nobody -- sirisctl {change} </dev/null"))?;
        must_contain(&refused, "not-authorized", change)?;
    }
    Ok(())
}

/// A stream that brings properties, to be mounted where it pleases and to be in the way of all who list datasets: none of them
/// arrives.
pub(super) fn smuggled(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let dataset = format!("vault/home/agents/{SMUGGLED}");
    let request = format!("{{\"receive\":{{\"dataset\":\"{dataset}\"}}}}");
    let sent = format!(
        "zfs create -o mountpoint=/etc/smuggled -o org.siris:primary=on -o org.siris:retention=all=1h -o org.siris:fetched-by=x tank/smuggled \
         && zfs set org.siris:asset-name=\"$(printf 'a\\tb\\nc')\" tank/smuggled && zfs snapshot tank/smuggled@1 \
         && zfs send -p tank/smuggled@1 | {} root@127.0.0.1 '{request}' && zfs destroy -r tank/smuggled",
        ssh()
    );
    must_contain(&office.guest.ok(&sent)?, "done", "a stream that brings properties")?;
    let names = "mountpoint,org.siris:primary,org.siris:retention,org.siris:fetched-by,org.siris:asset-name";
    let came = vault.guest.ok(&format!("zfs get -Hpo property,value,source {names} {dataset}"))?;
    for bad in ["/etc", "received", "local"] {
        ensure!(!came.contains(bad), "what came along with a stream: {came}");
    }
    vault.guest.eventually(SYNC, &format!("sirisctl dataset list | grep -q {SMUGGLED}"))?;
    vault.guest.ok(&format!("zfs destroy -r {dataset}")).map(drop)
}
