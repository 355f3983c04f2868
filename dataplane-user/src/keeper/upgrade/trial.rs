//! The next release's keeper is tried before anything is given away: a process of its own, with the arguments and the state it
//! would go on with, says whether it understands them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::handover::operator::Part;
use crate::handover::succession::{Succession, Trial, Verdict, Working};
use crate::handover::{Channel, ChannelError, OLDEST, VERSION, watch};
use crate::sentence;

use super::{CALM, Refusal, Stage};
use crate::keeper::launch::{self, Launched};
use crate::keeper::run::Keeper;
use crate::keeper::supervise::{WorkerEvent, WorkerNumber};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the next release does not take over.
#[derive(Debug, thiserror::Error)]
pub enum Unsuited {
    /// Its own sentence.
    #[error("the new keeper (release {release}) cannot go on from here: {problem}")]
    Refused {
        /// It.
        release: String,
        /// Why.
        problem: String,
    },
    /// It is another program, or a release from before this was possible.
    #[error(
        "the new program ended before it had said whether it can take over from this keeper ({0}): is it a sallyport-node? \
         `--only worker` replaces the worker alone"
    )]
    Ended(String),
    /// It hangs.
    #[error("the new keeper has not said within {} seconds whether it can take over", PATIENCE.as_secs())]
    Silent,
    /// The channel.
    #[error("the new keeper cannot be asked")]
    Channel(#[from] ChannelError),
}

/// Asks a process that was started for it, and ends it; its release.
///
/// # Errors
/// See [`Unsuited`].
pub async fn ask(launched: Launched, channel: OwnedFd, succession: OwnedFd) -> Result<String, Unsuited> {
    let asked = tokio::time::timeout(PATIENCE, converse(&launched, channel, succession)).await;
    launched.discard();
    asked.unwrap_or(Err(Unsuited::Silent))
}

async fn converse(launched: &Launched, channel: OwnedFd, succession: OwnedFd) -> Result<String, Unsuited> {
    let channel: Channel<Trial, Verdict> = Channel::new(channel).map_err(ChannelError::from)?;
    let answer = match channel.send(&Trial {}, &[succession.as_fd()]).await {
        Ok(()) => channel.receive().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok((Verdict { release, problem: None }, _)) => Ok(release),
        Ok((Verdict { release, problem: Some(problem) }, _)) => Err(Unsuited::Refused { release, problem }),
        Err(ChannelError::Closed) => {
            let process = launched.process.try_clone().and_then(watch).map_err(ChannelError::from)?;
            // An error means that it cannot be watched; how it ended is then not known.
            let _ = process.readable().await;
            Err(Unsuited::Ended(launch::reap(&launched.process)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Keeper {
    /// Whether this is the process in which the next release's keeper is tried.
    pub(in crate::keeper) fn is_trial(&self, number: WorkerNumber) -> bool {
        let stage = self.upgrade.as_ref().map(|upgrade| upgrade.stage);
        matches!(stage, Some(Stage::Trying { trial }) if trial == number)
    }

    /// It runs: it is asked.
    pub(in crate::keeper) async fn trial_started(
        &mut self,
        number: WorkerNumber,
        launched: Launched,
        channel: OwnedFd,
    ) {
        let (succession, _) = self.succession(None);
        let file = match succession.write() {
            Ok(file) => file,
            Err(error) => {
                launched.discard();
                return self.give_up(&Refusal::Succession(error.into())).await;
            }
        };
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.program = Some(Arc::clone(&launched.program));
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            let outcome = ask(launched, channel, file).await;
            // The keeper's end is the process's end.
            let _ = events.send((number, WorkerEvent::Tried(outcome))).await;
        });
    }

    /// What the next release's keeper says.
    pub(in crate::keeper) async fn tried(&mut self, number: WorkerNumber, outcome: Result<String, Unsuited>) {
        if !self.is_trial(number) {
            return;
        }
        match outcome {
            Err(unsuited) => self.give_up(&Refusal::Unsuited(unsuited)).await,
            Ok(release) => {
                self.progress(format!("the new keeper (release {release}) understands this one")).await;
                match self.upgrade.as_ref().and_then(|upgrade| upgrade.only) {
                    Some(Part::Keeper) => {
                        self.enter_stage(Stage::Succeeding { until: Instant::now() + CALM })
                    }
                    Some(Part::Worker) | None => self.start_next().await,
                }
            }
        }
    }
}

/// Every worker that lives goes on with the next keeper, also one that only finishes what is open: if they did not understand each
/// other it would be ended, with its connections. One that has not said a word yet has version 0 and may still be turned away.
fn understands(succession: &Succession) -> Result<(), String> {
    let strange = |worker: &&Working| worker.protocol != 0 && !(OLDEST..=VERSION).contains(&worker.protocol);
    let Some(Working { pid, release, protocol, .. }) = succession.workers.iter().find(strange) else {
        return Ok(());
    };
    Err(format!(
        "worker {pid} (release {release}) speaks version {protocol} between keeper and worker, and this release {OLDEST} to {VERSION}: \
         upgrade keeper and worker to a release in between first and wait until former workers have ended, or restart the node, \
         which ends its connections"
    ))
}

/// The next release's answer: `judge` says what is wrong with what it would go on with.
///
/// # Errors
/// Nobody asks.
pub fn answer(
    channel: OwnedFd,
    judge: impl FnOnce(&Succession) -> Result<(), String>,
) -> Result<(), ChannelError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel: Channel<Verdict, Trial> = Channel::new(channel)?;
        let (Trial {}, descriptors) = channel.receive().await?;
        let file = descriptors.into_iter().next().ok_or(ChannelError::Descriptors)?;
        let read = Succession::read(&file).map_err(|error| sentence(&error));
        let judged = read.and_then(|succession| understands(&succession).and_then(|()| judge(&succession)));
        let problem = judged.err();
        channel.send(&Verdict { release: env!("CARGO_PKG_VERSION").to_owned(), problem }, &[]).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::{channel, succession};

    /// What a keeper says that is tried beside workers with these protocols.
    fn tried(protocols: &[u32]) -> Option<String> {
        let (ours, theirs) = channel::pair().unwrap();
        let answering = std::thread::spawn(move || answer(theirs, |_succession| Ok(())));
        let mut succession = succession::tests::succession();
        let worker = succession.workers.remove(0);
        let workers = protocols.iter().map(|protocol| Working { protocol: *protocol, ..worker.clone() });
        succession.workers = workers.collect();
        // The last one finishes what is open.
        succession.workers.last_mut().unwrap().draining = true;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(async {
            let channel: Channel<Trial, Verdict> = Channel::new(ours).unwrap();
            channel.send(&Trial {}, &[succession.write().unwrap().as_fd()]).await.unwrap();
            channel.receive().await.unwrap().0
        });
        answering.join().unwrap().unwrap();
        verdict.problem
    }

    #[test]
    fn a_keeper_does_not_take_over_beside_a_worker_that_it_cannot_speak_with() {
        for good in [&[VERSION, OLDEST][..], &[OLDEST, 0]] {
            assert_eq!(tried(good), None, "{good:?}");
        }
        for (strange, spoken) in [([OLDEST - 1, VERSION], OLDEST - 1), ([VERSION, VERSION + 1], VERSION + 1)]
        {
            let problem = tried(&strange).unwrap();
            let words = format!(
                "worker 4711 (release 0.1.0) speaks version {spoken} between keeper and worker, and this release {OLDEST} to {VERSION}: "
            );
            assert!(problem.starts_with(&words), "{problem}");
        }
    }
}
