//! The record over a restart of the keeper: a file in the run directory, of use until the machine starts anew.

use std::fs;

use serde::{Deserialize, Serialize};

use super::hour::{Hour, Written};
use crate::keeper::kernel::monotonic_ms;
use crate::keeper::run::Keeper;

/// In the run directory; only the keeper's user may read who sends.
const FILE: &str = "senders.json";

/// The record, and whose monotonic clock it goes by.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    boot: String,
    hour: Written,
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Keeper {
    /// Goes on with a former keeper's record. One that cannot be read is left out: it is of an hour, and its end is near.
    pub(in crate::keeper) fn read_senders(&mut self) {
        let read = self.run.read(FILE).ok().flatten();
        let record = read.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        if let Some(record) = record.filter(|record| !record.boot.is_empty() && record.boot == boot()) {
            self.sending.hour = Hour::read(record.hour, monotonic_ms());
        }
    }

    /// Writes it down for the next one.
    pub(in crate::keeper) fn write_senders(&mut self) {
        let record = Record { boot: boot(), hour: self.sending.hour.written() };
        let written = serde_json::to_vec(&record).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|json| self.run.write_volatile(FILE, &json, 0o600)) {
            tracing::warn!(%error, "who was sending cannot be written down: a restart begins anew");
        }
        (self.sending.written, self.sending.news.1) = (monotonic_ms(), false);
    }
}
