//! `sirisctl machine`.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;
use siris_api::{ConfigMap, ManagerProxy, Options, ReplicationProxy};
use zbus::{Connection, OwnedVariant, Variant};

use crate::cli::{MachineCommand, Remote};
use crate::connect;
use crate::failure::Failure;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MachineView {
    name: String,
    kind: String,
    host: String,
    port: u16,
    device: String,
    prefix: String,
    host_key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PeerView {
    name: String,
    device: String,
    prefix: String,
    receive: bool,
    send: bool,
    key: String,
}

#[derive(Debug, Serialize)]
struct Known {
    machines: Vec<MachineView>,
    peers: Vec<PeerView>,
}

/// Runs a command on the machines.
pub async fn run(connection: &Connection, remote: &Remote, command: MachineCommand) -> Result<(), Failure> {
    let here = ReplicationProxy::new(connection).await?;
    match command {
        MachineCommand::Add { name, address, prefix, server: true, host_key, replace, .. } => {
            let (host, port) = host_and_port(&address)?;
            let mut machine: Options<'_> = HashMap::from([
                ("kind", "server".into()),
                ("host", host.as_str().into()),
                ("port", port.into()),
                ("host-key", host_key.as_deref().unwrap_or_default().into()),
                ("prefix", prefix.as_str().into()),
            ]);
            machine.extend(in_its_place(replace));
            here.add_machine(&name, machine).await?;
            print(&format!("to be let in as root there:\n{}\n", here.own_key(&name).await?))
        }
        MachineCommand::Add { name, address, prefix, send, replace, via, device, host_key, .. } => {
            let (host, port) = host_and_port(&address)?;
            let wanted = Wanted { name: &name, host: &host, port, prefix: &prefix, replace };
            match (device, host_key) {
                (Some(device), Some(host_key)) => Ok(wanted.add(&here, &device, &host_key).await?),
                (None, Some(_)) => Err(Failure::input("--host-key goes with --device or with --server")),
                _ => {
                    let via = via.unwrap_or_else(|| format!("root@{address}"));
                    wanted.add_on_both(connection, remote, &via, send).await
                }
            }
        }
        MachineCommand::Allow { name, device, key, prefix, receive, send, replace } => {
            let peer = peer(&device, &key, &prefix, Allowed { receive, send, replace });
            let (device, host_key) = here.allow_peer(&name, peer).await?;
            print(&format!("--device {device} --host-key '{host_key}'\n"))
        }
        MachineCommand::Key { name } => print(&format!("{}\n", here.own_key(&name).await?)),
        MachineCommand::List { json } => {
            let known = known(&here).await?;
            if json {
                let text = serde_json::to_string_pretty(&known).map_err(|e| Failure::local("cannot write JSON", &e))?;
                return print(&format!("{text}\n"));
            }
            print(&table(&known))
        }
        MachineCommand::Remove { name } => Ok(here.remove_machine(&name, HashMap::new()).await?),
        MachineCommand::Forbid { name } => Ok(here.remove_peer(&name, HashMap::new()).await?),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

/// What a machine is let do, and whether whatever it was let do before.
struct Allowed {
    receive: bool,
    send: bool,
    replace: bool,
}

fn peer<'a>(device: &'a str, key: &'a str, prefix: &'a str, allowed: Allowed) -> Options<'a> {
    let Allowed { receive, send, replace } = allowed;
    let options = [
        ("device", device.into()),
        ("key", key.into()),
        ("prefix", prefix.into()),
        ("receive", receive.into()),
        ("send", send.into()),
    ];
    options.into_iter().chain(in_its_place(replace)).collect()
}

/// The option for what is to take another one's place; left out otherwise, as for an agent that does not know it.
fn in_its_place<'a>(replace: bool) -> Option<(&'a str, Variant<'a>)> {
    replace.then(|| ("replace", true.into()))
}

/// Another box that this one is to dial.
struct Wanted<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    prefix: &'a str,
    /// Whatever is known under that name is.
    replace: bool,
}

