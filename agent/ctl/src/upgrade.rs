//! `sirisctl upgrade`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use siris_api::UpgradeProxy;
use zbus::proxy::CacheProperties;
use zbus::{Fd, OwnedVariant, Variant};

use crate::cli::{Remote, UpgradeCommand};
use crate::connect;
use crate::failure::Failure;
use crate::text;

/// How often a plain line tells how far it is.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs a command. File descriptors do not cross SSH: a bundle for another box is streamed to its own sirisctl.
pub async fn run(remote: &Remote, command: UpgradeCommand) -> Result<(), Failure> {
    if let (Some(host), UpgradeCommand::Install { bundle, .. } | UpgradeCommand::Inspect { bundle, .. }) =
        (&remote.host, &command)
        && url(bundle).is_none()
    {
        return stream(remote, host, bundle, &command);
    }
    let connection = connect::connect(remote).await?;
    let upgrade = UpgradeProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
    match command {
        UpgradeCommand::Inspect { bundle, json } => inspect(&upgrade, &bundle, json).await,
        UpgradeCommand::Install { bundle, allow_downgrade, reboot: when } => {
            install(&upgrade, &bundle, allow_downgrade).await?;
            after(&upgrade, when).await
        }
        UpgradeCommand::Cancel => Ok(upgrade.cancel().await?),
        UpgradeCommand::Status => status(&upgrade).await,
        UpgradeCommand::Activate { slot } => mark(&upgrade, "active", &slot).await,
        UpgradeCommand::Rollback { reboot: when } => {
            mark(&upgrade, "active", "other").await?;
            after(&upgrade, when).await
        }
        UpgradeCommand::Reboot { when } => reboot(&upgrade, &when).await,
        UpgradeCommand::Mark { state, slot } => mark(&upgrade, &state, &slot).await,
    }
}

/// The address of a bundle on a web server, which the box itself fetches.
fn url(bundle: &Path) -> Option<&str> {
    bundle.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"))
}

/// The bundle: a file, or what comes in.
fn open(bundle: &Path) -> Result<OwnedFd, Failure> {
    if bundle == Path::new("-") {
        let copy = io::stdin().as_fd().try_clone_to_owned();
        return copy.map_err(|e| Failure::local("cannot use standard input", &e));
    }
    let file = File::open(bundle).map_err(|e| Failure::local(&format!("cannot open {}", bundle.display()), &e))?;
    Ok(file.into())
}

fn stream(remote: &Remote, host: &str, bundle: &Path, command: &UpgradeCommand) -> Result<(), Failure> {
    let mut words = vec!["sirisctl".to_owned(), "upgrade".to_owned()];
    match command {
        UpgradeCommand::Install { allow_downgrade, reboot, .. } => {
            words.push("install".to_owned());
            words.extend(allow_downgrade.then(|| "--allow-downgrade".to_owned()));
            words.extend(reboot.iter().map(|when| format!("--reboot={when}")));
        }
        UpgradeCommand::Inspect { json, .. } => {
            words.push("inspect".to_owned());
            words.extend(json.then(|| "--json".to_owned()));
        }
        _ => {}
    }
    words.push("-".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, arguments) = connect::ssh_command(&remote.ssh, &remote.ssh_options, host, &words)?;
    #[allow(
        clippy::disallowed_methods,
        reason = "ssh is all that sirisctl runs, and it links nothing but the contract"
    )]
    let mut ssh = Command::new(&program);
    ssh.args(arguments).stdin(Stdio::from(open(bundle)?));
    let status = ssh.status().map_err(|e| Failure::local(&format!("cannot run {}", program.display()), &e))?;
    match status.code() {
        Some(0) => Ok(()),
        // Its last words were said on this terminal.
        Some(255) | None => {
            Err(Failure::unreachable(format!("the connection to {host} broke: the box keeps the system it runs")))
        }
        Some(code) => Err(Failure::passed_on(code)),
    }
}

