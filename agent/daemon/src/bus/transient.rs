//! Units that live as long as their work: the agent's own program, as a process apart, with the rights that it needs.

use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::{AsFd, OwnedFd};

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use zbus::{Connection, Fd, Variant};

const PROGRAM: &str = "/usr/libexec/siris/siris-agent";

/// A property of a unit: its name and value.
type Property<'a> = (&'a str, Variant<'a>);

/// Whether a worker may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// Not at all.
    None,
    /// Any.
    Internet,
}

/// Which devices a worker may open, beside the harmless ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Devices {
    /// ZFS.
    Zfs,
    /// ZFS and disks.
    Disks,
}

/// A worker to be.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    /// Its unit: there is one of that name at a time.
    pub(super) name: &'a str,
    /// What it does, in words.
    pub(super) description: &'a str,
    /// Arguments of the agent's program.
    pub(super) arguments: Vec<&'a str>,
    /// Whether it may use the network.
    pub(super) network: Network,
    /// Which devices it may open.
    pub(super) devices: Devices,
    /// The one directory of the system's that it may write to; it need not be there.
    pub(super) writes: Option<&'a str>,
}

impl Unit<'_> {
    /// Starts it with these as standard input and output; what it says beside goes to the journal.
    ///
    /// # Errors
    /// When the service manager refuses: one of that name is running, say.
    pub(super) async fn start(self, connection: &Connection, input: &OwnedFd, output: &OwnedFd) -> zbus::Result<()> {
        let arguments: Vec<&str> = [PROGRAM].into_iter().chain(self.arguments).collect();
        let mut devices = vec![("/dev/zfs", "rw")];
        if self.devices == Devices::Disks {
            devices.push(("block-*", "rw"));
        }
        let mut properties: Vec<Property<'_>> = vec![
            ("Description", self.description.into()),
            ("Type", "exec".into()),
            ("ExecStart", Variant::from(vec![(PROGRAM, arguments, false)])),
            ("StandardInputFileDescriptor", Variant::from(Fd::from(input.as_fd()))),
            ("StandardOutputFileDescriptor", Variant::from(Fd::from(output.as_fd()))),
            // Named for its own sake, not used: where both are named alike, the manager has errors go where the output goes.
            ("StandardOutput", "null".into()),
            ("StandardError", "journal".into()),
            ("CollectMode", "inactive-or-failed".into()),
            // A box at work goes first.
            ("Nice", 10i32.into()),
            ("ProtectSystem", "strict".into()),
            ("ProtectHome", "yes".into()),
            ("PrivateTmp", true.into()),
            ("NoNewPrivileges", true.into()),
            ("DevicePolicy", "closed".into()),
            ("DeviceAllow", Variant::from(devices)),
        ];
        if let Some(path) = self.writes {
            properties.push(("ReadWritePaths", Variant::from(vec![format!("-{path}")])));
        }
        match self.network {
            Network::None => properties.push(("PrivateNetwork", true.into())),
            Network::Internet => {
                let families = (true, vec!["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]);
                properties.push(("RestrictAddressFamilies", Variant::from(families)));
            }
        }
        let none: Vec<(&str, Vec<Property<'_>>)> = Vec::new();
        manager(connection, "StartTransientUnit", &(self.name, "fail", properties, none)).await
    }
}

/// What a worker says, line by line, as JSON; the channel ends when the worker does.
pub(super) fn lines<T: DeserializeOwned + Send + 'static>(said: PipeReader) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            let Ok(said) = serde_json::from_str(&line) else { continue };
            if sender.blocking_send(said).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Calls a method of the service manager's.
pub(super) async fn manager<B>(connection: &Connection, method: &str, arguments: &B) -> zbus::Result<()>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    let (name, path) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1");
    let interface = Some("org.freedesktop.systemd1.Manager");
    connection.call_method(Some(name), path, interface, method, arguments).await.map(drop)
}
