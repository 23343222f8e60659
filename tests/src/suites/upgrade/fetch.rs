//! A box fetches a bundle from a web server: by what it has, and over a connection that breaks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::{GROUP, INSTALL, bundle, watched};
use crate::case::Case;
use crate::lab::Bench;
use crate::sources::names_in;
use crate::vm::Vm;
use crate::web::{Serving, Web};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    Vec::from([Case::full(
        GROUP,
        "a box fetches of a bundle on a web server only what it lacks, and goes on where it broke off",
        fetched,
    )])
}

/// The ports of the box's own loopback that lead to the web server, for http and https.
const WEB: u16 = 8080;
const SECURE: u16 = 8443;

fn fetched(bench: &Bench<'_>) -> Result<()> {
    let manifest = bench.lab.image().manifest().context("the image has no manifest")?;
    let old = bundle(bench, &siris_ibu::Manifest::parse(manifest)?.version.to_string(), "")?;
    let new = bundle(bench, "0.9.0", &format!("--patch-from '{}'", old.display()))?;
    let files = new.parent().context("a bundle without a directory")?;
    let mut web = Web::start(bench, files)?;
    let vm = standard(bench)?;
    vm.guest.forward(WEB, web.port())?;
    let url = format!("http://127.0.0.1:{WEB}/latest.ibu");
    let install = || watched(&vm, &format!("sirisctl upgrade install {url}"), b"");

    let about = vm.guest.ok(&format!("sirisctl upgrade inspect {url}"))?;
    must_contain(&about, "siris 0.9.0", "what the bundle on the server is")?;
    let missing = vm.guest.refused(&format!("sirisctl upgrade install {}", url.replace("latest", "none")))?;
    must_contain(&missing, "bundle-not-found", "a bundle that is not there")?;

    encrypted(&vm, &web)?;

    // By the patch; without it by blocks; without these as a whole, from a server that knows no ranges too.
    let ways = [("", "as a patch"), ("from-*.patch", "block by block"), ("blocks", "as a whole")];
    for (gone, how) in ways {
        if !gone.is_empty() {
            vm.guest.ok("sirisctl upgrade mark bad other")?;
            remove(files, gone)?;
        }
        let done = install()?;
        ensure!(done.status == Some(0), "{how}: {done}");
        must_contain(&done.text, how, "how it came")?;
    }
    web.serve(Serving { no_ranges: true, ..Serving::default() })?;
    let done = install()?;
    ensure!(done.status == Some(0), "without ranges: {done}");

    // The server goes away in the middle, and comes back.
    web.serve(Serving { rate: Some(4 << 20), ..Serving::default() })?;
    vm.guest.ok(&format!("systemd-run --quiet --unit fetch --remain-after-exit sirisctl upgrade install {url}"))?;
    vm.guest.eventually(INSTALL, "busctl get-property org.siris.Agent1 /org/siris/Agent1/upgrade org.siris.Agent1.Upgrade Progress | grep -E '\\(isi\\) [2-9][0-9] '")?;
    web.stop()?;
    // Only when that was noticed: what is on its way may last for a while.
    vm.guest.eventually(INSTALL, "journalctl -o cat -u siris-upgrade | grep 'it is tried again'")?;
    web.serve(Serving::default())?;
    let over = "systemctl show -P SubState fetch | grep -q exited";
    vm.guest.eventually(INSTALL, over)?;
    let said = vm.guest.ok("journalctl -o cat -u fetch; sirisctl upgrade status")?;
    must_contain(&said, "as a whole", "the whole bundle in the end")?;
    must_contain(&said, "the next boot tries slot b", "the slots")
}

/// Over https from a server that the box trusts, and from none that it does not.
fn encrypted(vm: &Vm<'_>, web: &Web) -> Result<()> {
    vm.guest.forward(SECURE, web.secure_port())?;
    let install = format!("sirisctl upgrade install https://127.0.0.1:{SECURE}/latest.ibu");
    let refused = vm.guest.refused(&install)?;
    must_contain(&refused, "certificate", "a server that nobody vouches for")?;
    // As if an authority that the image trusts had signed it.
    let trusted = "/etc/ssl/certs/ca-certificates.crt";
    let add = format!("cat {trusted} - > /run/trusted.pem && mount --bind /run/trusted.pem {trusted}");
    let added = vm.guest.run_for(INSTALL, &add, web.certificate()?.as_bytes())?;
    ensure!(added.status == Some(0), "a certificate to trust: {added}");
    let done = watched(vm, &install, b"")?;
    ensure!(done.status == Some(0), "over https: {done}");
    must_contain(&done.text, "as a patch", "how it came over https")?;
    vm.guest.ok(&format!("umount {trusted} && sirisctl upgrade mark bad other")).map(drop)
}

fn remove(dir: &Path, pattern: &str) -> Result<()> {
    let (start, end) = pattern.split_once('*').unwrap_or(("", pattern));
    for name in names_in(dir).iter().filter(|name| name.contains(start) && name.ends_with(end)) {
        fs::remove_file(dir.join(name))?;
    }
    Ok(())
}