async fn inspect(upgrade: &UpgradeProxy<'_>, bundle: &Path, json: bool) -> Result<(), Failure> {
    let about = match url(bundle) {
        Some(url) => upgrade.inspect_bundle(url, HashMap::new()).await?,
        None => upgrade.inspect_fd(Fd::from(open(bundle)?.as_fd()), HashMap::new()).await?,
    };
    let text = if json {
        let values: HashMap<&str, serde_json::Value> =
            about.iter().map(|(key, value)| (key.as_str(), crate::status::plain(value))).collect();
        let text = serde_json::to_string_pretty(&values).map_err(|e| Failure::local("cannot write JSON", &e))?;
        format!("{text}\n")
    } else {
        let value = |key: &str| about.get(key).map(plain).unwrap_or_default();
        let size: u64 = value("size").parse().unwrap_or_default();
        let verdict = match about.get("refused") {
            Some(why) => format!("not for this box: {}", plain(why)),
            None => "may be installed on this box".to_owned(),
        };
        format!(
            "{} {}: kernel {}, ZFS {}, {} on the disk, signed by {}\n{verdict}\n",
            value("product"),
            value("version"),
            value("kernel"),
            value("zfs"),
            text::size(size),
            value("key")
        )
    };
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

/// A value as people read it.
fn plain(value: &OwnedVariant) -> String {
    match crate::status::plain(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

async fn install(upgrade: &UpgradeProxy<'_>, bundle: &Path, allow_downgrade: bool) -> Result<(), Failure> {
    // Listened for before it begins: what is over soon is heard too.
    let mut completed = upgrade.receive_completed().await?;
    let mut options = HashMap::new();
    if allow_downgrade {
        options.insert("allow-downgrade", Variant::from(true));
    }
    match url(bundle) {
        Some(url) => upgrade.install_bundle(url, options).await?,
        None => upgrade.install_fd(Fd::from(open(bundle)?.as_fd()), options).await?,
    }
    let mut screen = Screen { told: None, terminal: io::stderr().is_terminal() };
    let mut cancelled = false;
    loop {
        let done = tokio::select! {
            done = tokio::time::timeout(Duration::from_millis(500), completed.next()) => done,
            pressed = tokio::signal::ctrl_c() => {
                pressed.map_err(|e| Failure::local("cannot wait for Ctrl-C", &e))?;
                screen.end();
                if std::mem::replace(&mut cancelled, true) {
                    return Err(Failure::unreachable("`sirisctl upgrade status` says what became of it"));
                }
                eprintln!("cancelling");
                upgrade.cancel().await?;
                continue;
            }
        };
        let (percent, what, _) = upgrade.progress().await?;
        match done {
            Err(_) => screen.show(percent, &what),
            Ok(None) => return Err(Failure::unreachable("the agent left the bus: see `sirisctl upgrade status`")),
            Ok(Some(signal)) => {
                screen.end();
                if signal.args()?.result == 0 {
                    println!("{what}");
                    return Ok(());
                }
                let error = upgrade.last_error().await?;
                let (code, text) = error.split_once(": ").unwrap_or(("upgrade-failed", &error));
                return Err(Failure::of_agent(code, text));
            }
        }
    }
}

/// A line that changes on a terminal; now and then a line elsewhere.
struct Screen {
    told: Option<Instant>,
    terminal: bool,
}

impl Screen {
    fn show(&mut self, percent: i32, what: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{percent:3} %  {what}");
        } else if self.told.is_none_or(|told| told.elapsed() >= PERIOD) {
            eprintln!("{percent:3} %  {what}");
        } else {
            return;
        }
        self.told = Some(Instant::now());
    }

    fn end(&self) {
        if self.terminal && self.told.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

async fn status(upgrade: &UpgradeProxy<'_>) -> Result<(), Failure> {
    let mut rows = vec![["SLOT", "STATE", "TRIES", "VERSION", ""].map(str::to_owned).to_vec()];
    let mut failed = String::new();
    for slot in upgrade.get_slot_status().await? {
        let detail = |key: &str| slot.details.get(key).map(plain).unwrap_or_default();
        let booted = if detail("booted") == "true" { "booted" } else { "" };
        let note = if slot.details.contains_key("error") { detail("error") } else { booted.to_owned() };
        if slot.details.contains_key("failed") {
            let (name, version, why) = (&slot.name, detail("version"), detail("failed"));
            failed += &format!("slot {name} ({version}) was tried and left again: {why}\n");
        }
        rows.push(vec![slot.name.clone(), detail("state"), detail("tries"), detail("version"), note]);
    }
    let mut out = text::table(&rows, &[2]);
    match upgrade.get_primary().await?.as_str() {
        "" => out += "no slot can be booted\n",
        slot => out += &format!("the next boot tries slot {slot}\n"),
    }
    out += &failed;
    let (percent, what, _) = upgrade.progress().await?;
    if upgrade.operation().await? == "installing" {
        out += &format!("installing: {percent} %, {what}\n");
    }
    let error = upgrade.last_error().await?;
    if !error.is_empty() {
        out += &format!("the last install failed: {error}\n");
    }
    io::stdout().write_all(out.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

async fn mark(upgrade: &UpgradeProxy<'_>, state: &str, slot: &str) -> Result<(), Failure> {
    let (name, done) = upgrade.mark(state, slot).await?;
    println!("slot {name} {done}");
    Ok(())
}

async fn after(upgrade: &UpgradeProxy<'_>, when: Option<String>) -> Result<(), Failure> {
    match when {
        Some(when) => reboot(upgrade, &when).await,
        None => Ok(()),
    }
}

async fn reboot(upgrade: &UpgradeProxy<'_>, when: &str) -> Result<(), Failure> {
    println!("{}", upgrade.reboot(when).await?);
    Ok(())
}
