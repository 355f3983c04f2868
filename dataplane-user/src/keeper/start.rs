//! Workers are started: asked for, waited for without standing still, noticed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::launch::{LaunchError, Launched, Source};
use super::run::Keeper;
use super::succeed;
use super::supervise::{Worker, WorkerNumber};
use super::upgrade::Refusal;
use crate::sentence;

/// How long a program may take to be opened and started.
pub(super) const START: Duration = Duration::from_secs(10);

impl Keeper {
    /// Starts a worker: the first, or one for a dead one.
    pub(super) fn start_worker(&mut self) {
        self.start_at = None;
        if let Err(error) = self.launch(Source::Open(Arc::clone(&self.program))) {
            self.start_later(&error);
        }
    }

    fn start_later(&mut self, error: &dyn std::error::Error) {
        tracing::error!(error = sentence(error), "no worker can be started; trying again");
        self.start_at = Some(Instant::now() + self.backoff.after(Duration::ZERO));
    }

    /// Has a worker started, which [`Keeper::started`] hears of.
    pub(super) fn launch(&mut self, source: Source) -> io::Result<WorkerNumber> {
        let number = self.next_worker;
        self.next_worker += 1;
        Worker::launch(number, self.user, source, &self.events)?;
        self.launches.insert(number, Instant::now() + START);
        Ok(number)
    }

    /// Has the next release's keeper tried in a process of its own.
    pub(super) fn launch_trial(&mut self, source: Source) -> io::Result<WorkerNumber> {
        let number = self.next_worker;
        self.next_worker += 1;
        let mut words = succeed::arguments();
        words.extend([format!("{}0", succeed::FLAG).into(), "--handover-try".into()]);
        // Without the program's own name; and as this user, who may read what its arguments name.
        let words = words.split_off(1);
        Worker::launch_with(number, (None, words), source, &self.events)?;
        self.launches.insert(number, Instant::now() + START);
        Ok(number)
    }

    /// A worker was started, or could not be.
    pub(super) async fn started(
        &mut self,
        number: WorkerNumber,
        outcome: Result<(Launched, OwnedFd), LaunchError>,
    ) {
        let wanted = self.launches.remove(&number).is_some() && self.stop_at.is_none();
        match outcome {
            Ok((launched, _)) if !wanted => launched.discard(),
            Ok((launched, channel)) if self.holder_number == Some(number) => {
                self.holder_started(launched, channel).await;
            }
            Ok((launched, channel)) if self.is_trial(number) => {
                self.trial_started(number, launched, channel).await;
            }
            Ok((launched, channel)) => {
                let program = Arc::clone(&launched.program);
                tracing::info!(pid = launched.pid, "worker started");
                match Worker::begin(number, launched, channel, &self.events) {
                    Ok(worker) => {
                        self.workers.insert(number, worker);
                        self.remember_workers();
                        self.upgrade_started(number, program).await;
                    }
                    Err(error) => self.not_started(number, error.into()).await,
                }
            }
            Err(error) if wanted => self.not_started(number, error).await,
            Err(error) => tracing::debug!(error = sentence(&error), "nobody waits for this start any more"),
        }
    }

    async fn not_started(&mut self, number: WorkerNumber, error: LaunchError) {
        if self.holder_number == Some(number) {
            self.no_holder(&error);
        } else if self.is_next(number) || self.is_trial(number) {
            self.give_up(&Refusal::Start(error)).await;
        } else {
            self.start_later(&error);
        }
    }

    /// Once a second: a file system that hangs may give a program late or never.
    pub(super) async fn check_launches(&mut self) {
        let late = |(number, until): (&WorkerNumber, &Instant)| (*until <= Instant::now()).then_some(*number);
        let late: Vec<_> = self.launches.iter().filter_map(late).collect();
        for number in late {
            self.launches.remove(&number);
            let late = io::Error::new(io::ErrorKind::TimedOut, "its file cannot be read in time");
            self.not_started(number, late.into()).await;
        }
    }
}
