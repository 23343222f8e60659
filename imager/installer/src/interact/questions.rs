//! The questions, and what is made of refusals that a person can settle on the spot.

use std::io;

use siris_zfs_label::PoolGuid;

use super::blank;
use super::console::Console;
use crate::answers::{
    Addressing, Answers, Cidr, Destroy, DiskSpec, ExpectedPool, Interface, Mac, OtherOs, Role, Static, Target,
    is_authorized_key, is_hostname,
};
use crate::facts::{Content, Disk, Facts, Health};
use crate::host::Host;
use crate::observe;
use crate::plan::who;
use crate::refusal::Refusals;
use crate::report;

/// Asks for everything; none when there is no disk to choose.
pub(super) fn answers(host: &Host, facts: &Facts, console: &mut Console<'_>) -> io::Result<Option<Answers>> {
    let Some(mut answers) = target(facts, console)? else {
        console
            .say("There is no disk that could be named: see what was found with `siris-installer inspect --json`.")?;
        return Ok(None);
    };
    answers.identity.role =
        console.choice("Role of the box", "cloud", &[("cloud", Role::Cloud), ("local", Role::Local)])?;
    let name = console.value("Host name (empty: made at first boot)", "", |text| match text {
        "" => Ok(None),
        name if is_hostname(name) && name.len() <= 64 => Ok(Some(name.to_owned())),
        _ => Err("letters, digits and hyphens, dots between labels".to_owned()),
    })?;
    answers.identity.hostname = name;
    answers.access.ssh_keys = ssh_keys(host, facts, &answers, console)?;
    network(host, console, &mut answers)?;
    Ok(Some(answers))
}

fn target(facts: &Facts, console: &mut Console<'_>) -> io::Result<Option<Answers>> {
    let disks: Vec<&Disk> = facts.disks.iter().filter(|disk| !facts.is_medium(disk)).collect();
    let named: Vec<Answers> = disks.iter().filter_map(|disk| blank(disk, facts)).collect();
    if named.is_empty() {
        return Ok(None);
    }
    let free = |disk: &&&Disk| !disk.contents().any(|(_, content)| matches!(content, Content::Zfs(_)));
    let free: Vec<&&Disk> = disks.iter().filter(free).collect();
    let default = match free[..] {
        [disk] => disk.name.to_string(),
        _ => String::new(),
    };
    let read = |text: &str| {
        let text = text.trim_start_matches("/dev/");
        let fits = |disk: &&&Disk| disk.name.as_str() == text || disk.serial.as_deref() == Some(text);
        let found: Vec<&&Disk> = disks.iter().filter(fits).collect();
        match found[..] {
            [disk] => blank(disk, facts).ok_or_else(|| "it has nothing that it could be told by".to_owned()),
            _ => Err("a name from the table above, or a serial number".to_owned()),
        }
    };
    let answers = console.value("\nDisk for the system (it is OVERWRITTEN)", &default, read)?;
    Ok(Some(answers))
}

/// Keys that the medium was started with, and those of the old system's root.
fn ssh_keys(host: &Host, facts: &Facts, answers: &Answers, console: &mut Console<'_>) -> io::Result<Vec<String>> {
    let lines = |text: String| -> Vec<String> {
        text.lines().map(str::trim).filter(|line| is_authorized_key(line)).map(str::to_owned).collect()
    };
    let mut keys = lines(host.text("/run/credentials/@system/ssh.authorized_keys.root").unwrap_or_default());
    let old = old_root(facts, answers).and_then(|(disk, at)| {
        observe::cat(&host.dev(disk.name.as_str()), at, "/root/.ssh/authorized_keys").map(lines)
    });
    if let Some(old) = old.filter(|old| !old.is_empty()) {
        let question = format!("Take over {} SSH keys of root on the old system", old.len());
        if console.choice(&question, "yes", &[("yes", true), ("no", false)])? {
            keys.extend(old);
        }
    }
    loop {
        let question = format!("Another SSH key for root ({} so far; empty: no more)", keys.len());
        match console.line(&question)?.as_str() {
            "" if keys.is_empty() => {
                console.say("  Without a key nobody gets in but by what the machine is started with (credentials).")?;
                if console.choice("  Go on without", "no", &[("yes", true), ("no", false)])? {
                    return Ok(keys);
                }
            }
            "" => break,
            key if is_authorized_key(key) => keys.push(key.to_owned()),
            _ => console.say("  a line of authorized_keys, such as `ssh-ed25519 AAAA... who`")?,
        }
    }
    keys.dedup();
    Ok(keys)
}

/// Where the old system's root lies on the target.
pub(crate) fn old_root<'a>(facts: &'a Facts, answers: &Answers) -> Option<(&'a Disk, u64)> {
    let Target::Disk(spec) = &answers.target else { return None };
    let disk = facts.disks.iter().find(|disk| spec.matches(disk))?;
    disk.old_root().map(|at| (disk, at))
}

