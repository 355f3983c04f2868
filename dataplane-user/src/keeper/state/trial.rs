//! A revision that waits to be confirmed, and what the node goes back to by itself where it hears nothing of that.
//!
//! The stored snapshot says itself whether it is on trial. Two files are there before such a one is stored, so that no crash
//! leaves it without them: the snapshot that was confirmed last, and when its time is over. A snapshot without a trial, of the
//! same revision or of another, ends it. Of a revision that the node went back from the second file keeps the number: nobody
//! who has kept its snapshot makes a new trial of it.

use std::io;
use std::time::{Duration, Instant};

use model::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

use super::{SNAPSHOT, State, StateError, Stored};
use crate::keeper::directory::Staged;
use crate::keeper::status::now_ms;
use crate::sentence;

const CONFIRMED: &str = "confirmed.json";
const TRIAL: &str = "trial.json";

/// So much longer than the trial the node waits: whoever hears the console hears first that it went back.
const GRACE: Duration = Duration::from_secs(15);

/// The stored snapshot's trial.
#[derive(Debug, Clone)]
pub struct Trial {
    back: Option<Stored>,
    until: Instant,
}

/// `trial.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    /// The revision on trial.
    id: SnapshotId,
    /// When the node goes back, milliseconds since the Unix epoch: for another keeper than the one that began it.
    until_ms: i64,
    /// It has.
    gone_back: bool,
}

impl Record {
    fn is_over(&self) -> bool {
        self.gone_back || self.until_ms <= now_ms()
    }

    fn json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// A trial whose snapshot is not stored yet. The files are absent where those that are there stay.
#[derive(Debug)]
pub(super) struct StagedTrial {
    trial: Trial,
    confirmed: Option<Staged>,
    record: Option<Staged>,
}

impl Trial {
    /// What the node goes back to; to nothing where it had nothing.
    pub fn back(&self) -> Option<SnapshotId> {
        self.back.as_ref().map(|stored| stored.snapshot.id)
    }

    pub(super) fn stored(&self) -> Option<&Stored> {
        self.back.as_ref()
    }

    /// How long it has until then.
    pub fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

impl State {
    /// The stored snapshot's trial, while it has one.
    pub fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// The newest revision that the node went back from by itself, until it is stored without a trial or a newer one is.
    pub fn gone_back(&self) -> Option<SnapshotId> {
        self.gone_back
    }

    /// Makes the snapshot that was confirmed last the stored one again; nothing where none is on trial. It is so from now on also
    /// where the disk fails: the next start goes back once more then.
    ///
    /// # Errors
    /// What the file system said.
    pub fn go_back(&mut self) -> Option<Result<(), StateError>> {
        let trial = self.trial.take()?;
        let from = std::mem::replace(&mut self.snapshot, trial.back)?.snapshot.id;
        self.gone_back = Some(from);
        let to = self.snapshot.as_ref().map(|stored| stored.snapshot.id.revision);
        tracing::warn!(
            epoch = from.epoch,
            revision = from.revision,
            to,
            "nobody confirmed in time: going back"
        );
        let record = Record { id: from, until_ms: now_ms(), gone_back: true };
        let noted = record.json().and_then(|json| self.directory.write(TRIAL, &json, 0o600));
        // Needs no space, unlike the note.
        let back = match &self.snapshot {
            Some(_) => self.directory.rename(CONFIRMED, SNAPSHOT),
            None => self.directory.remove(SNAPSHOT),
        };
        self.forget_keys();
        Some(back.and(noted).map_err(|error| self.failed("going back to the confirmed snapshot", error)))
    }

    /// Writes what a trial needs beside its place.
    pub(super) fn stage_trial(&self, id: SnapshotId, trial_ms: u32) -> io::Result<StagedTrial> {
        let stored = self.snapshot.as_ref();
        // No word about the same revision gives it more time.
        let same = self.trial.as_ref().filter(|_| stored.is_some_and(|stored| stored.snapshot.id == id));
        if let Some(trial) = same {
            return Ok(StagedTrial { trial: trial.clone(), confirmed: None, record: None });
        }
        let whole = whole(trial_ms);
        let until_ms = now_ms().saturating_add(millis(whole));
        let record = Record { id, until_ms, gone_back: false }.json()?;
        let record = Some(self.directory.stage(TRIAL, &record, 0o600)?);
        let (back, confirmed) = match (&self.trial, stored) {
            // What is stored was not confirmed either.
            (Some(trial), _) => (trial.back.clone(), None),
            (None, Some(stored)) => {
                let json = serde_json::to_vec(&stored.signed)?;
                (Some(stored.clone()), Some(self.directory.stage(CONFIRMED, &json, 0o600)?))
            }
            (None, None) => (None, None),
        };
        Ok(StagedTrial { trial: Trial { back, until: Instant::now() + whole }, confirmed, record })
    }

    /// Puts the files of a trial in their places; its snapshot comes next.
    pub(super) fn commit_trial(&self, staged: StagedTrial) -> io::Result<Trial> {
        let StagedTrial { trial, confirmed, record } = staged;
        for file in [confirmed, record].into_iter().flatten() {
            file.commit()?;
        }
        Ok(trial)
    }

    /// A snapshot without a trial is stored now.
    pub(super) fn end_trial(&mut self) {
        let stored = self.snapshot.as_ref().map(|stored| stored.snapshot.id);
        self.gone_back = self.gone_back.filter(|from| stored < Some(*from));
        let obsolete = if self.gone_back.is_none() { [CONFIRMED, TRIAL].as_slice() } else { &[CONFIRMED] };
        for name in obsolete {
            if let Err(error) = self.directory.remove(name) {
                tracing::warn!(%error, name, "a file of a trial that is over cannot be removed");
            }
        }
    }

    /// The node is another console's, which counts anew.
    pub(super) fn forget_gone_back(&mut self) -> io::Result<()> {
        self.gone_back = None;
        self.directory.remove(TRIAL)
    }

    /// Reads how far the stored snapshot's trial is, and goes back where its time is over.
    pub(super) fn load_trial(&mut self) -> Result<(), StateError> {
        let record = self.directory.read(TRIAL).map_err(|error| self.failed("reading trial.json", error))?;
        // A trial without a time that can be read is over.
        let record: Option<Record> = record.and_then(|json| serde_json::from_slice(&json).ok());
        let stored = self.snapshot.as_ref().map(|stored| (stored.snapshot.id, stored.snapshot.trial_ms));
        let Some((_, Some(trial_ms))) = stored else {
            let of_newer = |record: &Record| stored.is_none_or(|(id, _)| id < record.id);
            self.gone_back =
                record.filter(|record| record.is_over() && of_newer(record)).map(|record| record.id);
            return Ok(());
        };
        let back = self.load_snapshot(CONFIRMED)?.and_then(|back| {
            back.inspect_err(|aside| {
                tracing::error!(error = sentence(aside), "there is nothing to go back to")
            })
            .ok()
        });
        let record = record.filter(|record| !record.gone_back);
        let left = record.map_or(0, |record| record.until_ms.saturating_sub(now_ms()));
        // The wall clock may have been set back meanwhile.
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(whole(trial_ms));
        self.trial = Some(Trial { back, until: Instant::now() + left });
        if left.is_zero()
            && let Some(Err(error)) = self.go_back()
        {
            tracing::error!(error = sentence(&error), "the confirmed snapshot is in force and not stored");
        }
        Ok(())
    }
}

fn whole(trial_ms: u32) -> Duration {
    Duration::from_millis(trial_ms.into()) + GRACE
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
