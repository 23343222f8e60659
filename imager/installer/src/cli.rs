//! The command line.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use siris_host::cmd::{Cmd, Tool};
use siris_installer::answers::{Answers, AnswersError, End};
use siris_installer::facts::Facts;
use siris_installer::host::Host;
use siris_installer::interact::{self, Chosen, InteractError};
use siris_installer::observe::observe;
use siris_installer::refusal::Refusals;
use siris_installer::run::{self, Finished, InstallError, Preparation, Stop};
use siris_installer::{find, receipt, report};

use crate::screen::Screen;

const EXIT_CODES: &str = "Exit status:
  0  done
  1  failed; the message says whether anything was written
  2  the command line is wrong
  3  refused: nothing was written, each reason is said with its code
  4  the answers are faulty: nothing was written
  5  broken off after the first write: run the installer again to complete it
  6  the system is written, but the proof that no other disk was does not hold
  7  this install was finished before: nothing was written
  8  stopped before the first write";

/// Puts the running OS onto a disk of this machine, and proves that it touched no other.
#[derive(Debug, Parser)]
#[command(name = "siris-installer", version, after_help = EXIT_CODES)]
struct Cli {
    /// Where the machine's files are.
    #[arg(long, global = true, hide = true, default_value = "/")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows every disk, and what is on it. Changes nothing.
    Inspect {
        /// As JSON, with everything that is known.
        #[arg(long)]
        json: bool,
    },
    /// Shows what an install would do. Changes nothing.
    Plan {
        #[command(flatten)]
        given: Given,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Installs. Without answers on the medium, on one labelled SIRISCFG or in a credential, it asks.
    Install {
        #[command(flatten)]
        given: Given,
        /// Show the plan and end.
        #[arg(long)]
        dry_run: bool,
        /// Do it once more, even if this very install was finished before.
        #[arg(long)]
        again: bool,
        /// Do not reboot or switch off, whatever the answers say.
        #[arg(long)]
        stay: bool,
        /// Ask nobody: without answers, end.
        #[arg(long)]
        unattended: bool,
        /// How long disks that are missing are waited for, where answers were given.
        #[arg(long, value_name = "SECONDS", default_value_t = 15)]
        wait: u64,
    },
    /// Writes the manual page, siris-installer(8), into a directory.
    #[command(hide = true)]
    Man {
        /// Where to.
        dir: PathBuf,
    },
    /// Proves that a receipt was signed by the key it names, and was not changed since.
    VerifyReceipt {
        /// The receipt.
        file: PathBuf,
        /// Public key of the box, in hexadecimal: no other will do.
        #[arg(long)]
        key: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Given {
    /// Answers to use, whatever others there are.
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
}

/// Runs; every error is printed here, once.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("siris-installer: {error:#}");
            ExitCode::from(status(&error))
        }
    }
}

fn status(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<AnswersError>().is_some() {
        return 4;
    }
    let install = error.downcast_ref::<InstallError>().or_else(|| match error.downcast_ref::<InteractError>() {
        Some(InteractError::Install(error)) => Some(error),
        _ => None,
    });
    match install {
        Some(InstallError::Refused(_)) => 3,
        Some(InstallError::Incomplete { .. }) => 5,
        Some(InstallError::Prove(_)) => 6,
        Some(InstallError::StoppedBefore) => 8,
        _ => 1,
    }
}

fn run(cli: &Cli) -> anyhow::Result<u8> {
    let host = Host::new(&cli.root);
    if host.is_machine() && !matches!(cli.command, Command::VerifyReceipt { .. } | Command::Man { .. }) {
        // Links and serial numbers are udev's. A device that never settles is no reason not to go on without it.
        let _ = Cmd::new(Tool::Udevadm).args(["settle", "--timeout=60"]).run();
    }
    match &cli.command {
        Command::Inspect { json } => inspect(&observe(&host)?, *json),
        Command::Plan { given, json } => show_plan(&host, given, *json),
        Command::Install { given, dry_run: true, .. } => show_plan(&host, given, false),
        Command::Install { given, again, stay, unattended, wait, .. } => match answers(&host, given)? {
            Some(answers) => install(&host, &answers, *again, *stay, Duration::from_secs(*wait)),
            None if *unattended => {
                println!("there are no answers: nothing was written");
                Ok(8)
            }
            None => interactive(&host, *stay),
        },
        Command::Man { dir } => man(dir),
        Command::VerifyReceipt { file, key } => verify(file, key.as_deref()),
    }
}

fn man(dir: &std::path::Path) -> anyhow::Result<u8> {
    let page = clap_mangen::Man::new(Cli::command()).section("8");
    let path = dir.join("siris-installer.8");
    let mut text = Vec::new();
    page.render(&mut text).context("cannot make the manual page")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(0)
}

fn inspect(facts: &Facts, json: bool) -> anyhow::Result<u8> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(facts)?),
        false => print!("{}{}", report::table(facts), report::recommendation(facts)),
    }
    Ok(0)
}

