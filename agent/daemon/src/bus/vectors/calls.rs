//! What is asked of one vector: to pause, to compare, to tell its lag, to turn, to go.

use siris_api::ErrorCode;
use tokio::sync::mpsc;

use super::{SYNC, VERIFY, Vectors, Verdict, unit, unusable};
use crate::bus::Failure;
use crate::bus::running::{Running, State};
use crate::bus::transient::manager;
use crate::bus::vector::VectorObject;
use crate::vectors::digest::Scope;
use crate::vectors::digest::kept::{self, DIGESTS};
use crate::vectors::limit::Limits;
use crate::vectors::record::Priority;
use crate::vectors::schedule::Schedule;
use crate::vectors::worker::{self, Said};

impl Vectors {
    async fn stop(&self, number: u64) -> Result<(), Failure> {
        let is_syncing = self.running(number)?.state == State::Syncing;
        if is_syncing && self.agent.root.is_machine() {
            let stopped = manager(&self.connection, "StopUnit", &(unit(number, SYNC), "replace")).await;
            stopped.map_err(|error| Failure::new(ErrorCode::VectorFailed, format!("worker-not-stopped: {error}")))?;
        }
        Ok(())
    }

    pub(in crate::bus) async fn pause(&self, number: u64, paused: bool) -> Result<(), Failure> {
        self.running(number)?;
        self.store(move |_, store| store.pause(number, paused).map_err(|error| unusable(&error))).await?;
        self.note(number, |running| {
            running.vector.paused = paused;
            if running.state == State::Waiting {
                running.state = State::Idle;
            }
        });
        if paused {
            self.stop(number).await?;
        }
        self.changed(number, &["State"]).await;
        // One that has times syncs if one has passed meanwhile, or a sync is owed.
        match self.running(number)?.vector.schedule.is_timed() {
            _ if paused => {}
            true => self.take_turns(),
            false => self.ask(number),
        }
        Ok(())
    }

    /// Compares both ends, which takes as long as it takes to read what changed, or all, on both.
    pub(in crate::bus) async fn verify(&self, number: u64, scope: Scope) -> Result<Verdict, Failure> {
        if self.running(number)?.state == State::Syncing {
            return Err(Failure::new(ErrorCode::VectorFailed, "vector-busy: it is syncing: ask again when it is done"));
        }
        let number_text = number.to_string();
        let description = format!("Compare both ends of vector {number}");
        let mut arguments = vec![VERIFY, &number_text];
        arguments.extend((scope == Scope::Whole).then_some("--whole"));
        // The worker may write into it, and not make it.
        if let Err(error) = kept::make_dir(&self.agent.root) {
            eprintln!("{DIGESTS} cannot be made, all is read each time: {error}");
        }
        let worker = self.worker(number, &description, arguments, move |agent, out| {
            worker::verify(&agent.root, agent.zfs.sets(), number, scope, out)
        });
        match last_word(worker.await).await? {
            Said::Compared { base, paths, differing, here, there, .. } => {
                let proven = if differing.is_empty() { base.clone() } else { String::new() };
                let kept = proven.clone();
                self.store(move |_, store| store.prove(number, &kept).map_err(|error| unusable(&error))).await?;
                self.note(number, |running| running.vector.proven = proven);
                self.changed(number, &["ProvenTo"]).await;
                let names = [("here-read", "here-data"), ("there-read", "there-data")];
                let amounts = names.into_iter().zip([here, there]).flat_map(|((read, data), amount)| {
                    amount.into_iter().flat_map(move |amount| [(read, amount.0), (data, amount.1)])
                });
                Ok((base, paths, differing, amounts.map(|(name, bytes)| (name.to_owned(), bytes)).collect()))
            }
            _ => Err(wordless()),
        }
    }

    /// Asks how far its target is behind: recovery points, seconds, bytes.
    pub(in crate::bus) async fn lag(&self, number: u64) -> Result<(u64, u64, u64), Failure> {
        self.running(number)?;
        let _alone = self.lag.lock().await;
        let number_text = number.to_string();
        let description = format!("Ask how far the target of vector {number} is behind");
        let worker = self.worker(number, &description, vec!["lag-worker", &number_text], move |agent, out| {
            worker::lag(&agent.root, agent.zfs.sets(), number, out)
        });
        match last_word(worker.await).await? {
            Said::Lag { points, seconds, bytes } => Ok((points, seconds, bytes)),
            _ => Err(wordless()),
        }
    }

    /// Keeps syncs, and other calls that change it, from a vector until [`Vectors::release`].
    fn claim(&self, number: u64) -> Result<Running, Failure> {
        let mut all = self.lock();
        let gone = || Failure::new(ErrorCode::VectorNotFound, format!("vector {number} is not there any more"));
        let running = all.get_mut(&number).ok_or_else(gone)?;
        if running.busy || running.state == State::Syncing {
            let text = "vector-busy: it is syncing, or being turned or removed: ask again when that is done, or pause it first";
            return Err(Failure::new(ErrorCode::VectorFailed, text));
        }
        running.busy = true;
        if running.state == State::Waiting {
            (running.state, running.again) = (State::Idle, true);
        }
        Ok(running.clone())
    }

