//! Figures by the minute: summed in memory as reports arrive, written every few seconds.
//!
//! The minute is the console's: nodes' clocks differ.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::report::{Leg, Place, Report};
use time::OffsetDateTime;

use crate::clock;
use crate::store::{DropRow, MinuteRow, Store, StoreError, TrafficRow};

/// Routes with their own figures in one minute; the rest count only in the sum of all.
const ROUTES: usize = 1000;
/// Reasons and rules in one minute.
const REASONS: usize = 1000;
/// Minutes kept: a day.
const KEPT: i64 = 24 * 60;

/// Sums; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    traffic: BTreeMap<(i64, String), TrafficRow>,
    drops: BTreeMap<(i64, Place, String, u32), u64>,
    legs: BTreeMap<(String, bool), (Leg, i64)>,
    changed: bool,
}

fn minute_of(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(60)
}

impl Figures {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        // Counters: at worst one report is half counted after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with what is stored of the present minute, which writing replaces.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let minute = minute_of(clock::now());
        let figures = Self::default();
        let (traffic, drops) = (store.traffic_of_minute(minute).await?, store.drops(minute).await?);
        let mut sums = figures.lock();
        sums.traffic = traffic.into_iter().map(|row| ((row.minute, row.route.clone()), row)).collect();
        sums.drops =
            drops.into_iter().map(|row| ((row.minute, row.place, row.reason, row.rule), row.count)).collect();
        drop(sums);
        Ok(figures)
    }

    /// Adds a report.
    pub fn add(&self, report: &Report, at: OffsetDateTime) {
        let minute = minute_of(at);
        let mut sums = self.lock();
        for one in &report.routes {
            sums.answers(minute, "", one);
            sums.answers(minute, one.route.as_str(), one);
            for (client, leg) in [(true, &one.client), (false, &one.origin)] {
                if let Some(leg) = leg {
                    sums.legs
                        .insert((one.route.as_str().to_owned(), client), (leg.clone(), clock::to_ms(at)));
                }
            }
        }
        // A minute without a request is a measured nothing, not a gap.
        sums.point(minute, "");
        for one in &report.drops {
            let key = (minute, one.place, one.reason.clone(), one.rule);
            if sums.drops.contains_key(&key) || sums.drops.len() < REASONS {
                *sums.drops.entry(key).or_default() += one.count;
            }
        }
        sums.changed = true;
    }

    /// What is not (or not wholly) written yet, for one route or all (`""`).
    pub fn traffic(&self, route: &str) -> Vec<TrafficRow> {
        self.lock().traffic.values().filter(|row| row.route == route).cloned().collect()
    }

    /// Drops that are not wholly written yet.
    pub fn drops(&self) -> Vec<DropRow> {
        self.lock().drops.iter().map(|(key, count)| drop_row(key, *count)).collect()
    }

    /// A leg that is not written yet.
    pub fn leg(&self, route: &str, client: bool) -> Option<(Leg, i64)> {
        self.lock().legs.get(&(route.to_owned(), client)).cloned()
    }

    /// Writes what has changed and forgets minutes that are over.
    ///
    /// # Errors
    /// When the store fails; the next call tries again.
    pub async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let now = minute_of(clock::now());
        let row = {
            let mut sums = self.lock();
            if !std::mem::take(&mut sums.changed) {
                return Ok(());
            }
            MinuteRow {
                traffic: sums.traffic.values().cloned().collect(),
                drops: sums.drops.iter().map(|(key, count)| drop_row(key, *count)).collect(),
                legs: sums.legs.iter().map(|((r, c), (leg, at))| (r.clone(), *c, leg.clone(), *at)).collect(),
            }
        };
        if let Err(error) = store.write_minute(&row, now - KEPT).await {
            self.lock().changed = true;
            return Err(error);
        }
        let mut sums = self.lock();
        // A leg that changed meanwhile is written the next time; one that did not is now in the store.
        sums.legs.retain(|(route, client), (_, at)| {
            !row.legs.iter().any(|(r, c, _, written)| r == route && c == client && written == at)
        });
        sums.traffic.retain(|(minute, _), _| *minute >= now);
        sums.drops.retain(|(minute, ..), _| *minute >= now);
        Ok(())
    }
}

fn drop_row((minute, place, reason, rule): &(i64, Place, String, u32), count: u64) -> DropRow {
    DropRow { minute: *minute, place: *place, reason: reason.clone(), rule: *rule, count }
}

impl Sums {
    fn point(&mut self, minute: i64, route: &str) -> Option<&mut TrafficRow> {
        let key = (minute, route.to_owned());
        if !route.is_empty() && !self.traffic.contains_key(&key) && self.traffic.len() >= ROUTES {
            return None;
        }
        let empty = || TrafficRow { minute, route: route.to_owned(), ..TrafficRow::default() };
        Some(self.traffic.entry(key).or_insert_with(empty))
    }

    fn answers(&mut self, minute: i64, route: &str, one: &model::report::RouteReport) {
        let Some(row) = self.point(minute, route) else { return };
        for (sum, count) in row.responses.iter_mut().zip(one.responses) {
            *sum = sum.saturating_add(count);
        }
        row.added.merge(&one.added);
        row.total.merge(&one.total);
    }
}
