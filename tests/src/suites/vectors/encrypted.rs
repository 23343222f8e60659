//! A dataset that is encrypted, and whose key is on the source only.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::{must_contain, standard};
use super::broken::{LINK, VECTOR};
use super::turned::write;
use super::{DISKS, GROUP, SYNC, digest, mounted};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(
        GROUP,
        "an encrypted dataset is replicated as it lies on disk, and its key stays where it is",
        encrypted,
    )]
}

/// What is written in plain words.
const SECRET: &str = "siris-tests-nobody-there-reads-this";
/// The asset of a dataset that is not.
const PLAIN: &str = "2f9d6f0c-77b3-4c53-9f6e-8a4f1c0d5e66";
/// What is sent while the link breaks.
const CONTENT_MIB: u64 = 48;
/// Where it breaks, and what may be sent again for it.
const CUT: u64 = 20 << 20;
const AGAIN_MAX: u64 = 8 << 20;

/// Whether both have the same snapshots, and the target no key.
fn must_be_sealed(two: &Two<'_>) -> Result<()> {
    let list = |dataset: &str| format!("zfs list -Hpd1 -t snapshot -s createtxg -o guid {dataset}");
    let (ours, theirs) = (two.office.guest.ok(&list(&source()))?, two.vault.guest.ok(&list(&target()))?);
    ensure!(ours == theirs, "the snapshots differ: {ours} and {theirs}");
    let said = two.vault.guest.ok(&format!("zfs get -Ho value encryption,keystatus {} | xargs", target()))?;
    ensure!(said == "aes-256-gcm unavailable", "the target is {said}");
    Ok(())
}

fn encrypted(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    office.guest.ok(&format!(
        "zfs destroy {0} && head -c 32 /dev/urandom > /run/key && \
         zfs create -o encryption=aes-256-gcm -o keyformat=raw -o keylocation=file:///run/key {0} && \
         {{ echo {SECRET}; head -c 200000 /dev/urandom; }} > {1}/secret",
        source(),
        mounted()
    ))?;
    let first = format!("sirisctl dataset list | grep -q {ASSET} && sirisctl dataset snapshot {ASSET}");
    let first = office.guest.eventually(SYNC, &first)?;
    office.guest.ok(&format!("sirisctl vector add {} vault", source()))?;
    let done = office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(done.status == Some(0), "the first sync: {done}");
    must_be_sealed(&two)?;
    // Nobody reads it there, neither through ZFS nor from the disks.
    vault.guest.refused(&format!("d=$(mktemp -d) && mount -t zfs -o ro {}@{first} $d", target()))?;
    vault.guest.ok(&format!("zpool sync vault && ! grep -aq {SECRET} /dev/disk/by-id/virtio-data[01]-part1"))?;

    // The next one.
    write(office, &source(), "second")?;
    let second = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let arrived = |point: &str| format!("sirisctl vector list | tee /dev/stderr | grep -q 'idle *{point}'");
    office.guest.eventually(SYNC, &arrived(&second))?;
    must_be_sealed(&two)?;

    // Several at once: a package of streams, each as it lies on disk.
    let several = office.guest.run_for(
        SYNC,
        &format!(
            "sirisctl vector pause 1; for n in 1 2 3; do echo $n > {}/several; sirisctl dataset snapshot {ASSET}; done; \
             sirisctl vector resume 1",
            mounted()
        ),
        b"",
    )?;
    ensure!(several.status == Some(0), "three points while it is paused: {several}");
    let points: Vec<&str> = several.text.lines().filter(|line| line.parse::<u64>().is_ok()).collect();
    let [first_of, _, second] = points[..] else { bail!("three points were to be taken: {several}") };
    office.guest.eventually(SYNC, &arrived(second))?;
    vault.guest.ok(&format!("zfs list {}@{first_of}", target()))?;
    must_be_sealed(&two)?;

    // And one that breaks off.
    office.guest.ok("sirisctl vector set 1 --limit 6MiB")?;
    let put = format!("dd if=/dev/urandom of={}/third bs=1M count={CONTENT_MIB} status=none", mounted());
    let third = office.guest.run_for(SYNC, &format!("{put} && sirisctl dataset snapshot {ASSET}"), b"")?;
    ensure!(third.status == Some(0), "writing what is sent: {third}");
    let third = third.text.trim().to_owned();
    let cut = format!("{VECTOR}until [ \"$(v sent)\" -ge {CUT} ]; do sleep 0.1; done; {LINK}");
    let cut = office.guest.run_for(SYNC, &cut, b"")?;
    ensure!(cut.status == Some(0), "the link was not there to be cut: {cut}");
    office.guest.ok("sirisctl vector set 1 --limit none")?;
    office.guest.eventually(SYNC, &arrived(&third))?;
    must_be_sealed(&two)?;
    let size = office.guest.ok(&format!("zfs send -nPw -i @{second} {}@{third} | sed -n 's/^size\\t//p'", source()))?;
    let sent = office.guest.ok(&format!("{VECTOR}v sent"))?;
    let (size, sent): (u64, u64) = (size.parse().context(size)?, sent.parse().context(sent)?);
    ensure!(sent <= size + AGAIN_MAX, "of {size} bytes {sent} were sent: it began anew");

    leaves_raw_only(office, &third)?;

    // A proof is none, and says so; with the key there is one, and all is there.
    let said = office.guest.run_for(Duration::from_secs(120), "sirisctl vector verify 1", b"")?;
    ensure!(said.status == Some(1), "a proof of what nobody can read: {said}");
    must_contain(&said.text, "replica-is-encrypted", "the proof")?;
    office.guest.ok("sirisctl vector list --json | grep -q '\"proven-to\": \"\"'")?;
    must_be_sealed(&two)?;
    let key = office.guest.ok("base64 -w0 /run/key")?;
    vault.guest.ok(&format!("echo {key} | base64 -d > /run/key && zfs load-key -L file:///run/key {}", target()))?;
    let said = office.guest.run_for(SYNC, "sirisctl vector verify 1", b"")?;
    ensure!(said.status == Some(0), "a proof with the key: {said}");
    ensure!(digest(office, &source())? == digest(vault, &target())?, "the contents differ");
    into_an_encrypted_one(&two)
}

