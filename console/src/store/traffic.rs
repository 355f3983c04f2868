//! Traffic by the minute, for 24 hours.

use model::report::{Histogram, Leg, Place};
use time::OffsetDateTime;

use super::{Store, StoreError, signed, unsigned};
use crate::clock;
use crate::ops::SeenLeg;

/// A minute (or more) of one route's answers; route `""` is all routes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficRow {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// The route.
    pub route: String,
    /// Answers by class.
    pub responses: [u64; 4],
    /// Time added.
    pub added: Histogram,
    /// Whole time.
    pub total: Histogram,
}

/// Drops of one reason and rule in a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropRow {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// Kernel or proxy.
    pub place: Place,
    /// The reason.
    pub reason: String,
    /// The rule's number, 0 where none decided.
    pub rule: u32,
    /// How many.
    pub count: u64,
}

/// Everything that is written for a minute.
#[derive(Debug, Clone, Default)]
pub struct MinuteRow {
    /// By route, and `""`.
    pub traffic: Vec<TrafficRow>,
    /// By reason.
    pub drops: Vec<DropRow>,
    /// Route, whether it is the client's side, leg, milliseconds since the Unix epoch.
    pub legs: Vec<(String, bool, Leg, i64)>,
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_json| StoreError::Row("report"))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_json| StoreError::Row("report"))
}

fn place_text(place: Place) -> &'static str {
    match place {
        Place::Kernel => "kernel",
        Place::Proxy => "proxy",
    }
}

impl Store {
    /// Writes a minute and forgets what is older than `keep_from` (a minute). What is there for it is replaced.
    ///
    /// # Errors
    /// When the database fails; then nothing is written.
    pub async fn write_minute(&self, row: &MinuteRow, keep_from: i64) -> Result<(), StoreError> {
        let mut write = self.writer.begin().await?;
        for t in &row.traffic {
            let [ok, moved, client, server] = t.responses.map(signed);
            let (added, total) = (json(&t.added)?, json(&t.total)?);
            sqlx::query!(
                "INSERT OR REPLACE INTO traffic (minute, route, ok, moved, client, server, added, total)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                t.minute,
                t.route,
                ok,
                moved,
                client,
                server,
                added,
                total
            )
            .execute(&mut *write)
            .await?;
        }
        for d in &row.drops {
            let (place, count) = (place_text(d.place), signed(d.count));
            sqlx::query!(
                "INSERT OR REPLACE INTO drops (minute, place, reason, rule, count) VALUES (?, ?, ?, ?, ?)",
                d.minute,
                place,
                d.reason,
                d.rule,
                count
            )
            .execute(&mut *write)
            .await?;
        }
        for (route, client, leg, at) in &row.legs {
            let (side, leg) = (if *client { "client" } else { "origin" }, json(leg)?);
            sqlx::query!(
                "INSERT OR REPLACE INTO legs (route, side, leg, at_ms) VALUES (?, ?, ?, ?)",
                route,
                side,
                leg,
                at
            )
            .execute(&mut *write)
            .await?;
        }
        sqlx::query!("DELETE FROM traffic WHERE minute < ?", keep_from).execute(&mut *write).await?;
        sqlx::query!("DELETE FROM drops WHERE minute < ?", keep_from).execute(&mut *write).await?;
        write.commit().await?;
        Ok(())
    }

    /// One route's minutes from `from` on, oldest first; route `""` is all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn traffic(&self, route: &str, from: i64) -> Result<Vec<TrafficRow>, StoreError> {
        let rows = sqlx::query!(
            "SELECT minute, ok, moved, client, server, added, total FROM traffic
             WHERE route = ? AND minute >= ? ORDER BY minute",
            route,
            from
        )
        .fetch_all(&self.reader)
        .await?;
        let rows = rows.into_iter().map(|row| {
            Ok(TrafficRow {
                minute: row.minute,
                route: route.to_owned(),
                responses: [row.ok, row.moved, row.client, row.server].map(unsigned),
                added: parsed(&row.added)?,
                total: parsed(&row.total)?,
            })
        });
        rows.collect()
    }

    /// All routes' figures of one minute.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn traffic_of_minute(&self, minute: i64) -> Result<Vec<TrafficRow>, StoreError> {
        let rows = sqlx::query!(
            "SELECT route, ok, moved, client, server, added, total FROM traffic WHERE minute = ?",
            minute
        )
        .fetch_all(&self.reader)
        .await?;
        let rows = rows.into_iter().map(|row| {
            Ok(TrafficRow {
                minute,
                route: row.route,
                responses: [row.ok, row.moved, row.client, row.server].map(unsigned),
                added: parsed(&row.added)?,
                total: parsed(&row.total)?,
            })
        });
        rows.collect()
    }

    /// Drops from minute `from` on, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drops(&self, from: i64) -> Result<Vec<DropRow>, StoreError> {
        let rows = sqlx::query!(
            "SELECT minute, place, reason, rule, count FROM drops WHERE minute >= ? ORDER BY minute",
            from
        )
        .fetch_all(&self.reader)
        .await?;
        let rows = rows.into_iter().map(|row| {
            Ok(DropRow {
                minute: row.minute,
                place: match row.place.as_str() {
                    "kernel" => Place::Kernel,
                    "proxy" => Place::Proxy,
                    _ => return Err(StoreError::Row("drop")),
                },
                reason: row.reason,
                rule: u32::try_from(row.rule).unwrap_or(0),
                count: unsigned(row.count),
            })
        });
        rows.collect()
    }

    /// A route's legs as last seen: client's, origin's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn legs(&self, route: &str) -> Result<(Option<SeenLeg>, Option<SeenLeg>), StoreError> {
        let rows = sqlx::query!("SELECT side, leg, at_ms FROM legs WHERE route = ?", route)
            .fetch_all(&self.reader)
            .await?;
        let mut legs = (None, None);
        for row in rows {
            let at: OffsetDateTime = clock::from_ms(row.at_ms);
            let seen = Some(SeenLeg { leg: parsed(&row.leg)?, at });
            if row.side == "client" { legs.0 = seen } else { legs.1 = seen }
        }
        Ok(legs)
    }
}
