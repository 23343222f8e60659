//! What a vector cannot do, or is kept from: a named error, both ends as they were, and a rerun that completes.

use anyhow::{Result, ensure};

use super::super::{must_contain, standard};
use super::turned::write;
use super::{DISKS, GROUP, SYNC, digest, must_be_equal};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, OTHER, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(GROUP, "what cannot be sent is refused by name before a byte of it leaves", refused),
        Case::full(GROUP, "a full target says so, keeps what it has, and goes on once there is room", full),
        Case::full(GROUP, "a stream that is cut short or altered on its way leaves the target as it was", damaged),
    ]
}

/// An asset that no box has.
const ABSENT: &str = "7d3d1d3c-1e0e-4c5b-8f0e-6d5a5b1f0a11";

/// Makes a vector, and gives its number.
fn add(office: &Vm<'_>, arguments: &str) -> Result<String> {
    let id = office.guest.ok(&format!("sirisctl vector add {arguments}"))?;
    Ok(id.rsplit_once('_').map(|(_, number)| number.to_owned()).unwrap_or_default())
}

fn syncs(office: &Vm<'_>, vector: &str) -> Result<()> {
    let done = office.guest.run_for(SYNC, &format!("sirisctl vector sync {vector}"), b"")?;
    ensure!(done.status == Some(0), "a sync of vector {vector}: {done}");
    Ok(())
}

/// A sync that fails with this code, which the vector is then shown with.
fn fails(office: &Vm<'_>, vector: &str, code: &str) -> Result<()> {
    let done = office.guest.run_for(SYNC, &format!("sirisctl vector sync {vector}"), b"")?;
    ensure!(done.status == Some(1), "a sync of vector {vector} that cannot be: {done}");
    must_contain(&done.text, code, "why it cannot be")?;
    let shown = office.guest.ok(&format!("sirisctl vector show {vector}"))?;
    must_contain(&shown, "state       failed", "the vector")?;
    must_contain(&shown, code, "the vector")
}

/// Everything that is on the target, with guids, but for what the box keeps of itself there.
fn everything(vault: &Vm<'_>) -> Result<String> {
    vault.guest.ok("zfs list -Hrt filesystem,snapshot,bookmark -o name,guid vault | grep -v ^vault/siris-escrow")
}

/// Takes a point of the source after another file was written to it.
fn point(office: &Vm<'_>, file: &str, mib: u32) -> Result<String> {
    let path = format!("$(zfs get -Ho value mountpoint {})/{file}", source());
    let put =
        format!("dd if=/dev/urandom of={path} bs=1M count={mib} status=none && sirisctl dataset snapshot {ASSET}");
    let done = office.guest.run_for(SYNC, &put, b"")?;
    ensure!(done.status == Some(0), "a point: {done}");
    Ok(done.text.trim().to_owned())
}

fn refused(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    let untouched = everything(vault)?;
    let long = |count: usize| format!("vault/home/agents/{}", "x".repeat(count));
    for (arguments, said) in [
        (format!("{ASSET} nowhere"), "machine-not-found"),
        (format!("{ABSENT} vault"), "dataset-not-found"),
        (format!("tank/other/{ABSENT} vault"), "vector-refused"),
        (format!("{ASSET} vault --other {}", long(300)), "255 bytes"),
    ] {
        let text = office.guest.refused(&format!("sirisctl vector add {arguments}"))?;
        must_contain(&text, said, &arguments)?;
    }
    must_contain(&office.guest.ok("sirisctl vector list")?, "no vectors", "what came of those")?;

    let absent = add(office, &format!("tank/home/agents/{ABSENT} vault"))?;
    fails(office, &absent, "source-missing")?;
    office.guest.ok(&format!("sirisctl vector remove {absent}"))?;
    write(office, &source(), "first")?;
    office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    // The dataset's name would fit, and what a vector marks there would not.
    let deep = add(office, &format!("{ASSET} vault --other {}", long(190)))?;
    fails(office, &deep, "target-name-too-long")?;
    office.guest.ok(&format!("sirisctl vector remove {deep}"))?;
    ensure!(everything(vault)? == untouched, "something came to the target: {}", everything(vault)?);

    // Other datasets in the source are told of, and what is in the source itself is sent all the same.
    let number = add(office, &format!("{ASSET} vault"))?;
    syncs(office, &number)?;
    office.guest.ok(&format!("zfs create {}/volumes", source()))?;
    write(office, &source(), "beside")?;
    let beside = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    fails(office, &number, "children-not-sent")?;
    vault.guest.ok(&format!("zfs list {}@{beside}", target()))?;
    must_contain(&office.guest.refused(&format!("sirisctl vector verify {number}"))?, "children-not-sent", "a proof")?;
    office.guest.ok(&format!("zfs destroy -r {}/volumes", source()))?;

    // A source that was set back behind what the target has.
    syncs(office, &number)?;
    write(office, &source(), "second")?;
    let second = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    syncs(office, &number)?;
    let back = |dataset: &str| {
        format!(
            "zfs release $(zfs holds -H {dataset}@{second} | cut -f2) {dataset}@{second} && zfs rollback -r {dataset}@{beside}"
        )
    };
    office.guest.ok(&back(&source()))?;
    write(office, &source(), "third")?;
    office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let before = everything(vault)?;
    fails(office, &number, "source-rolled-back")?;
    ensure!(everything(vault)? == before, "a target that is newer was changed: {}", everything(vault)?);
    // As somebody decides who wants what the source has now.
    vault.guest.ok(&back(&target()))?;
    syncs(office, &number)?;
    must_be_equal(&two)
}