fn network(host: &Host, console: &mut Console<'_>, answers: &mut Answers) -> io::Result<()> {
    let kinds = [("dhcp", 'd'), ("static", 's'), ("carry-over", 'c')];
    match console.choice("Network", "dhcp", &kinds)? {
        's' => {
            for port in host.names("/sys/class/net") {
                if let Some(mac) = host.text(format!("/sys/class/net/{port}/address")).filter(|_| port != "lo") {
                    let carrier = host.text(format!("/sys/class/net/{port}/carrier")).is_some_and(|up| up == "1");
                    console.say(&format!("  {port}  {mac}{}", if carrier { "  (link)" } else { "" }))?;
                }
            }
            let mac = console.value("  MAC address of the port", "", |text| {
                Mac::parse(text).ok_or_else(|| "such as 00:11:22:33:44:55".to_owned())
            })?;
            let address = console.value("  Address with prefix", "", |text| {
                Cidr::parse(text).ok_or_else(|| "such as 192.0.2.7/24".to_owned())
            })?;
            let optional = |text: &str| match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| "an address, or nothing".to_owned()),
            };
            let gateway = console.value("  Gateway (empty: none)", "", optional)?;
            let dns = console.value("  Name server (empty: none)", "", optional)?;
            let gateways = gateway.into_iter().collect();
            let addressing = Addressing { dhcp: false, addresses: vec![address], gateways, mtu: None };
            let interfaces = vec![Interface { mac, addressing }];
            answers.network.kind = Static::Given { interfaces, bonds: Vec::new(), vlans: Vec::new() };
            answers.network.dns = dns.into_iter().collect();
        }
        'c' => answers.network.kind = Static::CarryOver,
        _ => answers.network.kind = Static::Dhcp,
    }
    Ok(())
}

/// Lets a person settle what stands against the plan. Says whether anything changed.
pub(super) fn settle(
    refusals: &Refusals,
    facts: &Facts,
    answers: &mut Answers,
    console: &mut Console<'_>,
) -> io::Result<bool> {
    const SETTLED: [&str; 3] = ["other-os-undecided", "pool-degraded", "target-in-pool"];
    if refusals.0.iter().any(|refusal| !SETTLED.contains(&refusal.code)) {
        return Ok(false);
    }
    let codes = refusals.codes();
    if codes.contains(&"target-in-pool") {
        return give_up(refusals, facts, answers, console);
    }
    if codes.contains(&"other-os-undecided") {
        other_os(facts, answers, console)?;
    }
    if codes.contains(&"pool-degraded") {
        let degraded: Vec<_> = facts.pools.iter().filter(|pool| pool.health == Health::Degraded).collect();
        for pool in &degraded {
            console.say(&format!("\nPool \"{}\" is degraded: {}", pool.name, pool.faults.join("; ")))?;
            if !console.choice("Go on all the same", "no", &[("yes", true), ("no", false)])? {
                return Ok(false);
            }
        }
        let all = facts.pools.iter().filter(|pool| pool.state != siris_zfs_label::PoolState::Destroyed);
        let expected = all.map(|pool| ExpectedPool {
            name: pool.name.clone(),
            guid: Some(pool.guid),
            members: None,
            allow_degraded: pool.health == Health::Degraded,
        });
        answers.pools = Some(expected.collect());
    }
    Ok(true)
}

fn other_os(facts: &Facts, answers: &mut Answers, console: &mut Console<'_>) -> io::Result<()> {
    for disk in &facts.disks {
        let chosen = matches!(&answers.target, Target::Disk(spec) if spec.matches(disk));
        let decided = answers.other_os.iter().any(|(spec, _)| spec.matches(disk));
        let (Some(os), Some(spec)) = (disk.boots(), DiskSpec::of(disk, &facts.disks)) else { continue };
        if chosen || decided || facts.is_medium(disk) {
            continue;
        }
        console.say(&format!("\n{} can boot {os}.", who(disk)))?;
        console.say("Booted by chance, an old system takes the pool. `disable` clears its boot code.")?;
        let words = [("keep", OtherOs::Keep), ("disable", OtherOs::Disable)];
        let what = console.choice("What becomes of it", "keep", &words)?;
        answers.other_os.push((spec, what));
    }
    Ok(())
}

/// Destroying a pool takes its name and its guid, typed.
fn give_up(refusals: &Refusals, facts: &Facts, answers: &mut Answers, console: &mut Console<'_>) -> io::Result<bool> {
    for refusal in refusals.0.iter().filter(|refusal| refusal.code == "target-in-pool") {
        console.say(&format!("\n{}.", refusal.what))?;
    }
    let Target::Disk(spec) = answers.target.clone() else { return Ok(false) };
    let disk = facts.disks.iter().find(|disk| spec.matches(disk));
    let pools = disk.into_iter().flat_map(Disk::contents).filter_map(|(_, content)| match content {
        Content::Zfs(zfs) => facts.pool(zfs.pool?),
        _ => None,
    });
    let Some(pool) = pools.into_iter().find(|pool| !answers.destroy.iter().any(|d| d.guid == pool.guid)) else {
        return Ok(false);
    };
    console.say(&format!(
        "Pool: {}, {} of {} devices. To DESTROY it, type its name and its guid;",
        report::pool(pool),
        pool.members.len(),
        pool.devices
    ))?;
    console.say("anything else leaves it alone.")?;
    let name = console.line("name")?;
    if name != pool.name {
        return Ok(false);
    }
    let guid = console.line("guid")?;
    if guid.parse::<PoolGuid>() != Ok(pool.guid) {
        return Ok(false);
    }
    answers.destroy.push(Destroy { name, guid: pool.guid });
    Ok(true)
}
