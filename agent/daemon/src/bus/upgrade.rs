//! `org.siris.Agent1.Upgrade`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use siris_api::{ConfigMap, ErrorCode, SlotStatus, UPGRADE_ACTION};
use siris_ibu::ByteSize;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedVariant, Variant};

use crate::agent::Agent;
use crate::bus::launch::Source;
use crate::bus::options::{Options, flag, only};
use crate::bus::{Authority, Failure, launch};
use crate::reboot::{self, When};
use crate::slots::{self, SlotsError};
use crate::upgrade::about::About;
use crate::upgrade::worker::Said;
use crate::upgrade::{Allowed, Fetched, Way};

/// The upgrade object.
pub struct UpgradeObject {
    agent: Arc<Agent>,
    authority: Authority,
    shown: Arc<Mutex<Shown>>,
    stop: launch::Stop,
}

/// What the properties say.
#[derive(Debug, Clone, Default)]
struct Shown {
    installing: bool,
    cancelled: bool,
    progress: (i32, String, i32),
    last_error: String,
}

impl UpgradeObject {
    /// The object over this agent.
    pub fn new(agent: Arc<Agent>, authority: Authority) -> Self {
        UpgradeObject { agent, authority, shown: Arc::default(), stop: launch::Stop::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        lock(&self.shown)
    }

    /// Starts an install, if none is running.
    async fn install(
        &self,
        source: Source,
        options: Options,
        call: &Header<'_>,
        connection: &Connection,
        emitter: SignalEmitter<'_>,
    ) -> Result<(), Failure> {
        let allowed = Allowed { downgrade: flag(&options, "allow-downgrade")? };
        only(&options, &["allow-downgrade"])?;
        self.authority.check(connection, call, UPGRADE_ACTION).await?;
        {
            let mut shown = self.lock();
            if shown.installing {
                return Err(Failure::new(
                    ErrorCode::UpgradeBusy,
                    "an upgrade is being installed: wait until it is over",
                ));
            }
            *shown = Shown {
                installing: true,
                cancelled: false,
                progress: (0, "checking the bundle".to_owned(), 1),
                last_error: String::new(),
            };
            self.stop.store(false, Ordering::SeqCst);
        }
        let worker = match launch::start(connection, &self.agent, source, allowed, &self.stop).await {
            Ok(worker) => worker,
            Err(error) => {
                self.lock().installing = false;
                return Err(Failure::new(ErrorCode::UpgradeNotStarted, error.to_string()));
            }
        };
        let emitter = emitter.to_owned();
        changed(&self.shown, &emitter, &["Operation", "Progress", "LastError"]).await;
        tokio::spawn(follow(self.shown.clone(), worker, emitter));
        Ok(())
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works on the disk on a thread of its own: it may be slow, or dead.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?
}

fn unreadable(error: SlotsError) -> Failure {
    Failure::new(ErrorCode::SlotsUnreadable, crate::chain(&error))
}

/// What a bundle is, as the bus has it.
fn shown(about: About) -> ConfigMap {
    let mut pairs: Vec<(&str, Variant<'_>)> = vec![
        ("product", about.product.into()),
        ("version", about.version.into()),
        ("kernel", about.kernel.into()),
        ("zfs", about.zfs.into()),
        ("size", about.size.into()),
        ("key", about.key.into()),
    ];
    pairs.extend(about.refused.map(|why| ("refused", why.into())));
    let owned = |(key, value): (&str, Variant<'_>)| Some((key.to_owned(), OwnedVariant::try_from(value).ok()?));
    pairs.into_iter().filter_map(owned).collect()
}

fn inspect(agent: &Agent, bundle: OwnedFd) -> Result<ConfigMap, Failure> {
    let about = About::look(&agent.root, agent.zfs.as_ref(), File::from(bundle));
    about.map(shown).map_err(|error| Failure::new(ErrorCode::BundleRefused, error.said()))
}

/// What the install of a bundle did, in words.
fn armed(slot: &str, version: &str, fetched: Option<Fetched>) -> String {
    let mut text = format!("slot {slot} holds {version}, and is tried at the next boot");
    if let Some(Fetched { way, received, reused }) = fetched {
        let (received, reused) = (ByteSize::from_bytes(received).rounded(), ByteSize::from_bytes(reused).rounded());
        let how = match way {
            Way::Patch => format!(" as a patch, {reused} of the image were here already"),
            Way::Blocks => format!(" block by block, {reused} of the image were here already"),
            Way::Whole => " as a whole".to_owned(),
        };
        text += &format!("; fetched {received}{how}");
    }
    text
}

/// Shows what the worker says until it ends.
async fn follow(shown: Arc<Mutex<Shown>>, mut worker: mpsc::Receiver<Said>, emitter: SignalEmitter<'static>) {
    let mut result =
        Err("worker-ended: the process that writes the slot ended without a word; see the journal".to_owned());
    while let Some(said) = worker.recv().await {
        match said {
            Said::Progress { done, total } => {
                let percent = (done * 100 / total.max(1)) as i32;
                let (done, total) = (ByteSize::from_bytes(done).rounded(), ByteSize::from_bytes(total).rounded());
                lock(&shown).progress = (percent, format!("writing: {done} of {total}"), 1);
                changed(&shown, &emitter, &["Progress"]).await;
            }
            Said::Armed { slot, version, fetched } => result = Ok(armed(&slot, &version, fetched)),
            Said::Failed { code, text } => result = Err(format!("{code}: {text}")),
            // Not this worker's word.
            Said::Marked { .. } | Said::Bundle(_) => {}
        }
    }
    {
        let mut shown = lock(&shown);
        shown.installing = false;
        if shown.cancelled && result.is_err() {
            result = Err("upgrade-cancelled: it was cancelled; the box keeps the system that it runs".to_owned());
        }
        match &result {
            Ok(text) => (shown.progress, shown.last_error) = ((100, text.clone(), 1), String::new()),
            Err(error) => (shown.progress.1, shown.last_error) = ("failed".to_owned(), error.clone()),
        }
        eprintln!("upgrade: {}", result.as_ref().map_or_else(String::as_str, String::as_str));
    }
    changed(&shown, &emitter, &["Operation", "Progress", "LastError"]).await;
    if let Err(error) = UpgradeObject::completed(&emitter, i32::from(result.is_err())).await {
        eprintln!("cannot tell the bus: {error}");
    }
}

/// Tells the bus of properties that are other than they were.
async fn changed(shown: &Mutex<Shown>, emitter: &SignalEmitter<'static>, names: &[&str]) {
    let now = lock(shown).clone();
    let value = |name: &str| -> Variant<'static> {
        match name {
            "Operation" => operation(&now).into(),
            "Progress" => now.progress.clone().into(),
            _ => now.last_error.clone().into(),
        }
    };
    let changed = names.iter().map(|name| (*name, value(name))).collect();
    let interface = zbus::names::InterfaceName::from_static_str_unchecked(siris_api::UPGRADE_INTERFACE);
    let told = zbus::fdo::Properties::properties_changed(emitter, interface, changed, std::borrow::Cow::Borrowed(&[]));
    if let Err(error) = told.await {
        eprintln!("cannot tell the bus: {error}");
    }
}

fn operation(shown: &Shown) -> &'static str {
    if shown.installing { "installing" } else { "idle" }
}

#[zbus::interface(name = "org.siris.Agent1.Upgrade", introspection_docs = false)]
impl UpgradeObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn boot_slot(&self) -> String {
        self.agent.slot.word().to_owned()
    }

