//! Somebody has the key that one box dials another one with.

use anyhow::{Result, ensure};

use super::super::must_contain;
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

/// Streams that bring more than snapshots, to be mounted where they please and to be in the way of all who list datasets: nothing
/// of them is taken, also where one hides behind the header of another one.
pub(super) fn smuggled(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let dataset = format!("vault/home/agents/{SMUGGLED}");
    let request = format!("{{\"receive\":{{\"dataset\":\"{dataset}\"}}}}");
    office.guest.ok(
        "zfs create -o mountpoint=/etc/smuggled -o org.siris:primary=on -o org.siris:fetched-by=x tank/smuggled \
         && zfs set org.siris:asset-name=\"$(printf 'a\\tb\\nc')\" tank/smuggled && zfs create tank/smuggled/below \
         && zfs snapshot -r tank/smuggled@1 && zfs snapshot -r tank/smuggled@2",
    )?;
    let ssh = ssh();
    let before = vault.guest.ok("zfs list -Ht all -o name")?;
    for (code, sent) in [
        ("zfs-refused", "zfs send -p tank/smuggled@1"),
        ("zfs-refused", "zfs send -R tank/smuggled@2"),
        // A package has two records before what is in it.
        ("zfs-stream-corrupt", "{ zfs send -I @1 tank/smuggled@2 | head -c 624; zfs send -p tank/smuggled@1; }"),
    ] {
        let done = office.guest.run(&format!("{sent} 2>/dev/null | {ssh} root@127.0.0.1 '{request}'"))?;
        ensure!(done.status == Some(1), "{sent}: {done}");
        must_contain(&done.text, code, sent)?;
        let now = vault.guest.ok("zfs list -Ht all -o name")?;
        ensure!(now == before, "{sent}: something arrived: {now}");
    }
    office.guest.ok("zfs destroy -r tank/smuggled").map(drop)
}
