//! `org.siris.Agent1.Replication`: machines, their keys, and new vectors.

use std::sync::Arc;

use siris_api::{ConfigMap, Details, ErrorCode, REPLICATION_ACTION};
use siris_zfs::{DatasetName, Label};
use uuid::Uuid;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use crate::agent::Agent;
use crate::bus::dataset::find;
use crate::bus::options::{Options, flag, number, only, text};
use crate::bus::vectors::{AT_ONCE_MAX, Vectors, unusable};
use crate::bus::{Authority, Failure};
use crate::datasets::asset::AssetId;
use crate::datasets::asset_of;
use crate::store::{Store, StoreError};
use crate::vectors::aside;
use crate::vectors::keys::{self, KeyError};
use crate::vectors::limit::Limits;
use crate::vectors::peer::Rights;
use crate::vectors::record::{
    Direction, FarPath, FarPathError, Machine, MachineKind, Mode, Name, Peer, Priority, Tier, Vector, stand_in,
};
use crate::vectors::remote::Address;
use crate::vectors::schedule::Schedule;

/// The port of SSH.
const PORT: u16 = 22;

/// The object.
pub struct ReplicationObject {
    agent: Arc<Agent>,
    authority: Authority,
    vectors: Vectors,
}

impl ReplicationObject {
    /// The object over this agent and these vectors.
    pub fn new(agent: Arc<Agent>, authority: Authority, vectors: Vectors) -> Self {
        ReplicationObject { agent, authority, vectors }
    }

    async fn allowed(&self, connection: &Connection, call: &Header<'_>) -> Result<(), Failure> {
        self.authority.check(connection, call, REPLICATION_ACTION).await
    }

    /// Reads the records, on a thread of its own; the default where there are none.
    async fn read<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let agent = self.agent.clone();
        let read = move || Store::read(&agent.root)?.map_or_else(|| Ok(T::default()), |store| work(&store));
        let done = tokio::task::spawn_blocking(read).await;
        done.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?.map_err(|error| unusable(&error))
    }
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::MachineRefused, why.to_string())
}

fn known_otherwise(name: &Name) -> Failure {
    refused(format!("{name} is known here and is another: to put this in its place, say --replace"))
}

fn key_failure(error: &KeyError) -> Failure {
    let code = if matches!(error, KeyError::NoKey) { ErrorCode::MachineRefused } else { ErrorCode::RecordsUnusable };
    Failure::new(code, crate::chain(error))
}

fn record_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Exists(_) | StoreError::Another(_) => ErrorCode::MachineRefused,
        StoreError::Missing(_) => ErrorCode::MachineNotFound,
        StoreError::InUse(_) => ErrorCode::MachineInUse,
        StoreError::Database { .. } | StoreError::Row(_) => ErrorCode::RecordsUnusable,
    };
    Failure::new(code, crate::chain(error))
}

fn name(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(refused)
}

/// An option that has to be there, parsed.
fn needed<T: std::str::FromStr<Err: std::fmt::Display>>(options: &Options, key: &str) -> Result<T, Failure> {
    let value = text(options, key)?.ok_or_else(|| refused(format!("{key} is missing")))?;
    value.parse().map_err(|error| refused(format!("{key}: {error}")))
}

fn port(options: &Options) -> Result<u16, Failure> {
    let Some(value) = options.get("port") else { return Ok(PORT) };
    let port = u16::try_from(value.clone()).ok().filter(|port| *port > 0);
    port.ok_or_else(|| refused("port: a number from 1 to 65535, of type q"))
}

/// A host as SSH takes it behind `--`: no user, no port, nothing that could be read as something else.
fn host(options: &Options) -> Result<String, Failure> {
    let host: String = needed(options, "host")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(fits) {
        return Err(refused(format!("\"{host}\" is no host name or address")));
    }
    Ok(host)
}

fn machine(name: Name, options: &Options) -> Result<Machine, Failure> {
    only(options, &["kind", "host", "port", "host-key", "device", "prefix", "replace"])?;
    let kind: MachineKind = needed(options, "kind")?;
    let host_key = keys::parse(&needed::<String>(options, "host-key")?).map_err(|error| key_failure(&error))?;
    Ok(Machine {
        name,
        kind,
        device: match kind {
            MachineKind::Device => Some(needed(options, "device")?),
            MachineKind::Server => None,
        },
        address: Address { host: host(options)?, port: port(options)?, host_key },
        prefix: needed(options, "prefix")?,
    })
}