impl Wanted<'_> {
    async fn add(&self, here: &ReplicationProxy<'_>, device: &str, host_key: &str) -> zbus::Result<()> {
        let mut machine: Options<'_> = HashMap::from([
            ("kind", "device".into()),
            ("host", self.host.into()),
            ("port", self.port.into()),
            ("host-key", host_key.into()),
            ("device", device.into()),
            ("prefix", self.prefix.into()),
        ]);
        machine.extend(in_its_place(self.replace));
        here.add_machine(self.name, machine).await
    }

    /// Has this box make a key, the other one let it in, and this one know the other. Each of the three may have been done
    /// before; where the last one fails, the second is taken back: no key is let in that nothing dials with.
    async fn add_on_both(
        &self,
        connection: &Connection,
        remote: &Remote,
        via: &str,
        send: bool,
    ) -> Result<(), Failure> {
        let (manager, here) = (ManagerProxy::new(connection).await?, ReplicationProxy::new(connection).await?);
        let (own, own_name) = (manager.device_id().await?, manager.hostname().await?);
        let key = here.own_key(self.name).await?;
        let way =
            Remote { host: Some(via.to_owned()), ssh_options: remote.ssh_options.clone(), ssh: remote.ssh.clone() };
        let bus = connect::connect(&way).await?;
        let there = ReplicationProxy::new(&bus).await?;
        let was_known = there.list_peers().await?.into_iter().any(|(name, _)| name == own_name);
        let allowed = Allowed { receive: true, send, replace: self.replace };
        let (device, host_key) = there.allow_peer(&own_name, peer(&own, &key, self.prefix, allowed)).await?;
        let Err(error) = self.add(&here, &device, &host_key).await else { return Ok(()) };
        let failure = Failure::from(error);
        if was_known {
            return Err(failure);
        }
        match there.remove_peer(&own_name, HashMap::new()).await {
            Ok(()) => Err(failure),
            Err(undo) => Err(failure.and(&format!(
                "; and {via} still lets this box in: {}; say `machine forbid {own_name}` there",
                Failure::from(undo)
            ))),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`, or an address with colons in it.
fn host_and_port(address: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::input(format!("\"{address}\" is not HOST or HOST:PORT"));
    let (host, port) = match address.strip_prefix('[').map(|rest| rest.split_once(']').ok_or_else(wrong)) {
        Some(parts) => {
            let (host, rest) = parts?;
            (host, rest.strip_prefix(':').or(Some("").filter(|_| rest.is_empty())).ok_or_else(wrong)?)
        }
        None if address.matches(':').count() > 1 => (address, ""),
        None => address.split_once(':').map_or((address, ""), |(host, port)| (host, port)),
    };
    let port = if port.is_empty() { 22 } else { port.parse().map_err(|_| wrong())? };
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

fn value<T: TryFrom<OwnedVariant>>(details: &mut ConfigMap, key: &str) -> Result<T, Failure> {
    let value = details.remove(key).and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| Failure::unreachable(format!("the agent does not say {key} of a machine")))
}

async fn known(here: &ReplicationProxy<'_>) -> Result<Known, Failure> {
    let machine = |(name, mut details): (String, ConfigMap)| {
        Ok::<_, Failure>(MachineView {
            name,
            kind: value(&mut details, "kind")?,
            host: value(&mut details, "host")?,
            port: value(&mut details, "port")?,
            device: value(&mut details, "device")?,
            prefix: value(&mut details, "prefix")?,
            host_key: value(&mut details, "host-key")?,
        })
    };
    let peer = |(name, mut details): (String, ConfigMap)| {
        Ok::<_, Failure>(PeerView {
            name,
            device: value(&mut details, "device")?,
            prefix: value(&mut details, "prefix")?,
            receive: value(&mut details, "receive")?,
            send: value(&mut details, "send")?,
            key: value(&mut details, "key")?,
        })
    };
    Ok(Known {
        machines: here.list_machines().await?.into_iter().map(machine).collect::<Result<_, _>>()?,
        peers: here.list_peers().await?.into_iter().map(peer).collect::<Result<_, _>>()?,
    })
}

fn table(known: &Known) -> String {
    let mut text = String::new();
    if known.machines.is_empty() {
        text += "  This box dials no machine.\n";
    } else {
        let mut rows = vec![["  DIALS", "ADDRESS", "THERE BELOW"].map(str::to_owned).to_vec()];
        rows.extend(known.machines.iter().map(|m| {
            let host = if m.host.contains(':') { format!("[{}]", m.host) } else { m.host.clone() };
            vec![format!("  {}", m.name), format!("{host}:{}", m.port), m.prefix.clone()]
        }));
        text += &text::table(&rows, &[]);
    }
    if known.peers.is_empty() {
        text += "  No machine may dial this box.\n";
    } else {
        let mut rows = vec![["  IS DIALLED BY", "MAY", "HERE BELOW"].map(str::to_owned).to_vec()];
        rows.extend(known.peers.iter().map(|p| {
            let may = match (p.receive, p.send) {
                (true, true) => "send and fetch",
                (true, false) => "send",
                _ => "fetch",
            };
            vec![format!("  {}", p.name), may.to_owned(), p.prefix.clone()]
        }));
        text += &text::table(&rows, &[]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (address, host, port) in [
            ("box.example", "box.example", 22),
            ("box.example:2222", "box.example", 2222),
            ("2001:db8::1", "2001:db8::1", 22),
            ("[2001:db8::1]:2222", "2001:db8::1", 2222),
            ("[2001:db8::1]", "2001:db8::1", 22),
        ] {
            assert_eq!(host_and_port(address).unwrap(), (host.to_owned(), port), "{address}");
        }
        for bad in ["", ":22", "box:port", "box:99999", "[2001:db8::1", "[2001:db8::1]x"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
