//! The next release's keeper is tried before anything is given away: a process of its own, with the arguments and the state it
//! would go on with, says whether it understands them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::handover::operator::Part;
use crate::handover::succession::{Succession, Trial, Verdict};
use crate::handover::{Channel, ChannelError, watch};
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
        let problem = read.and_then(|succession| judge(&succession)).err();
        channel.send(&Verdict { release: env!("CARGO_PKG_VERSION").to_owned(), problem }, &[]).await
    })
}
