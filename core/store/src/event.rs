//! The bounded event log.

use gantry_model::Timestamp;
use redb::{ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::db::Db;
use crate::{Error, Result};

/// Sequence number to JSON.
pub(crate) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("_events");

/// One event of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened, in the writer's own form.
    pub value: serde_json::Value,
}

/// An event as it stands in the file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) time: Timestamp,
    pub(crate) value: serde_json::Value,
}

/// Up to `max` events with a number above `after`, oldest first.
pub(crate) fn page(db: &Db, after: u64, max: usize) -> Result<Vec<Event>> {
    let raw = db.with(|database| {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(EVENTS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut raw = Vec::new();
        for entry in table.range(after.saturating_add(1)..)?.take(max) {
            let (seq, value) = entry?;
            raw.push((seq.value(), serde_json::from_slice::<Stored>(value.value())));
        }
        Ok(raw)
    })?;
    raw.into_iter()
        .map(|(seq, stored)| {
            let stored = stored.map_err(|error| Error::Record {
                table: "_events".into(),
                key: seq.to_string(),
                detail: error.to_string(),
            })?;
            Ok(Event {
                seq,
                time: stored.time,
                value: stored.value,
            })
        })
        .collect()
}

/// The numbers of the oldest and the newest event that are kept.
pub(crate) fn range(db: &Db) -> Result<Option<(u64, u64)>> {
    use redb::ReadableTable;
    db.with(|database| {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(EVENTS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let first = table.first()?.map(|(seq, _)| seq.value());
        let last = table.last()?.map(|(seq, _)| seq.value());
        Ok(first.zip(last))
    })
}
