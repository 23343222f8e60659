//! The vectors of this box as they run: which waits, which syncs, what came of it; and their workers.
//!
//! Owns: the turns, and which objects `/org/siris/Agent1/vectors/ID` there are. Never: syncs itself; a worker does, which ends.

mod calls;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Zoned;
use siris_api::{ErrorCode, VECTOR_INTERFACE, vector_path};
use siris_zfs::{DatasetName, Guid};
use tokio::sync::mpsc;
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant};

use crate::agent::Agent;
use crate::bus::running::{RETRY, Running, State};
use crate::bus::transient::{Devices, Network, Unit, lines};
use crate::bus::vector::VectorObject;
use crate::bus::{Authority, Failure};
use crate::store::{Store, StoreError};
use crate::vectors::digest::kept::DIGESTS;
use crate::vectors::limit::Moment;
use crate::vectors::record::{Direction, Vector};
use crate::vectors::worker::{self, Said};

/// So many sync at once where nobody has said otherwise; the others wait for their turn.
const AT_ONCE: u32 = 4;
/// More than these no box is asked for.
pub(super) const AT_ONCE_MAX: u32 = 64;
/// The worker that syncs.
const SYNC: &str = "sync-worker";
/// The worker that compares, and keeps what it has read.
const VERIFY: &str = "verify-worker";

/// What was compared, how many paths, those that differ, and bytes that were read: `here-read` of `here-data`, and those of the
/// other machine; absent where it does not say.
pub(super) type Verdict = (String, u64, Vec<String>, HashMap<String, u64>);

/// The vectors. Clones are the same.
#[derive(Clone)]
pub struct Vectors {
    connection: Connection,
    pub(super) agent: Arc<Agent>,
    pub(super) authority: Authority,
    all: Arc<Mutex<BTreeMap<u64, Running>>>,
    at_once: Arc<AtomicU32>,
    started: Instant,
    /// One at a time is asked how far it is behind.
    lag: Arc<tokio::sync::Mutex<()>>,
}

pub(super) fn unusable(error: &StoreError) -> Failure {
    Failure::new(ErrorCode::RecordsUnusable, crate::chain(error))
}

impl Vectors {
    /// No vectors yet; see [`Vectors::load`].
    pub fn new(connection: Connection, agent: Arc<Agent>, authority: Authority) -> Self {
        Vectors {
            connection,
            agent,
            authority,
            all: Arc::default(),
            at_once: Arc::new(AtomicU32::new(AT_ONCE)),
            started: Instant::now(),
            lag: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self, number: u64) -> Result<Running, Failure> {
        let gone = || Failure::new(ErrorCode::VectorNotFound, format!("vector {number} is not there any more"));
        self.lock().get(&number).cloned().ok_or_else(gone)
    }

    /// Puts the vectors that are on record on the bus. They sync when their datasets are seen, or what their schedules say was
    /// missed: one that was syncing when the agent ended goes on.
    ///
    /// # Errors
    /// When the bus refuses. Records that cannot be read are told in the journal: the agent serves on.
    pub async fn load(&self) -> zbus::Result<()> {
        let agent = self.agent.clone();
        let read = move || -> Result<_, StoreError> {
            if Store::read(&agent.root)?.is_none() {
                return Ok((Vec::new(), None));
            }
            // Opened to be written: records of the version before are brought to this one's form.
            let store = Store::open(&agent.root)?;
            Ok((store.vectors()?, store.at_once()?))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((vectors, at_once))) => {
                at_once.into_iter().for_each(|count| self.set_at_once(count));
                for vector in vectors {
                    self.add(vector).await?;
                }
            }
            Ok(Err(error)) => eprintln!("there are no vectors: {}", crate::chain(&error)),
            // The task does not panic, and is not cancelled while the runtime runs.
            Err(_) => {}
        }
        Ok(())
    }

    /// Puts a vector that is on record on the bus.
    ///
    /// # Errors
    /// When the bus refuses.
    pub(super) async fn add(&self, vector: Vector) -> zbus::Result<String> {
        let (number, path) = (vector.number, self.path(&vector));
        self.lock().insert(number, Running::new(vector));
        let object = VectorObject::new(self.clone(), number);
        self.connection.object_server().at(path.as_str(), object).await?;
        Ok(path)
    }

    fn path(&self, vector: &Vector) -> String {
        vector_path(&vector.id(self.agent.device_id).to_string())
    }

    /// Has the vectors that send one of these datasets sync, but for those that have a time for it, or have just sent its newest
    /// snapshot.
    pub fn wake(&self, newest: &BTreeMap<DatasetName, Option<Guid>>) {
        let wants = |running: &mut Running| {
            let vector = &running.vector;
            let sends = vector.direction == Direction::Push && !vector.schedule.is_timed();
            let newest = newest.get(&vector.source).filter(|_| sends).copied();
            newest.is_some_and(|newest| running.sees(newest)).then_some(running.vector.number)
        };
        let numbers: Vec<u64> = self.lock().values_mut().filter_map(wants).collect();
        for number in numbers {
            self.ask(number);
        }
    }

