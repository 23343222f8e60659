//! The agent's records: machines, the keys of others, vectors.
//!
//! Owns: the database (SQLite) and its schema. ZFS is the truth about datasets and snapshots; nothing of it is kept here.
//! The agent is the only writer; workers read.
//!
//! Versions: a release only ever adds tables, and columns with a default; what nothing needs any more goes one release
//! later. So the release before can go on with what this one has written, and a rollback loses no row. The schema's
//! version is SQLite's `user_version`.

mod dump;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use siris_zfs::DatasetName;
use uuid::Uuid;

use crate::datasets::asset::AssetId;
use crate::root::Root;
use crate::vectors::VectorId;
use crate::vectors::peer::Rights;
use crate::vectors::record::{Direction, FarPath, Machine, MachineKind, Mode, Name, Peer, Priority, Tier, Vector};
use crate::vectors::remote::Address;

pub use dump::Dump;

/// The database.
pub const STORE: &str = "/var/lib/siris/agent.db";

/// How long one waits while another writes.
const BUSY: Duration = Duration::from_secs(10);

/// Each step brings the schema one version further.
const STEPS: &[&str] = &[
    "
    CREATE TABLE machines (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, device TEXT, host TEXT NOT NULL, port INTEGER NOT NULL,
        host_key TEXT NOT NULL, prefix TEXT NOT NULL
    ) STRICT;
    CREATE TABLE peers (
        name TEXT PRIMARY KEY, device TEXT NOT NULL, key TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL,
        may_receive INTEGER NOT NULL, may_send INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE vectors (
        number INTEGER PRIMARY KEY AUTOINCREMENT, machine TEXT NOT NULL REFERENCES machines (name),
        direction TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, tier TEXT NOT NULL,
        paused INTEGER NOT NULL DEFAULT 0, proven TEXT NOT NULL DEFAULT ''
    ) STRICT;
",
    "
    ALTER TABLE vectors ADD COLUMN priority INTEGER NOT NULL DEFAULT 3;
    ALTER TABLE vectors ADD COLUMN limits TEXT NOT NULL DEFAULT '';
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE vectors ADD COLUMN mode TEXT NOT NULL DEFAULT 'zfs';
    ALTER TABLE vectors ADD COLUMN path TEXT NOT NULL DEFAULT '';
    ALTER TABLE vectors ADD COLUMN from_machine TEXT NOT NULL DEFAULT '';
",
    "
    ALTER TABLE vectors ADD COLUMN schedule TEXT NOT NULL DEFAULT 'points';
    ALTER TABLE vectors ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
",
];

/// How many vectors sync at once.
const AT_ONCE: &str = "at-once";
/// The last asset's number that this box has given.
const LAST_ASSET_ID: &str = "last-asset-id";
/// Sets one.
const SET: &str =
    "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Why the records cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says so.
    #[error("cannot use {}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says.
        #[source]
        source: rusqlite::Error,
    },
    /// A row holds what this version does not know.
    #[error("cannot read the record of {0}: it was written by another version, or is damaged")]
    Row(String),
    /// There is one already.
    #[error("there is {0} already")]
    Exists(String),
    /// There is none.
    #[error("there is no {0}")]
    Missing(String),
    /// Others need it.
    #[error("{0}")]
    InUse(String),
    /// The record of that name is another one's.
    #[error("{0} is another device: give this one a name of its own")]
    Another(String),
}

/// The records.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
}

