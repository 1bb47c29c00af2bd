//! A set of changes that is applied whole or not at all.

use gantry_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result, Table, Unreadable};

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Put {
        table: &'static str,
        key: String,
        value: Vec<u8>,
        must_be_new: bool,
    },
    Delete {
        table: &'static str,
        key: String,
    },
    SetAside {
        table: &'static str,
        key: String,
    },
    Event {
        time: Timestamp,
        value: serde_json::Value,
    },
}

/// Changes to any number of tables, and the events that tell of them.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
}

impl Batch {
    /// An empty batch. Committing it acknowledges all batches handed in before.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, replacing one of the same key.
    ///
    /// # Errors
    /// [`Error::Record`] when the value cannot be written as JSON; the batch is unchanged then.
    pub fn put<T: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
    ) -> Result<&mut Self> {
        self.push(table, key, value, false)
    }

    /// Writes a record that must not exist yet: the whole batch fails with [`Error::Exists`] if it does when the batch's
    /// turn comes.
    ///
    /// # Errors
    /// As [`Batch::put`].
    pub fn create<T: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
    ) -> Result<&mut Self> {
        self.push(table, key, value, true)
    }

    /// Deletes a record; deleting an absent one succeeds.
    pub fn delete<T>(&mut self, table: &Table<T>, key: &str) -> &mut Self {
        self.ops.push(Op::Delete {
            table: table.name(),
            key: key.into(),
        });
        self
    }

    /// Moves a record that cannot be read out of its table, into one of the store's own, where it harms nobody and a person
    /// can look at it.
    pub fn set_aside(&mut self, record: &Unreadable) -> &mut Self {
        self.ops.push(Op::SetAside {
            table: record.table,
            key: record.key.clone(),
        });
        self
    }

    /// Adds an event of this time; its sequence number is in [`crate::Committed::events`], at the place of this event
    /// among the batch's events.
    pub fn event(&mut self, time: Timestamp, value: serde_json::Value) -> &mut Self {
        self.ops.push(Op::Event { time, value });
        self
    }

    /// Appends the changes of another batch.
    pub fn append(&mut self, mut other: Self) -> &mut Self {
        self.ops.append(&mut other.ops);
        self
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn push<T: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
        must_be_new: bool,
    ) -> Result<&mut Self> {
        let value = serde_json::to_vec(value).map_err(|error| Error::Record {
            table: table.name().into(),
            key: key.into(),
            detail: error.to_string(),
        })?;
        self.ops.push(Op::Put {
            table: table.name(),
            key: key.into(),
            value,
            must_be_new,
        });
        Ok(self)
    }
}