fn full(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    let mut newest = point(office, "base", 4)?;
    let vector = add(office, &format!("{ASSET} vault"))?;
    syncs(office, &vector)?;
    must_be_equal(&two)?;
    // The pool has 16 MiB left, and then what lies in it may take 16 MiB more.
    let small =
        "a=$(zfs get -Hpo value available vault) && zfs create -o refreservation=$((a - (16 << 20))) vault/filler";
    let quota = "u=$(zfs get -Hpo value used vault/home/agents) && zfs set quota=$((u + (16 << 20))) vault/home/agents";
    for (file, less, more) in
        [("one", small, "zfs destroy vault/filler"), ("two", quota, "zfs set quota=none vault/home/agents")]
    {
        vault.guest.ok(less)?;
        let (had, content) = (newest.clone(), digest(vault, &target())?);
        newest = point(office, file, 48)?;
        fails(office, &vector, "zfs-no-space")?;
        // What was there is there, what did not come is not, and on the source it cannot be lost.
        vault.guest.ok(&format!("zfs list {}@{had}", target()))?;
        vault.guest.refused(&format!("zfs list {}@{newest}", target()))?;
        ensure!(digest(vault, &target())? == content, "{had} has changed on the full target");
        office.guest.refused(&format!("zfs destroy {}@{newest}", source()))?;
        vault.guest.ok(more)?;
        syncs(office, &vector)?;
        must_be_equal(&two)?;
    }
    Ok(())
}

/// Has `zfs send` of office do to each stream what /run/zfs-harm says: `turned`, one byte is another; `short`, the rest of it is
/// missing, and nothing says so. The program itself stays as it is: another one is laid over it, which runs a copy (a second
/// mount of it would be laid over too, as mounts are shared).
const HARM: &str = "echo none > /run/zfs-harm\n\
cat > /run/zfs-harming <<'END'\n\
#!/bin/sh\n\
if [ \"$1\" = send ] && [ \"$2\" != -nP ]; then\n\
    case $(cat /run/zfs-harm) in\n\
    turned) /state/zfs-real \"$@\" | { head -c 700000; head -c 1 | LC_ALL=C tr '\\000-\\377' '\\001-\\377\\000'; cat; }; exit 0 ;;\n\
    short) /state/zfs-real \"$@\" | head -c 700000; exit 0 ;;\n\
    esac\n\
fi\n\
exec /state/zfs-real \"$@\"\n\
END\n\
chmod 755 /run/zfs-harming && zfs=$(readlink -f \"$(command -v zfs)\") && cp $zfs /state/zfs-real && \
mount --bind /run/zfs-harming $zfs && mount -o remount,bind,exec $zfs && zfs list tank >/dev/null";

fn damaged(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    point(office, "base", 4)?;
    let vector = add(office, &format!("{ASSET} vault"))?;
    syncs(office, &vector)?;
    office.guest.ok(HARM)?;

    // Much more than all the tries together get through.
    office.guest.ok("echo turned > /run/zfs-harm")?;
    let (before, content) = (everything(vault)?, digest(vault, &target())?);
    point(office, "more", 40)?;
    for harm in ["turned", "short"] {
        office.guest.ok(&format!("echo {harm} > /run/zfs-harm"))?;
        fails(office, &vector, "stream-damaged")?;
        ensure!(everything(vault)? == before, "a stream that was {harm} left something: {}", everything(vault)?);
        ensure!(digest(vault, &target())? == content, "a stream that was {harm} changed what was there");
    }
    office.guest.ok("echo none > /run/zfs-harm")?;
    syncs(office, &vector)?;
    must_be_equal(&two)?;

    // What is no stream at all, by the key's own way.
    let before = everything(vault)?;
    let ssh = format!(
        "ssh -F none -i /var/lib/siris/peers/vault.key -p {OTHER} -o BatchMode=yes -o IdentitiesOnly=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@127.0.0.1"
    );
    for (bytes, dataset) in [(100_000, target()), (100_000, "vault/home/agents/noise".to_owned()), (0, target())] {
        let request = format!("{{\"receive\":{{\"dataset\":\"{dataset}\"}}}}");
        let done = office.guest.run(&format!("head -c {bytes} /dev/urandom | {ssh} '{request}'"))?;
        ensure!(done.status == Some(1), "noise for a stream: {done}");
        must_contain(&done.text, "zfs-stream-", "noise for a stream")?;
    }
    ensure!(everything(vault)? == before, "noise left something: {}", everything(vault)?);
    Ok(())
}