    /// Has a vector sync, or wait for its turn.
    pub(super) fn ask(&self, number: u64) {
        {
            let mut all = self.lock();
            let turn = last_turn(&all) + 1;
            let Some(running) = all.get_mut(&number).filter(|running| !running.vector.paused) else { return };
            match running.state {
                _ if running.busy => running.again = true,
                State::Syncing => running.again = true,
                State::Waiting => {}
                State::Idle | State::Failed => {
                    running.wait(turn);
                    running.vector.counted = None;
                }
            }
        }
        self.take_turns();
    }

    /// How many sync at once.
    pub(super) fn at_once(&self) -> u32 {
        self.at_once.load(Ordering::SeqCst)
    }

    /// Has so many sync at once from now on; those that do go on.
    pub(super) fn set_at_once(&self, count: u32) {
        self.at_once.store(count, Ordering::SeqCst);
        self.take_turns();
    }

    /// Starts those whose turn it is: by priority, then in the order in which they began to wait. To be called again from
    /// time to time: an hour ends in which one may not send.
    pub fn take_turns(&self) {
        let now = Zoned::now();
        self.call_due(&now);
        let now = Moment::of(&now);
        loop {
            let number = {
                let mut all = self.lock();
                let syncing = all.values().filter(|running| running.state == State::Syncing).count();
                let waiting = all.values_mut().filter(|running| running.is_ready(now));
                let next = waiting.min_by_key(|running| (running.vector.priority, running.turn));
                let Some(next) = next.filter(|_| syncing < self.at_once() as usize) else { return };
                next.begin();
                next.vector.number
            };
            let vectors = self.clone();
            tokio::spawn(async move { vectors.sync(number).await });
        }
    }

    /// Has those wait for their turn whose schedules say so. After a start pools are waited for, and not for ever.
    fn call_due(&self, now: &Zoned) {
        let has_waited = self.started.elapsed() >= RETRY;
        let is_here = |vector: &Vector| vector.here().is_none_or(|dataset| self.agent.has_pool(dataset.pool()));
        let mut all = self.lock();
        let last = last_turn(&all);
        let due = all.values_mut().filter_map(|running| running.is_due(now).then_some(running));
        let due = due.filter(|running| has_waited || is_here(&running.vector));
        due.zip(last + 1..).for_each(|(running, turn)| running.wait(turn));
    }

    /// One sync, from the start of its worker to its end.
    async fn sync(&self, number: u64) {
        self.changed(number, &["State", "Sent"]).await;
        if self.running(number).is_ok_and(|running| running.vector.counted.is_none()) {
            // It is owed until it ends well.
            self.keep_count(number).await;
        }
        let number_text = number.to_string();
        let arguments = vec![SYNC, &number_text];
        let description = format!("Sync vector {number}");
        let mut ended = Err("worker-ended: the process that syncs ended without a word; see the journal".to_owned());
        let mut held = false;
        match self
            .worker(number, &description, arguments, move |agent, out| {
                worker::run(&agent.root, agent.zfs.sets(), number, out)
            })
            .await
        {
            Err(error) => ended = Err(format!("worker-not-started: {error}")),
            Ok(mut worker) => {
                while let Some(said) = worker.recv().await {
                    match said {
                        Said::Sent { bytes, rate, remaining } => self.note(number, |running| {
                            (running.sent, running.rate, running.remaining) = (bytes, rate, remaining);
                        }),
                        Said::Held => held = true,
                        Said::Again { text, wait } => {
                            eprintln!("vector {number}: {text}; tried again in {wait} s");
                            self.note(number, |running| running.last_error = format!("tried again: {text}"));
                        }
                        Said::Synced { base, guid, bytes, anew } => {
                            if anew {
                                self.unprove(number).await;
                            }
                            ended = Ok((base, guid, bytes));
                        }
                        Said::Failed { code, text } => ended = Err(format!("{code}: {text}")),
                        // Not this worker's words.
                        Said::Forgotten | Said::Turned | Said::Compared { .. } | Said::Lag { .. } => {}
                    }
                    self.changed(number, &["Sent", "Rate", "Remaining", "LastError"]).await;
                }
            }
        }
        if ended.is_ok() && !held {
            // Before another one can begin.
            self.note(number, Running::count);
            self.keep_count(number).await;
        }
        let mut again = false;
        self.note(number, |running| {
            running.ended_at = Some(Instant::now());
            (running.rate, running.remaining) = (0, 0);
            match &ended {
                // It goes on when its hour comes.
                _ if held && !running.vector.paused => {
                    (running.state, running.last_error) = (State::Waiting, String::new());
                }
                Ok((base, guid, bytes)) => {
                    (running.state, running.sent, running.base) = (State::Idle, *bytes, base.clone());
                    running.base_guid = Some(Guid::new(*guid));
                    (running.last_error, running.synced_at) = (String::new(), crate::now());
                }
                // Stopped on purpose.
                Err(_) if running.vector.paused => (running.state, running.last_error) = (State::Idle, String::new()),
                Err(error) => (running.state, running.last_error) = (State::Failed, error.clone()),
            }
            again = running.wants_another();
        });
        match &ended {
            Err(error) if !held => eprintln!("vector {number}: {error}"),
            _ => {}
        }
        self.changed(number, &["State", "Sent", "Rate", "Remaining", "Base", "LastError", "SyncedAt"]).await;
        if again {
            self.ask(number);
        }
        self.take_turns();
    }