fn peer(name: Name, options: &Options) -> Result<Peer, Failure> {
    only(options, &["device", "key", "prefix", "receive", "send", "replace"])?;
    let key = keys::parse(&needed::<String>(options, "key")?).map_err(|error| key_failure(&error))?;
    let (may_receive, may_send) = (flag(options, "receive")?, flag(options, "send")?);
    if !may_receive && !may_send {
        return Err(refused("neither receive nor send: such a key is for nothing"));
    }
    let device: Uuid = needed(options, "device")?;
    Ok(Peer { name, key, rights: Rights { device, prefix: needed(options, "prefix")?, may_receive, may_send } })
}

fn details<const N: usize>(pairs: [(&str, Variant<'_>); N]) -> ConfigMap {
    let owned = |(key, value): (&str, Variant<'_>)| Some((key.to_owned(), OwnedVariant::try_from(value).ok()?));
    pairs.into_iter().filter_map(owned).collect()
}

#[zbus::interface(name = "org.siris.Agent1.Replication", introspection_docs = false)]
impl ReplicationObject {
    #[zbus(property)]
    fn at_once(&self) -> u32 {
        self.vectors.at_once()
    }

    async fn configure(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Failure> {
        only(&options, &["at-once"])?;
        let count = number(&options, "at-once")?.filter(|count| (1..=AT_ONCE_MAX).contains(count));
        let count = count.ok_or_else(|| {
            Failure::new(ErrorCode::VectorRefused, format!("at-once: 1 to {AT_ONCE_MAX} vectors sync at once"))
        })?;
        self.allowed(connection, &call).await?;
        self.vectors.store(move |_, store| store.set_at_once(count).map_err(|error| unusable(&error))).await?;
        self.vectors.set_at_once(count);
        self.at_once_changed(&emitter).await.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
    }

    #[zbus(out_args("key"))]
    async fn own_key(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        name: &str,
    ) -> Result<String, Failure> {
        let name = self::name(name)?;
        self.allowed(connection, &call).await?;
        let agent = self.agent.clone();
        let made = tokio::task::spawn_blocking(move || keys::ensure(&agent.root, &name)).await;
        let made = made.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        made.map_err(|error| key_failure(&error))
    }

    async fn add_machine(
        &self,
        name: &str,
        machine: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        let replace = flag(&machine, "replace")?;
        let machine = self::machine(self::name(name)?, &machine)?;
        self.allowed(connection, &call).await?;
        let add = move |agent: &Agent, store: Store| {
            keys::ensure(&agent.root, &machine.name).map_err(|error| key_failure(&error))?;
            let all = store.machines().map_err(|error| record_failure(&error))?;
            let kept = match all.iter().find(|kept| kept.name == machine.name) {
                // Said once more, as by whom the first answer did not reach.
                Some(kept) if *kept == machine => Ok(()),
                Some(_) if replace => store.replace_machine(&machine),
                Some(kept) => return Err(known_otherwise(&kept.name)),
                None => store.add_machine(&machine),
            };
            kept.map_err(|error| record_failure(&error))
        };
        self.vectors.store(add).await
    }

    async fn remove_machine(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        let name = self::name(name)?;
        self.allowed(connection, &call).await?;
        let remove = move |agent: &Agent, store: Store| {
            store.remove_machine(name.as_str()).map_err(|error| record_failure(&error))?;
            keys::remove(&agent.root, &name).map_err(|error| key_failure(&error.into()))
        };
        self.vectors.store(remove).await
    }

    #[zbus(out_args("machines"))]
    async fn list_machines(&self) -> Result<Details, Failure> {
        let machines = self.read(Store::machines).await?;
        let shown = |Machine { name, kind, device, address, prefix }: Machine| {
            let details = details([
                ("kind", kind.as_str().into()),
                ("host", address.host.into()),
                ("port", address.port.into()),
                ("host-key", address.host_key.into()),
                ("device", device.map(|device| device.to_string()).unwrap_or_default().into()),
                ("prefix", prefix.to_string().into()),
            ]);
            (name.to_string(), details)
        };
        Ok(machines.into_iter().map(shown).collect())
    }

    #[zbus(out_args("device", "host-key"))]
    async fn allow_peer(
        &self,
        name: &str,
        peer: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, String), Failure> {
        let replace = flag(&peer, "replace")?;
        let peer = self::peer(self::name(name)?, &peer)?;
        self.allowed(connection, &call).await?;
        let device = self.agent.device_id.to_string();
        let allow = move |agent: &Agent, store: Store| {
            let host_key = keys::host_key(&agent.root).map_err(|error| key_failure(&error))?;
            let all = store.peers().map_err(|error| record_failure(&error))?;
            let kept = match all.iter().find(|kept| kept.name == peer.name) {
                Some(kept) if *kept == peer => Ok(()),
                Some(_) if replace => store.replace_peer(&peer),
                Some(kept) => return Err(known_otherwise(&kept.name)),
                None => store.add_peer(&peer),
            };
            kept.map_err(|error| record_failure(&error))?;
            authorize(agent, &store)?;
            Ok(host_key)
        };
        Ok((device, self.vectors.store(allow).await?))
    }

    async fn remove_peer(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        let name = self::name(name)?;
        self.allowed(connection, &call).await?;
        let remove = move |agent: &Agent, store: Store| {
            store.remove_peer(name.as_str()).map_err(|error| record_failure(&error))?;
            authorize(agent, &store)
        };
        self.vectors.store(remove).await
    }

    #[zbus(out_args("peers"))]
    async fn list_peers(&self) -> Result<Details, Failure> {
        let peers = self.read(Store::peers).await?;
        let shown = |Peer { name, key, rights }: Peer| {
            let details = details([
                ("device", rights.device.to_string().into()),
                ("key", key.into()),
                ("prefix", rights.prefix.to_string().into()),
                ("receive", rights.may_receive.into()),
                ("send", rights.may_send.into()),
            ]);
            (name.to_string(), details)
        };
        Ok(peers.into_iter().map(shown).collect())
    }

    #[zbus(out_args("path"))]
    async fn add_vector(
        &self,
        vector: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Failure> {
        let asked = vector;
        only(&asked, &["dataset", "machine", "from", "direction", "other", "tier", "mode", "path"])?;
        self.allowed(connection, &call).await?;
        let machine: Name = needed(&asked, "machine").map_err(as_vector)?;
        let direction = wanted(&asked, "direction", Direction::Push)?;
        let from = self.from(&asked, direction).await?;
        let dataset: String = needed(&asked, "dataset").map_err(as_vector)?;
        // Of a relay it lies elsewhere, and is not looked for here.
        let here = match &from {
            Some(from) if dataset.parse::<Uuid>().is_ok() => self.dataset(&format!("{}/{dataset}", from.prefix))?,
            _ => self.dataset(&dataset)?,
        };
        let from = from.map(|from| from.name);
        let tier = wanted(&asked, "tier", Tier::Primary)?;
        let path = path(&asked)?;
        let other = text(&asked, "other")?.map(|other| other.parse::<DatasetName>()).transpose();
        let other = other.map_err(|error| Failure::new(ErrorCode::VectorRefused, format!("other: {error}")))?;
        let add = move |_: &Agent, store: Store| {
            let there = store.machine(machine.as_str()).map_err(|error| record_failure(&error))?;
            let own = here.as_str().rsplit('/').next().unwrap_or_default();
            if path.is_some() && there.kind != MachineKind::Server {
                let text =
                    format!("{machine} has an agent: its datasets are reached with mode zfs, and no directory is");
                return Err(Failure::new(ErrorCode::VectorRefused, text));
            }
            let other = match (other, &path) {
                (Some(other), _) => other,
                (None, Some(path)) => stand_in(path),
                (None, None) => format!("{}/{own}", there.prefix)
                    .parse()
                    .map_err(|error: siris_zfs::NameError| Failure::new(ErrorCode::VectorRefused, error.to_string()))?,
            };
            let (source, target) = match direction {
                Direction::Push | Direction::Relay => (here, other),
                Direction::Pull => (other, here),
            };
            let proven = String::new();
            let (priority, limits, schedule) = (Priority::default(), Limits::default(), Schedule::Points);
            let (number, paused) = (0, false);
            let mut vector = Vector {
                number,
                machine,
                from,
                direction,
                source,
                target,
                path,
                tier,
                priority,
                limits,
                schedule,
                counted: None,
                paused,
                proven,
            };
            vector.number = store.add_vector(&vector).map_err(|error| match error {
                StoreError::Exists(_) => Failure::new(ErrorCode::VectorRefused, error.to_string()),
                other => record_failure(&other),
            })?;
            Ok(vector)
        };
        let made = self.vectors.store(add).await?;
        let number = made.number;
        let path = self.vectors.add(made).await?;
        self.vectors.ask(number);
        OwnedObjectPath::try_from(path).map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
    }

    #[zbus(out_args("aside"))]
    async fn set_aside(
        &self,
        dataset: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        only(&options, &["back-to"])?;
        let back_to = text(&options, "back-to")?.map(|label| label.parse::<Label>()).transpose();
        let back_to = back_to.map_err(|error| Failure::new(ErrorCode::VectorRefused, error.to_string()))?;
        let dataset = self.dataset(dataset)?;
        self.allowed(connection, &call).await?;
        let agent = self.agent.clone();
        let set = move || aside::set_aside(agent.zfs.sets(), &dataset, back_to.as_ref(), crate::now());
        let set = tokio::task::spawn_blocking(set).await;
        let set = set.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        let set = set.map_err(|error| {
            Failure::new(ErrorCode::SetAsideFailed, format!("{}: {}", error.code(), crate::chain(&error)))
        })?;
        Ok(set.to_string())
    }
}

impl ReplicationObject {
    /// The dataset of that name, or of the asset with that UUID or number. One that is to be received need not be there yet.
    fn dataset(&self, asked: &str) -> Result<DatasetName, Failure> {
        if asked.parse::<Uuid>().is_ok() || asked.parse::<AssetId>().is_ok() {
            return Ok(find(&self.agent, asked)?.name);
        }
        let name: DatasetName =
            asked.parse().map_err(|error| Failure::new(ErrorCode::VectorRefused, format!("dataset: {error}")))?;
        match asset_of(&name) {
            Some(_) => Ok(name),
            None => Err(Failure::new(
                ErrorCode::VectorRefused,
                format!("{name} is not the dataset of an asset (POOL/home/agents/UUID)"),
            )),
        }
    }
}

impl ReplicationObject {
    /// The machine that a relay's data comes from.
    async fn from(&self, asked: &Options, direction: Direction) -> Result<Option<Machine>, Failure> {
        let refused = |text: &str| Failure::new(ErrorCode::VectorRefused, text);
        match (direction, text(asked, "from")?) {
            (Direction::Relay, Some(from)) if text(asked, "machine")?.as_ref() == Some(&from) => {
                Err(refused("a relay lies between two machines"))
            }
            (Direction::Relay, Some(from)) => {
                if wanted(asked, "mode", Mode::Zfs)? == Mode::Rsync {
                    return Err(refused("a relay lies between two that have ZFS: mode rsync is for one end here"));
                }
                let name = name(&from)?;
                let machines = self.read(Store::machines).await?;
                let found = machines.into_iter().find(|machine| machine.name == name);
                let missing = || record_failure(&StoreError::Missing(format!("machine {name}")));
                Ok(Some(found.ok_or_else(missing)?))
            }
            (Direction::Relay, None) => Err(refused("a relay wants from, the machine that the data comes from")),
            (_, Some(_)) => Err(refused("from goes with direction relay")),
            (_, None) => Ok(None),
        }
    }
}

/// The directory on the other machine, in mode rsync.
fn path(options: &Options) -> Result<Option<FarPath>, Failure> {
    let refused = |text: String| Failure::new(ErrorCode::VectorRefused, text);
    match (wanted(options, "mode", Mode::Zfs)?, text(options, "path")?, text(options, "other")?) {
        (Mode::Zfs, None, _) => Ok(None),
        (Mode::Zfs, Some(_), _) => {
            Err(refused("path goes with mode rsync; with mode zfs it is other, a dataset".to_owned()))
        }
        (Mode::Rsync, _, Some(_)) => {
            Err(refused("other, a dataset, goes with mode zfs; with mode rsync it is path".to_owned()))
        }
        (Mode::Rsync, None, None) => Err(refused("mode rsync wants the path of a directory".to_owned())),
        (Mode::Rsync, Some(path), None) => {
            path.parse().map(Some).map_err(|error: FarPathError| refused(error.to_string()))
        }
    }
}

fn as_vector(failure: Failure) -> Failure {
    Failure::new(ErrorCode::VectorRefused, failure.text())
}

/// A word that may be left out.
fn wanted<T: std::str::FromStr<Err: std::fmt::Display>>(
    options: &Options,
    key: &str,
    default: T,
) -> Result<T, Failure> {
    let Some(word) = text(options, key)? else { return Ok(default) };
    word.parse().map_err(|error| Failure::new(ErrorCode::VectorRefused, format!("{key}: {error}")))
}

fn authorize(agent: &Agent, store: &Store) -> Result<(), Failure> {
    let peers = store.peers().map_err(|error| record_failure(&error))?;
    keys::authorize(&agent.root, &peers).map_err(|error| key_failure(&error.into()))
}