impl Store {
    /// Opens the records to change them; makes them where there are none.
    ///
    /// # Errors
    /// When the database cannot be opened or brought to this version.
    pub fn open(root: &Root) -> Result<Self, StoreError> {
        let path = root.path(STORE);
        let fault = |source| StoreError::Database { path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(fault)?;
        let prepare = |connection: &mut Connection| {
            connection.busy_timeout(BUSY)?;
            // A power cut costs no row that was told to be kept.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: u32 = step.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let newest = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
            for sql in STEPS.iter().skip(version as usize) {
                step.execute_batch(sql)?;
            }
            if version < newest {
                step.pragma_update(None, "user_version", newest)?;
            }
            step.commit()
        };
        prepare(&mut connection).map_err(fault)?;
        Ok(Store { path, connection })
    }

    /// Opens the records to read them; `None` where there are none yet.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn read(root: &Root) -> Result<Option<Self>, StoreError> {
        let path = root.path(STORE);
        if !path.exists() {
            return Ok(None);
        }
        let opened = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|connection| connection.busy_timeout(BUSY).map(|()| connection));
        match opened {
            Ok(connection) => Ok(Some(Store { path, connection })),
            Err(source) => Err(StoreError::Database { path, source }),
        }
    }

    fn fault(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), source }
    }

    fn rows<T>(&self, sql: &str, read: fn(&Row<'_>) -> rusqlite::Result<Option<T>>) -> Result<Vec<T>, StoreError> {
        let rows = || -> rusqlite::Result<Vec<(Value, Option<T>)>> {
            let mut statement = self.connection.prepare(sql)?;
            statement.query_map([], |row| Ok((row.get(0)?, read(row)?)))?.collect()
        };
        let rows = rows().map_err(|error| self.fault(error))?;
        rows.into_iter().map(|(key, row)| row.ok_or_else(|| StoreError::Row(format!("{key:?}")))).collect()
    }

    /// Machines that this one dials, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        self.rows("SELECT name, kind, device, host, port, host_key, prefix FROM machines ORDER BY name", machine)
    }

    /// The machine of that name.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn machine(&self, name: &str) -> Result<Machine, StoreError> {
        let found = self.machines()?.into_iter().find(|machine| machine.name.as_str() == name);
        found.ok_or_else(|| StoreError::Missing(format!("machine {name}")))
    }

    /// Keeps a machine.
    ///
    /// # Errors
    /// When there is one of that name, or it cannot be written.
    pub fn add_machine(&self, machine: &Machine) -> Result<(), StoreError> {
        let Machine { name, kind, device, address, prefix } = machine;
        let added = self.connection.execute(
            "INSERT INTO machines (name, kind, device, host, port, host_key, prefix) VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                name.as_str(),
                kind.as_str(),
                device.map(|device| device.to_string()),
                address.host,
                address.port,
                address.host_key,
                prefix.as_str()
            ],
        );
        self.added(added, || format!("a machine {name}"))
    }

    /// Keeps a machine in the place of the one of that name: it was installed anew, or is found elsewhere. Its vectors stay.
    ///
    /// # Errors
    /// When there is none, that one is another device or of another kind, or it cannot be written.
    pub fn replace_machine(&self, machine: &Machine) -> Result<(), StoreError> {
        let Machine { name, kind, device, address, prefix } = machine;
        let was = self.machine(name.as_str())?;
        if (was.kind, was.device) != (*kind, *device) {
            return Err(StoreError::Another(format!("machine {name}")));
        }
        let replaced = self.connection.execute(
            "UPDATE machines SET host = ?, port = ?, host_key = ?, prefix = ? WHERE name = ?",
            params![address.host, address.port, address.host_key, prefix.as_str(), name.as_str()],
        );
        self.removed(replaced, || format!("machine {name}"))
    }

    /// Forgets a machine.
    ///
    /// # Errors
    /// When vectors lead to it, there is none, or it cannot be written.
    pub fn remove_machine(&self, name: &str) -> Result<(), StoreError> {
        let needs = |vector: &Vector| {
            vector.machine.as_str() == name || vector.from.as_ref().is_some_and(|from| from.as_str() == name)
        };
        if let Some(first) = self.vectors()?.into_iter().find(needs) {
            let text = format!("vector {} needs machine {name}: remove it first", first.number);
            return Err(StoreError::InUse(text));
        }
        self.removed(self.connection.execute("DELETE FROM machines WHERE name = ?", [name]), || {
            format!("machine {name}")
        })
    }

    /// Machines that may dial this one, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        self.rows("SELECT name, device, key, prefix, may_receive, may_send FROM peers ORDER BY name", peer)
    }

    /// Keeps a peer.
    ///
    /// # Errors
    /// When there is one of that name or key, or it cannot be written.
    pub fn add_peer(&self, peer: &Peer) -> Result<(), StoreError> {
        let Peer { name, key, rights } = peer;
        let added = self.connection.execute(
            "INSERT INTO peers (name, device, key, prefix, may_receive, may_send) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                name.as_str(),
                rights.device.to_string(),
                key,
                rights.prefix.as_str(),
                rights.may_receive,
                rights.may_send
            ],
        );
        self.added(added, || format!("a peer {name}, or one with that key,"))
    }

    /// Keeps a peer in the place of the one of that name: it has a new key, or other rights.
    ///
    /// # Errors
    /// When there is none, that one is another device, another peer has that key, or it cannot be written.
    pub fn replace_peer(&self, peer: &Peer) -> Result<(), StoreError> {
        let Peer { name, key, rights } = peer;
        let was = self.peers()?.into_iter().find(|was| was.name == *name);
        let was = was.ok_or_else(|| StoreError::Missing(format!("peer {name}")))?;
        if was.rights.device != rights.device {
            return Err(StoreError::Another(format!("peer {name}")));
        }
        let replaced = self.connection.execute(
            "UPDATE peers SET key = ?, prefix = ?, may_receive = ?, may_send = ? WHERE name = ?",
            params![key, rights.prefix.as_str(), rights.may_receive, rights.may_send, name.as_str()],
        );
        self.added(replaced, || format!("a peer with the key of {name}"))
    }

    /// Forgets a peer.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub fn remove_peer(&self, name: &str) -> Result<(), StoreError> {
        self.removed(self.connection.execute("DELETE FROM peers WHERE name = ?", [name]), || format!("peer {name}"))
    }

    /// The vectors that this machine has made, by number.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn vectors(&self) -> Result<Vec<Vector>, StoreError> {
        let sql = "SELECT number, machine, direction, source, target, tier, paused, proven, priority, limits, \
                   mode, path, from_machine, schedule, counted FROM vectors ORDER BY number";
        self.rows(sql, vector)
    }

    /// The vector with that number.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn vector(&self, number: u64) -> Result<Vector, StoreError> {
        let found = self.vectors()?.into_iter().find(|vector| vector.number == number);
        found.ok_or_else(|| StoreError::Missing(format!("vector {number}")))
    }

    /// Keeps a vector, and gives it its number, which none has had before.
    ///
    /// # Errors
    /// When there is one from that source to that target, or it cannot be written.
    pub fn add_vector(&self, vector: &Vector) -> Result<u64, StoreError> {
        let Vector { machine, from, direction, source, target, path, tier, paused, .. } = vector;
        // What is fetched into one dataset here comes from one place.
        let same = "SELECT number FROM vectors WHERE (machine = ?1 AND direction = ?2 AND (source = ?3 OR target = ?4)) \
                    OR (?2 = 'pull' AND direction = 'pull' AND target = ?4)";
        let ends = params![machine.as_str(), direction.as_str(), source.as_str(), target.as_str()];
        let there = self.connection.query_row(same, ends, |row| row.get::<_, i64>(0)).optional();
        if let Some(number) = there.map_err(|error| self.fault(error))? {
            return Err(StoreError::Exists(format!("vector {number} with that source or target on machine {machine}")));
        }
        let added = self.connection.execute(
            "INSERT INTO vectors (machine, direction, source, target, tier, paused, mode, path, from_machine) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                machine.as_str(),
                direction.as_str(),
                source.as_str(),
                target.as_str(),
                tier.as_str(),
                paused,
                vector.mode().as_str(),
                path.as_ref().map_or("", FarPath::as_str),
                from.as_ref().map_or("", Name::as_str)
            ],
        );
        added.map_err(|error| self.fault(error))?;
        Ok(self.connection.last_insert_rowid().unsigned_abs())
    }

    /// Sets who goes first, how much of the link a vector may take, and when it syncs, to what this one has of them.
    ///
    /// # Errors
    /// When there is no such vector, or it cannot be written.
    pub fn configure(&self, vector: &Vector) -> Result<(), StoreError> {
        let Vector { number, priority, limits, schedule, counted, .. } = vector;
        let sql = "UPDATE vectors SET priority = ?, limits = ?, schedule = ?, counted = ? WHERE number = ?";
        let (limits, schedule) = (limits.to_string(), schedule.to_string());
        let set = params![priority.as_u32(), limits, schedule, counted.map_or(0, id), id(*number)];
        self.removed(self.connection.execute(sql, set), || format!("vector {number}"))
    }

    /// Notes what a vector's schedule is counted from, as [`Vector::counted`] says.
    ///
    /// # Errors
    /// When there is no such vector, or it cannot be written.
    pub fn count(&self, number: u64, from: Option<u64>) -> Result<(), StoreError> {
        let sql = "UPDATE vectors SET counted = ? WHERE number = ?";
        let done = self.connection.execute(sql, params![from.map_or(0, id), id(number)]);
        self.removed(done, || format!("vector {number}"))
    }

    /// Turns a vector round: what was its target is its source now.
    ///
    /// # Errors
    /// When there is no such vector, or it cannot be written.
    pub fn turn(&self, number: u64) -> Result<(), StoreError> {
        let sql = "UPDATE vectors SET source = target, target = source, proven = '', \
                   machine = CASE direction WHEN 'relay' THEN from_machine ELSE machine END, \
                   from_machine = CASE direction WHEN 'relay' THEN machine ELSE '' END, \
                   direction = CASE direction WHEN 'push' THEN 'pull' WHEN 'pull' THEN 'push' ELSE direction END \
                   WHERE number = ?";
        self.removed(self.connection.execute(sql, [id(number)]), || format!("vector {number}"))
    }

    /// How many vectors sync at once; `None` where nobody has said.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at_once(&self) -> Result<Option<u32>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = ?";
        let value = self.connection.query_row(sql, [AT_ONCE], |row| row.get::<_, String>(0)).optional();
        let value = value.map_err(|error| self.fault(error))?;
        value.map(|value| value.parse().map_err(|_| StoreError::Row(AT_ONCE.to_owned()))).transpose()
    }

    /// Sets how many vectors sync at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_at_once(&self, count: u32) -> Result<(), StoreError> {
        let done = self.connection.execute(SET, params![AT_ONCE, count.to_string()]);
        done.map(drop).map_err(|error| self.fault(error))
    }

    /// Gives an asset's number: the one that `next` says behind the last one that was given, which is then that. `None` where it
    /// says none. Two never get the same one.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn next_asset_id(
        &mut self,
        next: impl FnOnce(Option<AssetId>) -> Option<AssetId>,
    ) -> Result<Option<AssetId>, StoreError> {
        let path = self.path.clone();
        let fault = |source| StoreError::Database { path, source };
        let given = || -> rusqlite::Result<Option<AssetId>> {
            let step = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let last = step
                .query_row("SELECT value FROM settings WHERE name = ?", [LAST_ASSET_ID], |row| row.get::<_, String>(0));
            let next = next(last.optional()?.and_then(|last| last.parse().ok()));
            if let Some(id) = next {
                step.execute(SET, params![LAST_ASSET_ID, id.to_string()])?;
            }
            step.commit()?;
            Ok(next)
        };
        given().map_err(fault)
    }

    /// Has a vector pause, or go on.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub fn pause(&self, number: u64, paused: bool) -> Result<(), StoreError> {
        let done =
            self.connection.execute("UPDATE vectors SET paused = ? WHERE number = ?", params![paused, id(number)]);
        self.removed(done, || format!("vector {number}"))
    }

    /// Notes the snapshot up to which the replica is proven; empty where it is not what it should be.
    ///
    /// # Errors
    /// When there is no such vector, or it cannot be written.
    pub fn prove(&self, number: u64, proven: &str) -> Result<(), StoreError> {
        let done =
            self.connection.execute("UPDATE vectors SET proven = ? WHERE number = ?", params![proven, id(number)]);
        self.removed(done, || format!("vector {number}"))
    }

    /// Forgets a vector. Its number is never given again.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub fn remove_vector(&self, number: u64) -> Result<(), StoreError> {
        let done = self.connection.execute("DELETE FROM vectors WHERE number = ?", [id(number)]);
        self.removed(done, || format!("vector {number}"))
    }

    fn added(&self, done: rusqlite::Result<usize>, what: impl Fn() -> String) -> Result<(), StoreError> {
        match done {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                Err(StoreError::Exists(what()))
            }
            Err(error) => Err(self.fault(error)),
            Ok(_) => Ok(()),
        }
    }

    fn removed(&self, done: rusqlite::Result<usize>, what: impl Fn() -> String) -> Result<(), StoreError> {
        match done.map_err(|error| self.fault(error))? {
            0 => Err(StoreError::Missing(what())),
            _ => Ok(()),
        }
    }
}

