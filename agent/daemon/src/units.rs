//! Follows units of the service manager: asks once, then listens. Nothing is polled.

use futures_util::StreamExt;
use std::collections::HashMap;
use zbus::names::InterfaceName;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::health::UnitFact;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// The object of a unit: every byte that is no letter or digit (nor a digit first) is `_` and two hex digits.
pub fn unit_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path += &format!("_{byte:02x}");
        }
    }
    path
}

/// Has the service manager send its signals to this connection.
///
/// # Errors
/// When there is no service manager on this bus.
pub async fn subscribe(connection: &Connection) -> zbus::Result<()> {
    connection
        .call_method(
            Some(SYSTEMD),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "Subscribe",
            &(),
        )
        .await?;
    Ok(())
}

/// One followed unit.
pub struct Watch {
    connection: Connection,
    path: String,
    signals: MessageStream,
    fact: UnitFact,
}

impl Watch {
    /// Starts to follow a unit.
    ///
    /// # Errors
    /// When the bus or the service manager refuses.
    pub async fn start(connection: &Connection, unit: &str) -> zbus::Result<Self> {
        let path = unit_path(unit);
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)
            .path(path.clone())
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .arg(0, UNIT)
            .build()?;
        // Listen first, then ask: a change in between is seen.
        let signals = MessageStream::for_match_rule(rule, connection, None).await?;
        let mut watch = Watch {
            connection: connection.clone(),
            path,
            signals,
            fact: UnitFact { active_state: "unknown".into(), has_job: false },
        };
        watch.ask().await?;
        Ok(watch)
    }

    /// What is known of the unit.
    pub fn fact(&self) -> &UnitFact {
        &self.fact
    }

    /// Waits until the unit is otherwise than it was.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn changed(&mut self) -> zbus::Result<()> {
        let before = self.fact.clone();
        while self.fact == before {
            let Some(signal) = self.signals.next().await else {
                return Err(zbus::Error::InputOutput(std::sync::Arc::new(
                    std::io::ErrorKind::ConnectionAborted.into(),
                )));
            };
            let body = signal?;
            let body = body.body();
            let (_, mut changed, invalidated): (InterfaceName<'_>, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize()?;
            if invalidated.iter().any(|p| p == "ActiveState" || p == "Job") {
                self.ask().await?;
                continue;
            }
            self.take(&mut changed);
        }
        Ok(())
    }

    async fn ask(&mut self) -> zbus::Result<()> {
        let reply = self
            .connection
            .call_method(Some(SYSTEMD), self.path.as_str(), Some("org.freedesktop.DBus.Properties"), "GetAll", &(UNIT,))
            .await?;
        let mut all: HashMap<String, OwnedVariant> = reply.body().deserialize()?;
        self.take(&mut all);
        Ok(())
    }

    fn take(&mut self, properties: &mut HashMap<String, OwnedVariant>) {
        if let Some(state) = properties.remove("ActiveState").and_then(|v| String::try_from(v).ok()) {
            self.fact.active_state = state;
        }
        if let Some((job, _)) = properties.remove("Job").and_then(|v| <(u32, OwnedObjectPath)>::try_from(v).ok()) {
            self.fact.has_job = job != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths_are_escaped_as_the_service_manager_does() {
        assert_eq!(unit_path("ssh.service"), "/org/freedesktop/systemd1/unit/ssh_2eservice");
        assert_eq!(
            unit_path("systemd-networkd.service"),
            "/org/freedesktop/systemd1/unit/systemd_2dnetworkd_2eservice"
        );
        assert_eq!(unit_path("3a@b.mount"), "/org/freedesktop/systemd1/unit/_33a_40b_2emount");
    }
}
