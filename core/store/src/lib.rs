//! Crash-safe state of the engine: typed tables and an event log in one file.
//!
//! One redb file under the data-root holds every record that must survive a power cut. Invariants:
//! - a [`Batch`] is applied whole or not at all, over any number of tables;
//! - a commit is acknowledged only when it is on disk; writers that arrive while a commit is being flushed share the
//!   next one (group commit), so durability costs one flush a group, not one a writer;
//! - batches are applied in the order in which they were handed to [`Store::commit`];
//! - an event's sequence number is given in the transaction of the change it tells of: numbers grow by one, are never
//!   reused, and an event is seen if and only if its change is.
//!
//! Values are JSON, so that a field can be added without a migration and a person can read the file's content.
//! Changes of meaning go through [`Migration`]s, which run in one transaction with the new version number.
//!
//! What it does not do: it caches nothing but file pages (records are re-read and decoded at each call: services keep
//! their own view), it knows no record types, and it does not guard the data-root against a second daemon (the
//! daemon's own lock does; the file's lock is only the last line of defence).

mod batch;
mod db;
mod error;
mod event;
mod migrate;
mod table;
mod writer;

pub use batch::Batch;
pub use error::{Error, Result};
pub use event::Event;
pub use migrate::{Migration, Rewrite};
pub use table::Table;
pub use writer::{Commit, Committed};

use std::path::Path;
use std::sync::Arc;

use gantry_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use crate::db::Db;
use crate::writer::Writer;

/// A record that is not of its table's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its table.
    pub table: &'static str,
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub detail: String,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The version of the records that this program reads and writes.
    pub version: u32,
    /// One step for each older version that can still be read, in ascending order.
    pub migrations: &'a [Migration],
    /// Bytes of file pages kept in memory.
    pub cache: usize,
    /// How many events are kept, at least one; older ones are dropped as new ones come.
    pub max_events: u64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            version: 1,
            migrations: &[],
            cache: 1 << 20,
            max_events: 16_384,
        }
    }
}

/// The open state file. Cheap to clone; all clones are one store, which closes with the last of them.
#[derive(Clone)]
pub struct Store {
    db: Arc<Db>,
    writer: Arc<Writer>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.db.path())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file at `path` with default [`Options`], making it when it is absent.
    ///
    /// # Errors
    /// See [`Store::open_with`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, &Options::default())
    }

    /// Opens the file at `path`, making it (mode 0600) when it is absent, and migrates it to `options.version`.
    ///
    /// # Errors
    /// [`Error::NotAStore`] and [`Error::Damaged`] for files that cannot be read, [`Error::Newer`] for those of a newer
    /// program, [`Error::TooOld`] where no migration leads on, [`Error::Locked`] when another process has it open. None
    /// of them changes the file.
    pub fn open_with(path: &Path, options: &Options<'_>) -> Result<Self> {
        let db = Arc::new(Db::open(path, options)?);
        let writer = Arc::new(Writer::start(db.clone(), options.max_events.max(1))?);
        Ok(Self { db, writer })
    }

    /// A handle to the table `name`, which exists from its first record on. Names that begin with `_` are the store's
    /// own.
    ///
    /// # Panics
    /// On a name of the store's own: names are constants of the program.
    #[must_use]
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Table<T> {
        assert!(!name.starts_with('_'), "table name {name:?} is reserved");
        Table::new(self.db.clone(), self.writer.clone(), name)
    }

    /// Hands a batch in for commit, at once and in order; await the returned [`Commit`], or [`Commit::wait`] for it on
    /// a thread that may block, or [`Commit::detach`] from it.
    pub fn commit(&self, batch: Batch) -> Commit {
        self.writer.submit(batch)
    }

    /// Events with a sequence number above `seq`, oldest first; `0` for all that are kept.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`].
    pub fn events_after(&self, seq: u64) -> Result<Vec<Event>> {
        self.events_page(seq, usize::MAX)
    }

    /// As [`Store::events_after`], at most `max` of them.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`].
    pub fn events_page(&self, seq: u64, max: usize) -> Result<Vec<Event>> {
        event::page(&self.db, seq, max)
    }

    /// Sequence numbers of the oldest and the newest event that are kept; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`].
    pub fn event_range(&self) -> Result<Option<(u64, u64)>> {
        event::range(&self.db)
    }

    /// Kept events with `since <= time < until` (either end open with `None`), oldest first.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`].
    pub fn events_between(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<Event>> {
        let mut events = self.events_after(0)?;
        events.retain(|event| {
            since.is_none_or(|since| event.time >= since)
                && until.is_none_or(|until| event.time < until)
        });
        Ok(events)
    }

    /// Receives each event after its commit, in order of sequence. Subscribe first and read [`Store::events_after`]
    /// next, dropping numbers seen twice, to miss none. A receiver that lags more than 1024 events behind is told so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.writer.subscribe()
    }
}