    /// Gives it back; what was asked for meanwhile is done now.
    fn release(&self, number: u64) {
        let mut again = false;
        self.note(number, |running| {
            running.busy = false;
            again = std::mem::take(&mut running.again);
        });
        if again { self.ask(number) } else { self.take_turns() }
    }

    /// Has both ends change places, and shows the vector anew, as what it is then.
    pub(in crate::bus) async fn turn(&self, number: u64) -> Result<(), Failure> {
        let before = self.claim(number)?;
        let turned = self.turned(number).await;
        if let Err(failure) = turned {
            self.release(number);
            return Err(failure);
        }
        let made = self.store(move |_, store| {
            store.turn(number).map_err(|error| unusable(&error))?;
            store.vector(number).map_err(|error| unusable(&error))
        });
        let made = match made.await {
            Ok(made) => made,
            Err(failure) => {
                self.release(number);
                return Err(failure);
            }
        };
        let path = self.path(&before.vector);
        self.connection.object_server().remove::<VectorObject, _>(path.as_str()).await?;
        self.add(made).await?;
        self.ask(number);
        Ok(())
    }

    async fn turned(&self, number: u64) -> Result<(), Failure> {
        let number_text = number.to_string();
        let description = format!("Have both ends of vector {number} change places");
        let worker = self.worker(number, &description, vec!["turn-worker", &number_text], move |agent, out| {
            worker::turn(&agent.root, agent.zfs.sets(), number, out)
        });
        match last_word(worker.await).await? {
            Said::Turned => Ok(()),
            _ => Err(wordless()),
        }
    }

    /// Sets what is given, also of a sync under way.
    pub(in crate::bus) async fn configure(
        &self,
        number: u64,
        priority: Option<Priority>,
        limits: Option<Limits>,
        schedule: Option<Schedule>,
    ) -> Result<(), Failure> {
        let set = move |running: &mut Running| {
            priority.into_iter().for_each(|priority| running.vector.priority = priority);
            limits.into_iter().for_each(|limits| running.vector.limits = limits);
            schedule.into_iter().for_each(|schedule| running.reschedule(schedule));
        };
        let mut running = self.running(number)?;
        let was_timed = running.vector.schedule.is_timed();
        set.clone()(&mut running);
        let kept = running.vector;
        let is_timed = kept.schedule.is_timed();
        self.store(move |_, store| store.configure(&kept).map_err(|error| unusable(&error))).await?;
        self.note(number, set);
        self.changed(number, &["Priority", "Limits", "When"]).await;
        // Points that have come meanwhile go now.
        if was_timed && !is_timed {
            self.ask(number)
        } else {
            self.take_turns()
        }
        Ok(())
    }

    /// Takes back what it has marked.
    async fn forget(&self, number: u64, here_only: bool) -> Result<(), Failure> {
        let number_text = number.to_string();
        let mut arguments = vec!["forget-worker", &number_text];
        arguments.extend(here_only.then_some("--here-only"));
        let description = format!("Forget vector {number}");
        let worker = self.worker(number, &description, arguments, move |agent, out| {
            worker::forget(&agent.root, agent.zfs.sets(), number, here_only, out)
        });
        match last_word(worker.await).await? {
            Said::Forgotten => Ok(()),
            _ => Err(wordless()),
        }
    }

    pub(in crate::bus) async fn remove(&self, number: u64, here_only: bool) -> Result<(), Failure> {
        let running = self.claim(number)?;
        let removed = async {
            self.forget(number, here_only).await?;
            self.store(move |_, store| store.remove_vector(number).map_err(|error| unusable(&error))).await
        };
        if let Err(failure) = removed.await {
            // It is as it was.
            self.release(number);
            return Err(failure);
        }
        self.lock().remove(&number);
        let path = self.path(&running.vector);
        self.connection.object_server().remove::<VectorObject, _>(path.as_str()).await?;
        Ok(())
    }
}

/// What a worker says in the end; how far it is on its way is passed over.
async fn last_word(started: zbus::Result<mpsc::Receiver<Said>>) -> Result<Said, Failure> {
    let failed = |text: String| Failure::new(ErrorCode::VectorFailed, text);
    let mut worker = started.map_err(|error| failed(format!("worker-not-started: {error}")))?;
    while let Some(said) = worker.recv().await {
        match said {
            Said::Sent { .. } | Said::Again { .. } => {}
            Said::Failed { code, text } => return Err(failed(format!("{code}: {text}"))),
            last => return Ok(last),
        }
    }
    Err(wordless())
}

fn wordless() -> Failure {
    let text = "worker-ended: the process ended without a word; see the journal";
    Failure::new(ErrorCode::VectorFailed, text)
}