    /// Starts a worker; what it says comes out of the channel, which ends when the worker does.
    async fn worker(
        &self,
        number: u64,
        description: &str,
        arguments: Vec<&str>,
        here: impl FnOnce(&Agent, &mut (dyn std::io::Write + Send)) -> bool + Send + 'static,
    ) -> zbus::Result<mpsc::Receiver<Said>> {
        let (said, mouth) = std::io::pipe()?;
        if self.agent.root.is_machine() {
            let nothing = OwnedFd::from(File::open("/dev/null")?);
            let work = arguments.first().copied().unwrap_or_default();
            // Comparing may take hours, and keeps nothing from being synced meanwhile.
            let name = unit(number, work);
            let writes = (work == VERIFY).then_some(DIGESTS);
            let (network, devices) = (Network::Internet, Devices::Zfs);
            let unit = Unit { name: &name, description, arguments, network, devices, writes };
            unit.start(&self.connection, &nothing, &OwnedFd::from(mouth)).await?;
        } else {
            // Below another root there is no service manager.
            let agent = self.agent.clone();
            std::thread::spawn(move || {
                let mut mouth = mouth;
                here(&agent, &mut mouth)
            });
        }
        Ok(lines(said))
    }

    fn note(&self, number: u64, change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.lock().get_mut(&number) {
            change(running);
        }
    }

    /// Tells the bus of properties that may be other than they were.
    async fn changed(&self, number: u64, names: &[&str]) {
        let Ok(now) = self.running(number) else { return };
        let value = |name: &str| -> Variant<'_> {
            match name {
                "State" => now.state().into(),
                "Sent" => now.sent.into(),
                "Rate" => now.rate.into(),
                "Remaining" => now.remaining.into(),
                "Priority" => now.vector.priority.as_u32().into(),
                "Limits" => now.vector.limits.to_string().into(),
                "When" => now.vector.schedule.to_string().into(),
                "Base" => now.base.as_str().into(),
                "SyncedAt" => now.synced_at.into(),
                "ProvenTo" => now.vector.proven.as_str().into(),
                _ => now.last_error.as_str().into(),
            }
        };
        let changed: HashMap<&str, Variant<'_>> = names.iter().map(|name| (*name, value(name))).collect();
        let tell = async {
            let emitter = SignalEmitter::new(&self.connection, self.path(&now.vector))?;
            let interface = InterfaceName::try_from(VECTOR_INTERFACE)?;
            Properties::properties_changed(&emitter, interface, changed, (&[][..]).into()).await
        };
        if let Err(error) = tell.await {
            eprintln!("cannot tell the bus: {error}");
        }
    }

    /// Changes the records, and has the pools keep them too; on a thread of its own.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Agent, Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let kept = |agent: &Agent, store: Store| {
            let done = work(agent, store)?;
            agent.root.want_kept();
            Ok(done)
        };
        self.records(kept).await
    }

    async fn records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Agent, Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let agent = self.agent.clone();
        let done = tokio::task::spawn_blocking(move || {
            let store = Store::open(&agent.root).map_err(|error| unusable(&error))?;
            work(&agent, store)
        });
        done.await.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?
    }

    /// Keeps what a vector's schedule is counted from, where it has one. The pools need not keep it for each sync: from an older
    /// one follows one sync more.
    async fn keep_count(&self, number: u64) {
        let Ok(Running { vector: Vector { schedule, counted, .. }, .. }) = self.running(number) else { return };
        if !schedule.is_timed() {
            return;
        }
        let kept = self.records(move |_, store| store.count(number, counted).map_err(|error| unusable(&error))).await;
        if let Err(failure) = kept {
            eprintln!("vector {number}: {failure}");
        }
    }

    /// What was proven was proven of a target that is not there any more.
    async fn unprove(&self, number: u64) {
        if self.running(number).is_ok_and(|running| running.vector.proven.is_empty()) {
            return;
        }
        let kept = self.store(move |_, store| store.prove(number, "").map_err(|error| unusable(&error))).await;
        if let Err(failure) = kept {
            eprintln!("vector {number}: {failure}");
        }
        self.note(number, |running| running.vector.proven = String::new());
        self.changed(number, &["ProvenTo"]).await;
    }
}

/// The turn of the one that began to wait last.
fn last_turn(all: &BTreeMap<u64, Running>) -> u64 {
    all.values().map(|running| running.turn).max().unwrap_or(0)
}

/// The unit of a worker of a vector's.
fn unit(number: u64, worker: &str) -> String {
    format!("siris-vector-{number}-{worker}.service")
}