/// Whoever asks the source for what is in it, with a key of its own or with a token that says so, is refused.
fn leaves_raw_only(office: &Vm<'_>, point: &str) -> Result<()> {
    let dataset = source();
    // ZFS itself would: the key is loaded here.
    let token = office.guest.ok(&format!(
        "ssh-keygen -q -t ed25519 -N '' -f /run/thief && sirisctl machine allow thief \
         --device 5d3b8f0e-2f64-4b5c-8d3e-1f0c9d7e6a21 --key \"$(cut -d' ' -f1,2 /run/thief.pub)\" --prefix tank/home/agents --send >/dev/null \
         && {{ zfs send {dataset}@{point} | head -c 20000000 | zfs receive -s tank/thief || true; }} >/dev/null 2>&1 \
         && zfs get -Hpo value receive_resume_token tank/thief"
    ))?;
    ensure!(token.starts_with("1-"), "what a stream of what is in it left: {token}");
    for stream in [
        format!(
            "{{\"snapshot\":{{\"snapshot\":\"{dataset}@{point}\",\"base\":\"nothing\",\"between\":false,\"raw\":false}}}}"
        ),
        format!("{{\"rest\":{{\"token\":\"{token}\"}}}}"),
    ] {
        for verb in ["send", "size"] {
            let request = format!("{{\"{verb}\":{{\"dataset\":\"{dataset}\",\"stream\":{stream}}}}}");
            let asked = format!("SSH_ORIGINAL_COMMAND='{request}' /usr/libexec/siris/siris-agent peer thief");
            let done = office.guest.run(&format!("{asked} 2>&1 | head -c 100000"))?;
            must_contain(&done.text, "not-raw", &stream)?;
            ensure!(done.text.len() < 2000, "{verb} {stream}: something was sent: {done}");
        }
    }
    office.guest.ok("sirisctl machine forbid thief && zfs receive -A tank/thief").map(drop)
}

/// What is plain goes where all is encrypted, its smallest files too, which lie in the pointers to them.
fn into_an_encrypted_one(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let (plain, sealed) = (format!("tank/home/agents/{PLAIN}"), format!("vault/home/agents/sealed/{PLAIN}"));
    vault.guest.ok("zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///run/key -o compression=on \
         vault/home/agents/sealed")?;
    let write = "f=$(zfs get -Ho value mountpoint";
    office
        .guest
        .ok(&format!("zfs create -o compression=on {plain} && {write} {plain})/tiny && yes | head -c 9000 > $f"))?;
    office
        .guest
        .eventually(SYNC, &format!("sirisctl dataset list | grep -q {PLAIN} && sirisctl dataset snapshot {PLAIN}"))?;
    office.guest.ok(&format!("sirisctl vector add {plain} vault --other {sealed}"))?;
    let done = office.guest.run_for(SYNC, "sirisctl vector sync 2 && sirisctl vector verify 2", b"")?;
    ensure!(done.status == Some(0), "into an encrypted dataset: {done}");
    let said = vault.guest.ok(&format!("zfs get -Ho value encryption {sealed}"))?;
    ensure!(said == "aes-256-gcm", "the target is encrypted by {said}");
    ensure!(digest(office, &plain)? == digest(vault, &sealed)?, "the contents differ");
    Ok(())
}