/// The answers, and the bytes they were read from.
fn answers(host: &Host, given: &Given) -> anyhow::Result<Option<(Answers, Vec<u8>)>> {
    let found = match &given.answers {
        Some(path) => Some((
            path.display().to_string(),
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        )),
        None => find::answers(host)?,
    };
    let Some((from, bytes)) = found else { return Ok(None) };
    let answers = Answers::parse(&bytes).with_context(|| format!("the answers of {from}"))?;
    eprintln!("answers: {from}");
    Ok(Some((answers, bytes)))
}

fn show_plan(host: &Host, given: &Given, json: bool) -> anyhow::Result<u8> {
    let (answers, bytes) = answers(host, given)?.context("there are no answers to plan for: pass --answers FILE")?;
    let prepared = run::prepare(host, &answers, &bytes, false);
    if let (true, Err(InstallError::Refused(refusals))) = (json, &prepared) {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "refusals": refusals }))?);
        return Ok(3);
    }
    match prepared? {
        Preparation::AlreadyThere { disk, id } => already(disk.as_str(), id.as_str()),
        Preparation::Ready(prepared) => {
            match json {
                true => println!("{}", serde_json::to_string_pretty(&prepared.plan)?),
                false => print!("{}", prepared.plan),
            }
            Ok(0)
        }
    }
}

fn already(disk: &str, id: &str) -> anyhow::Result<u8> {
    println!("this install ({id}) was finished before, on /dev/{disk}: nothing to do (--again does it once more)");
    Ok(7)
}

/// How often an unattended install starts over because a disk came late.
const TRIES: u32 = 5;

fn install(
    host: &Host,
    (answers, bytes): &(Answers, Vec<u8>),
    again: bool,
    stay: bool,
    wait: Duration,
) -> anyhow::Result<u8> {
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let (begin, mut left, mut screen) = (Instant::now(), TRIES, Screen::new());
    loop {
        let prepared = match run::prepare(host, answers, bytes, again) {
            Err(InstallError::Refused(refusals)) if begin.elapsed() < wait && may_pass(&refusals) => {
                if stop.wanted() {
                    return Err(InstallError::StoppedBefore.into());
                }
                sleep(Duration::from_secs(3));
                continue;
            }
            prepared => prepared?,
        };
        let prepared = match prepared {
            Preparation::AlreadyThere { disk, id } => return already(disk.as_str(), id.as_str()),
            Preparation::Ready(prepared) => prepared,
        };
        print!("{}", prepared.plan);
        left -= 1;
        match run::execute(host, &prepared, &mut screen, &stop) {
            Err(error) if left > 0 && error.code() == "machine-changed" => eprintln!("{error}\nlooking again"),
            Err(error) => return Err(error.into()),
            Ok(finished) => return conclude(&finished, prepared.plan.end, stay),
        }
    }
}

/// Whether a disk that comes late would settle all of it.
fn may_pass(refusals: &Refusals) -> bool {
    const LATE: [&str; 5] = ["pool-incomplete", "pool-degraded", "pool-unknown", "pool-members", "target-not-found"];
    refusals.codes().iter().all(|code| LATE.contains(code))
}

fn interactive(host: &Host, stay: bool) -> anyhow::Result<u8> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let chosen = interact::ask(host, &mut stdin.lock(), &mut stdout.lock())?;
    let Chosen::Install(prepared) = chosen else {
        println!("nothing was written");
        return Ok(8);
    };
    // Only now: while questions are asked, Ctrl-C simply ends.
    let stop = Stop::on_signals().context("cannot watch for signals")?;
    let finished = run::execute(host, &prepared, &mut Screen::new(), &stop)?;
    conclude(&finished, prepared.plan.end, stay)
}

fn conclude(finished: &Finished, end: End, stay: bool) -> anyhow::Result<u8> {
    let code = finish(finished);
    if code == 0 && !stay {
        self::end(end)?;
    }
    Ok(code)
}

fn finish(finished: &Finished) -> u8 {
    let Finished { proof, key, .. } = finished;
    let count = proof.disks.len() + proof.appeared.len();
    match proof.holds {
        true => println!("proven: not one sector was written to any other disk since boot (looked at: {count})"),
        false => {
            println!("THE PROOF DOES NOT HOLD. Do not boot before this is understood:");
            proof.failures.iter().for_each(|failure| println!("  {failure}"));
        }
    }
    println!("receipt: signed by key {key}, stored on the new system ({})", siris_installer::state::RECEIPT);
    if proof.holds { 0 } else { 6 }
}

fn end(end: End) -> anyhow::Result<()> {
    let verb = match end {
        End::Stay => return Ok(()),
        End::Poweroff => "poweroff",
        End::Reboot | End::Eject => "reboot",
    };
    if end == End::Eject && Cmd::new(Tool::Eject).run().is_err() {
        eprintln!("the medium could not be ejected: take it out by hand");
    }
    println!("{verb}");
    Cmd::new(Tool::Systemctl).arg(verb).run().context("the install is done, but the machine does not go down")
}

fn verify(file: &std::path::Path, key: Option<&str>) -> anyhow::Result<u8> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let verified = receipt::verify(&bytes, key)?;
    println!("install {}: signed by key {}", verified.install, verified.key);
    if key.is_none() {
        println!("compare the key with the one the box shows, or pass it with --key");
    }
    match verified.holds {
        true => println!("the proof holds"),
        false => println!("the proof DOES NOT hold"),
    }
    Ok(if verified.holds { 0 } else { 6 })
}
