//! Reboots: at once, at a time, or when nothing is running that should not be cut off.
//!
//! What should not be cut off holds an inhibitor of logind's (`systemd-inhibit --what=shutdown --mode=block`): a backup,
//! a send, a restore, a conversion. Waiting is a unit of its own, which outlives the agent.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, Time};
use zbus::{Connection, Variant, proxy};

/// The unit that waits.
pub const UNIT: &str = "siris-reboot-when-idle.service";
/// The timer that starts it at a time: the one of its name, as one that is made on the fly cannot start another.
const TIMER: &str = "siris-reboot-when-idle.timer";
/// How late the timer may be, in microseconds.
const ACCURACY: u64 = 1_000_000;
/// How often it looks.
const PERIOD: Duration = Duration::from_secs(10);

/// What, who, why, mode, user, process.
type Inhibitor = (String, String, String, String, u32, u32);

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn list_inhibitors(&self) -> zbus::Result<Vec<Inhibitor>>;
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
    fn cancel_scheduled_shutdown(&self) -> zbus::Result<bool>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: Vec<(&str, Variant<'_>)>,
        aux: Vec<(&str, Vec<(&str, Variant<'_>)>)>,
    ) -> zbus::Result<zbus::OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<zbus::OwnedObjectPath>;
}

/// When to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// When nothing holds an inhibitor.
    Idle,
    /// At a time, in seconds since the Unix epoch.
    At(u64),
    /// Not at all: what was asked for is taken back.
    Cancel,
}

/// A text that says no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time to reboot: it is now, idle, cancel, HH:MM (UTC), or as in 2026-01-31T03:00:00Z, in the future"
)]
pub struct ParseWhenError(String);

impl When {
    /// Reads a text: `now`, `idle`, `cancel`, `HH:MM` (the next one, in UTC) or a time as RFC 3339 has it.
    ///
    /// # Errors
    /// When it is none of these, or has passed.
    pub fn parse(text: &str, now: OffsetDateTime) -> Result<Self, ParseWhenError> {
        let fault = || ParseWhenError(text.to_owned());
        let at = match text {
            "now" => return Ok(When::Now),
            "idle" => return Ok(When::Idle),
            "cancel" => return Ok(When::Cancel),
            text if text.len() == 5 => {
                let (hour, minute) = text.split_once(':').ok_or_else(fault)?;
                let number = |part: &str| part.parse::<u8>().map_err(|_| fault());
                let time = Time::from_hms(number(hour)?, number(minute)?, 0).map_err(|_| fault())?;
                let on = |day: Date| day.with_time(time).assume_utc();
                let today = on(now.date());
                if today > now { today } else { on(now.date().next_day().ok_or_else(fault)?) }
            }
            text => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| fault())?,
        };
        let seconds = u64::try_from(at.unix_timestamp()).map_err(|_| fault())?;
        if at > now { Ok(When::At(seconds)) } else { Err(fault()) }
    }
}

/// Reboots then; returns what will be, in words.
///
/// # Errors
/// When logind or the service manager refuses.
pub async fn schedule(connection: &Connection, when: When) -> zbus::Result<String> {
    let (login, systemd) = (LoginProxy::new(connection).await?, SystemdProxy::new(connection).await?);
    match when {
        When::Now => {
            login.reboot(false).await?;
            Ok("rebooting".to_owned())
        }
        When::Idle => {
            systemd.start_unit(UNIT, "replace").await?;
            Ok("rebooting as soon as nothing is running that must not be cut off".to_owned())
        }
        When::At(seconds) => {
            // By a timer: logind takes no time while something is running that must not be cut off, which is over by then.
            let calendar = vec![("OnCalendar", format!("@{seconds}"))];
            let properties: Vec<(&str, Variant<'_>)> = vec![
                ("Description", "Reboot at a time".into()),
                ("TimersCalendar", Variant::from(calendar)),
                ("AccuracyUSec", ACCURACY.into()),
                ("RemainAfterElapse", false.into()),
            ];
            stop(&systemd, TIMER).await;
            systemd.start_transient_unit(TIMER, "fail", properties, Vec::new()).await?;
            Ok(format!(
                "rebooting at {}, or as soon as nothing is running then that must not be cut off",
                shown(seconds)
            ))
        }
        When::Cancel => {
            // By somebody else.
            let scheduled = login.cancel_scheduled_shutdown().await?;
            let (timed, waited) = (stop(&systemd, TIMER).await, stop(&systemd, UNIT).await);
            let is_any = scheduled || timed || waited;
            let text = if is_any { "the reboot is taken back" } else { "there was no reboot to take back" };
            Ok(text.to_owned())
        }
    }
}

/// Stops a unit; whether there was one. One that was never started is none that could be stopped.
async fn stop(systemd: &SystemdProxy<'_>, unit: &str) -> bool {
    systemd.get_unit(unit).await.is_ok() && systemd.stop_unit(unit, "replace").await.is_ok()
}

fn shown(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

/// Waits until nothing holds an inhibitor, and reboots.
///
/// # Errors
/// When logind does not answer.
pub async fn when_idle(connection: &Connection) -> zbus::Result<()> {
    let login = LoginProxy::new(connection).await?;
    let mut told = String::new();
    loop {
        let busy: Vec<String> = login.list_inhibitors().await?.into_iter().filter_map(in_the_way).collect();
        if busy.is_empty() {
            match login.reboot(false).await {
                // Somebody was faster.
                Err(error) => eprintln!("cannot reboot yet: {error}"),
                done => return done,
            }
        }
        let now = busy.join("; ");
        if now != told {
            eprintln!("waiting for {now}");
            told = now;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Who stands in the way of a reboot, and why; `None` for who does not.
fn in_the_way((what, who, why, mode, ..): Inhibitor) -> Option<String> {
    let blocks = mode.starts_with("block") && what.split(':').any(|what| what == "shutdown");
    blocks.then(|| format!("{who} ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_mean_them() {
        let now = OffsetDateTime::parse("2026-02-28T12:30:00Z", &Rfc3339).unwrap();
        let at = |text: &str| match When::parse(text, now) {
            Ok(When::At(seconds)) => shown(seconds),
            other => format!("{other:?}"),
        };
        assert_eq!(at("12:31"), "2026-02-28T12:31:00Z");
        assert_eq!(at("12:30"), "2026-03-01T12:30:00Z");
        assert_eq!(at("2026-03-01T01:00:00+01:00"), "2026-03-01T00:00:00Z");
        assert_eq!((at("now"), at("idle"), at("cancel")), ("Ok(Now)".into(), "Ok(Idle)".into(), "Ok(Cancel)".into()));
        for bad in ["", "25:00", "3:00", "noon", "2026-02-28T12:30:00Z", "1999-01-01T00:00:00Z", "12-30"] {
            assert!(When::parse(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_who_blocks_a_shutdown_is_waited_for() {
        let held = |what: &str, mode: &str| {
            in_the_way((what.to_owned(), "siris".to_owned(), "a restore".to_owned(), mode.to_owned(), 0, 1))
        };
        assert_eq!(held("sleep:shutdown", "block").as_deref(), Some("siris (a restore)"));
        assert_eq!(held("shutdown", "block-weak").as_deref(), Some("siris (a restore)"));
        assert_eq!((held("shutdown", "delay"), held("sleep", "block")), (None, None));
    }
}
