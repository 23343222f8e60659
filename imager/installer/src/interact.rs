//! The install that a person is asked for: on a serial line or a BMC's screen, plain text, one question at a time.
//!
//! In: lines; out: text of at most 79 columns. Owns nothing but the questions: what stands against a choice is said by
//! the plan, as it is for answers from a file. Nothing is written here.

mod console;
mod questions;

use std::io::{self, BufRead, Write};

use crate::answers::{
    Access, Answers, DeviceId, DiskSpec, End, HostIdChoice, Identity, Mode, Network, Role, Static, Target,
};
use crate::facts::{Disk, Facts};
use crate::host::Host;
use crate::plan::Plan;
use crate::refusal::Refusals;
use crate::report;
use crate::run::{self, InstallError, Prepared, Seen};

use console::Console;

/// How it ended.
#[derive(Debug)]
pub enum Chosen {
    /// A person has confirmed this.
    Install(Box<Prepared>),
    /// A person went away.
    Nothing,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum InteractError {
    /// The console is gone.
    #[error("nothing was written: the console is gone")]
    Console(#[from] io::Error),
    /// There is nothing to ask about.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// Asks until a plan is confirmed, or a person has had enough (`q`, or the end of the input).
///
/// # Errors
/// When the console fails, or the machine or the payload cannot be looked at.
pub fn ask(host: &Host, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<Chosen, InteractError> {
    let mut console = Console::new(input, output);
    match conversation(host, &mut console) {
        Err(InteractError::Console(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Chosen::Nothing),
        result => result,
    }
}

fn conversation(host: &Host, console: &mut Console<'_>) -> Result<Chosen, InteractError> {
    loop {
        let seen = run::look(host)?;
        console.say(&format!("\nSIRIS installer: {} {}", seen.image.manifest.product, seen.image.manifest.version))?;
        console.say("Nothing is written before you have confirmed a plan. `q` ends at any time.\n")?;
        console.pages(&(report::table(&seen.facts) + &report::recommendation(&seen.facts)))?;
        let Some(mut answers) = questions::answers(host, &seen.facts, console)? else { return Ok(Chosen::Nothing) };
        let plan = loop {
            match seen.plan(host, &mut answers, run::new_id()) {
                Ok(plan) => break Some(plan),
                Err(refusals) => {
                    if !questions::settle(&refusals, &seen.facts, &mut answers, console)? {
                        console.pages(&refused(&refusals))?;
                        break None;
                    }
                }
            }
        };
        let Some(plan) = plan else {
            console.line("Enter to start again")?;
            continue;
        };
        console.say("")?;
        console.pages(&plan.to_string())?;
        if confirm(console, &plan)? {
            let Seen { facts, signed, .. } = seen;
            return Ok(Chosen::Install(Box::new(Prepared { facts, plan, signed, answers })));
        }
        console.say("Not confirmed: nothing was written.")?;
    }
}

fn refused(refusals: &Refusals) -> String {
    let mut text = String::from("\nThis cannot be done; nothing was written:\n");
    for refusal in &refusals.0 {
        text += &format!("- {} ({})\n  {}\n", refusal.what, refusal.code, refusal.todo);
    }
    text
}

/// Every disk that gets the system is confirmed by what tells it from all others.
fn confirm(console: &mut Console<'_>, plan: &Plan) -> io::Result<bool> {
    for target in &plan.targets {
        let (disk, identity) = (&target.disk, &target.identity);
        console.say(&format!("\n/dev/{disk} will be overwritten. To confirm, type its serial number ({identity})."))?;
        if console.line("serial number")? != *identity {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers of a person who has said nothing yet, for one disk.
fn blank(target: &Disk, facts: &Facts) -> Option<Answers> {
    Some(Answers {
        id: None,
        mode: Mode::OsOnly,
        end: End::Reboot,
        target: Target::Disk(DiskSpec::of(target, &facts.disks)?),
        mirror: None,
        slot_size: None,
        keep: Vec::new(),
        wipe_stale: false,
        pools: None,
        destroy: Vec::new(),
        other_os_default: None,
        other_os: Vec::new(),
        identity: Identity {
            role: Role::Cloud,
            hostname: None,
            device_id: DeviceId::Restore,
            timezone: None,
            hostid: HostIdChoice::Carry,
        },
        access: Access::default(),
        network: Network { kind: Static::Dhcp, dns: Vec::new(), ntp: Vec::new() },
        new_pool: None,
    })
}

#[cfg(test)]
mod tests;