/// As SQLite counts: no number is ever so large that it does not fit.
fn id(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn text<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, String>(at)?.parse().ok())
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Option<Machine>> {
    let device = row.get::<_, Option<String>>(2)?.map(|device| device.parse::<Uuid>().ok());
    let (Some(name), Some(kind), Some(prefix)) = (text::<Name>(row, 0)?, text::<MachineKind>(row, 1)?, text(row, 6)?)
    else {
        return Ok(None);
    };
    let device = match device {
        Some(None) => return Ok(None),
        other => other.flatten(),
    };
    let address = Address { host: row.get(3)?, port: row.get(4)?, host_key: row.get(5)? };
    Ok(Some(Machine { name, kind, device, address, prefix }))
}

fn peer(row: &Row<'_>) -> rusqlite::Result<Option<Peer>> {
    let (Some(name), Some(device), Some(prefix)) = (text(row, 0)?, text(row, 1)?, text::<DatasetName>(row, 3)?) else {
        return Ok(None);
    };
    let rights = Rights { device, prefix, may_receive: row.get(4)?, may_send: row.get(5)? };
    Ok(Some(Peer { name, key: row.get(2)?, rights }))
}

fn vector(row: &Row<'_>) -> rusqlite::Result<Option<Vector>> {
    let known = (text(row, 1)?, text::<Direction>(row, 2)?, text(row, 3)?, text(row, 4)?, text::<Tier>(row, 5)?);
    let (Some(machine), Some(direction), Some(source), Some(target), Some(tier)) = known else { return Ok(None) };
    let number = row.get::<_, i64>(0)?.unsigned_abs();
    let priority = Priority::try_from(row.get::<_, i64>(8)?.unsigned_abs());
    let (Ok(priority), Some(limits), Some(schedule)) = (priority, text(row, 9)?, text(row, 13)?) else {
        return Ok(None);
    };
    let counted = Some(row.get::<_, i64>(14)?.unsigned_abs()).filter(|from| *from > 0);
    let (paused, proven) = (row.get(6)?, row.get(7)?);
    let path = match (text(row, 10)?, text(row, 11)?) {
        (Some(Mode::Zfs), _) => None,
        (Some(Mode::Rsync), Some(path)) => Some(path),
        _ => return Ok(None),
    };
    let from = match (direction, text::<Name>(row, 12)?) {
        (Direction::Relay, None) => return Ok(None),
        (Direction::Relay, from) => from,
        _ => None,
    };
    Ok(Some(Vector {
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
        counted,
        paused,
        proven,
    }))
}

impl Vector {
    /// Its id in the fleet, on the machine with this device id.
    pub fn id(&self, device: Uuid) -> VectorId {
        VectorId { device, number: self.number }
    }
}