    #[zbus(property)]
    fn operation(&self) -> String {
        operation(&self.lock()).to_owned()
    }

    #[zbus(property)]
    fn progress(&self) -> (i32, String, i32) {
        self.lock().progress.clone()
    }

    #[zbus(property)]
    fn last_error(&self) -> String {
        self.lock().last_error.clone()
    }

    #[zbus(signal)]
    async fn completed(emitter: &SignalEmitter<'_>, result: i32) -> zbus::Result<()>;

    #[zbus(out_args("about"))]
    async fn inspect_fd(&self, bundle: zbus::OwnedFd, options: Options) -> Result<ConfigMap, Failure> {
        only(&options, &[])?;
        let agent = self.agent.clone();
        blocking(move || inspect(&agent, bundle.into())).await
    }

    async fn install_fd(
        &self,
        bundle: zbus::OwnedFd,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Failure> {
        self.install(Source::Bundle(bundle.into()), options, &call, connection, emitter).await
    }

    #[zbus(out_args("about"))]
    async fn inspect_bundle(
        &self,
        source: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<ConfigMap, Failure> {
        only(&options, &[])?;
        // The box itself opens it, with its own rights and from its own place in the network.
        self.authority.check(connection, &call, UPGRADE_ACTION).await?;
        let said = launch::inspect(connection, &self.agent, source).await;
        match said.map_err(|error| Failure::new(ErrorCode::UpgradeNotStarted, error.to_string()))? {
            Some(Said::Bundle(about)) => Ok(shown(about)),
            Some(Said::Failed { code, text }) => Err(Failure::new(ErrorCode::BundleRefused, format!("{code}: {text}"))),
            _ => Err(Failure::new(ErrorCode::Internal, "the process that reads the bundle ended without a word")),
        }
    }

    async fn install_bundle(
        &self,
        source: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Failure> {
        self.install(Source::Address(source.to_owned()), options, &call, connection, emitter).await
    }

    async fn cancel(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        self.authority.check(connection, &call, UPGRADE_ACTION).await?;
        {
            let mut shown = self.lock();
            if !shown.installing {
                return Err(Failure::new(ErrorCode::UpgradeIdle, "no upgrade is being installed"));
            }
            shown.cancelled = true;
        }
        let stopped = launch::stop(connection, &self.agent, &self.stop).await;
        stopped.map_err(|error| Failure::new(ErrorCode::UpgradeNotStarted, error.to_string()))
    }

    #[zbus(out_args("what"))]
    async fn reboot(
        &self,
        when: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        let when = When::parse(when, OffsetDateTime::now_utc());
        let when = when.map_err(|error| Failure::new(ErrorCode::OptionInvalid, error.to_string()))?;
        self.authority.check(connection, &call, UPGRADE_ACTION).await?;
        let done = reboot::schedule(connection, when).await;
        done.map_err(|error| Failure::new(ErrorCode::RebootRefused, error.to_string()))
    }

    #[zbus(out_args("name", "done"))]
    async fn mark(
        &self,
        state: &str,
        slot: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, String), Failure> {
        self.authority.check(connection, &call, UPGRADE_ACTION).await?;
        let said = launch::mark(connection, &self.agent, state, slot).await;
        let said = said.map_err(|error| Failure::new(ErrorCode::UpgradeNotStarted, error.to_string()))?;
        match said {
            Some(Said::Marked { slot, done }) => Ok((slot, done)),
            Some(Said::Failed { code, text }) if ["slot-transition", "no-such-mark"].contains(&code.as_str()) => {
                Err(Failure::new(ErrorCode::SlotRefused, text))
            }
            Some(Said::Failed { text, .. }) => Err(Failure::new(ErrorCode::SlotsUnreadable, text)),
            _ => Err(Failure::new(ErrorCode::Internal, "the process that marks slots ended without a word")),
        }
    }

    #[zbus(out_args("slots"))]
    async fn get_slot_status(&self) -> Result<Vec<SlotStatus>, Failure> {
        let agent = self.agent.clone();
        blocking(move || slots::status(&agent.root, agent.slot.slot).map_err(unreadable)).await
    }

    #[zbus(out_args("slot"))]
    async fn get_primary(&self) -> Result<String, Failure> {
        let agent = self.agent.clone();
        let slot = blocking(move || slots::primary(&agent.root).map_err(unreadable)).await?;
        Ok(slot.map_or(String::new(), |s| s.to_string()))
    }
}
