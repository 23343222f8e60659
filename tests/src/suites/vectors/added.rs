//! One command has two boxes know each other.

use std::fs;

use anyhow::{Result, ensure};

use super::super::{must_contain, standard};
use super::turned::write;
use super::{DISKS, GROUP, SYNC, must_be_equal};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, OTHER, Two, source, target};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(GROUP, "a machine is added on both boxes with one command, which may be run again", added)]
}

/// How many keys of machines vault lets in.
const KEYS: &str = "cat /var/lib/siris/peers/authorized_keys 2>/dev/null | wc -l";

fn added(bench: &Bench<'_>) -> Result<()> {
    let two = Two::apart(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    // An operator's way from the one to the other.
    let put = office.guest.run_for(SYNC, "umask 077 && cat > /run/operator", &fs::read(bench.lab.key())?)?;
    ensure!(put.status == Some(0), "an operator's key: {put}");
    let add = |prefix: &str| {
        format!(
            "SIRIS_SSH='ssh -F none -i /run/operator -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR' \
             sirisctl machine add vault 127.0.0.1:{OTHER} --prefix {prefix}"
        )
    };
    let alone = |what: &str| -> Result<()> {
        must_contain(&office.guest.ok("sirisctl machine list")?, "dials no machine", what)?;
        must_contain(&vault.guest.ok("sirisctl machine list")?, "No machine may dial this box", what)?;
        let keys = vault.guest.ok(KEYS)?;
        ensure!(keys == "0", "{what}: vault lets {keys} keys in");
        Ok(())
    };
    // Nobody else may, and nothing is half done where one of the two does not take it.
    let denied = office.guest.refused("runuser -u nobody -- sirisctl machine add vault 127.0.0.1 </dev/null")?;
    must_contain(&denied, "not-authorized", "a machine added by a stranger")?;
    let refused = office.guest.refused(&add("vault/home/agents/"))?;
    must_contain(&refused, "machine-refused", "a prefix that is none")?;
    alone("a prefix that is none")?;

    let good = add("vault/home/agents");
    office.guest.ok(&good)?;
    let known = || -> Result<String> {
        let list = "sirisctl machine list --json";
        Ok(office.guest.ok(list)?
            + &vault.guest.ok(list)?
            + &vault.guest.ok("cat /var/lib/siris/peers/authorized_keys")?)
    };
    let before = known()?;
    ensure!(before.matches("siris-agent peer").count() == 1, "what both know: {before}");
    // Again, for what broke off; and for something else under the same name.
    office.guest.ok(&good)?;
    ensure!(known()? == before, "the same command once more has changed something: {}", known()?);
    let refused = office.guest.refused(&add("vault/other"))?;
    must_contain(&refused, "machine-refused", "another machine of the same name")?;
    ensure!(known()? == before, "a refused command has changed something: {}", known()?);

    // The one half is lost, and comes back.
    vault.guest.ok("for name in $(sirisctl machine list --json | sed -n 's/.*\"name\": *\"\\([^\"]*\\)\".*/\\1/p'); do sirisctl machine forbid $name; done")?;
    ensure!(vault.guest.ok(KEYS)? == "0", "vault still lets somebody in");
    office.guest.ok(&good)?;
    ensure!(known()? == before, "what both know is not what it was: {}", known()?);

    write(office, &source(), "first")?;
    office.guest.ok(&format!("sirisctl dataset snapshot {ASSET} && sirisctl vector add {ASSET} vault"))?;
    let sync = || office.guest.run_for(SYNC, "sirisctl vector sync 1", b"");
    let done = sync()?;
    ensure!(done.status == Some(0), "a sync: {done}");
    must_be_equal(&two)?;

    // One of them is installed anew and has other keys: the vector stays, and goes on when they know each other again.
    let anew =
        "rm /var/lib/ssh/ssh_host_ed25519_key* && /usr/libexec/siris/siris-agent ssh-host-keys && systemctl reload ssh";
    for (of, file, on, command, code) in [
        ("vault's host key", "third", vault, anew, "host-key-changed"),
        ("office's own key", "fourth", office, "rm /var/lib/siris/peers/vault.key*", "key-not-allowed"),
    ] {
        on.guest.ok(command)?;
        write(office, &source(), file)?;
        let point = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
        let done = sync()?;
        ensure!(done.status == Some(1), "a sync, {of} being another one: {done}");
        must_contain(&done.text, code, of)?;
        must_contain(&done.text, "machine add --replace", of)?;
        let refused = office.guest.refused(&good)?;
        must_contain(&refused, "machine-refused", of)?;
        office.guest.ok(&format!("{good} --replace && {good}"))?;
        let done = sync()?;
        ensure!(done.status == Some(0), "a sync, {of} being known: {done}");
        vault.guest.ok(&format!("zfs list {}@{point}", target()))?;
        must_be_equal(&two)?;
    }
    Ok(())
}
