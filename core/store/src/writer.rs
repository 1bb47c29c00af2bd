//! Group commit: one thread applies what has been handed in and flushes it together.

use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use redb::{Durability, ReadableTable, ReadableTableMetadata, WriteTransaction};
use tokio::sync::{broadcast, oneshot};

use crate::batch::Op;
use crate::db::{Db, definition};
use crate::event::{EVENTS, Event, Stored, range};
use crate::{Batch, Error, Result};

/// How many batches share one flush at most: bounds a transaction's memory.
const MAX_GROUP: usize = 512;
/// Events that a slow subscriber may lag behind.
const SUBSCRIBER_LAG: usize = 1024;

/// Where records go that cannot be read, by `table/key`.
const ASIDE: &str = "_aside";

/// What a commit brought about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The sequence numbers of the batch's events, in the batch's order.
    pub events: Vec<u64>,
}

/// A batch on its way to the disk. Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "the batch is durable only when this has been awaited; call `detach` where that does not matter"]
pub struct Commit(oneshot::Receiver<Result<Committed>>);

impl Commit {
    /// Blocks until the batch is durable.
    ///
    /// # Errors
    /// Why nothing of the batch was applied.
    ///
    /// # Panics
    /// When called from asynchronous code: await it there.
    pub fn wait(self) -> Result<Committed> {
        self.0.blocking_recv().unwrap_or(Err(Error::Closed))
    }

    /// Leaves the batch to itself. A failure is logged by the store.
    pub fn detach(self) {}
}

impl Future for Commit {
    type Output = Result<Committed>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|reply| reply.unwrap_or(Err(Error::Closed)))
    }
}

struct Request {
    batch: Batch,
    reply: oneshot::Sender<Result<Committed>>,
}

/// The handle of the commit thread, which ends when this is dropped, after what was handed in is on disk.
pub(crate) struct Writer {
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Writer {
    pub(crate) fn start(db: Arc<Db>, max_events: u64) -> Result<Self> {
        let last_seq = range(&db)?.map_or(0, |(_, last)| last);
        let (requests, inbox) = mpsc::channel();
        let (events, _) = broadcast::channel(SUBSCRIBER_LAG);
        let path = db.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn({
                let events = events.clone();
                move || {
                    Worker {
                        db,
                        last_seq,
                        max_events,
                        events,
                    }
                    .run(&inbox);
                }
            })
            .map_err(|error| Error::Io {
                path,
                source: Arc::new(error),
            })?;
        Ok(Self {
            requests: Mutex::new(Some(requests)),
            thread: Some(thread),
            events,
        })
    }

    pub(crate) fn submit(&self, batch: Batch) -> Commit {
        let (reply, receiver) = oneshot::channel();
        if let Some(requests) = self.requests.lock().as_ref() {
            // A worker that is gone drops the reply, which the receiver reads as `Closed`.
            let _ = requests.send(Request { batch, reply });
        }
        Commit(receiver)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    db: Arc<Db>,
    last_seq: u64,
    max_events: u64,
    events: broadcast::Sender<Arc<Event>>,
}

impl Worker {
    fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        while let Ok(first) = inbox.recv() {
            let mut group = vec![first];
            group.extend(inbox.try_iter().take(MAX_GROUP - 1));
            self.commit(group);
        }
    }

    /// Commits a group and answers each of its members.
    fn commit(&mut self, group: Vec<Request>) {
        let mut new_events = Vec::new();
        let mut replies = Vec::with_capacity(group.len());
        let applied = self.db.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let mut seq = self.last_seq;
            for request in &group {
                replies.push(apply(
                    &transaction,
                    &request.batch,
                    &mut seq,
                    &mut new_events,
                )?);
            }
            if !new_events.is_empty() {
                trim(&transaction, self.max_events)?;
            }
            transaction.commit()?;
            Ok(seq)
        });
        match applied {
            Ok(seq) => {
                self.last_seq = seq;
                for (request, reply) in group.into_iter().zip(replies) {
                    let _ = request.reply.send(reply);
                }
                for event in new_events {
                    // Nobody may be listening.
                    let _ = self.events.send(Arc::new(event));
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = group.len(), "a commit failed");
                if matches!(error, Error::Io { .. }) {
                    self.db.reopen();
                }
                for request in group {
                    let _ = request.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Applies one batch, or nothing of it when a record that must be new exists.
fn apply(
    transaction: &WriteTransaction,
    batch: &Batch,
    seq: &mut u64,
    new_events: &mut Vec<Event>,
) -> std::result::Result<Result<Committed>, redb::Error> {
    for op in &batch.ops {
        if let Op::Put {
            table,
            key,
            must_be_new: true,
            ..
        } = op
            && transaction
                .open_table(definition(table))?
                .get(key.as_str())?
                .is_some()
        {
            return Ok(Err(Error::Exists {
                table: (*table).into(),
                key: key.clone(),
            }));
        }
    }
    let mut committed = Committed::default();
    for op in &batch.ops {
        match op {
            Op::Put {
                table, key, value, ..
            } => {
                let mut table = transaction.open_table(definition(table))?;
                table.insert(key.as_str(), value.as_slice())?;
            }
            Op::Delete { table, key } => {
                let mut table = transaction.open_table(definition(table))?;
                table.remove(key.as_str())?;
            }
            Op::SetAside { table, key } => {
                let mut from = transaction.open_table(definition(table))?;
                if let Some(record) = from.remove(key.as_str())? {
                    let mut aside = transaction.open_table(definition(ASIDE))?;
                    aside.insert(format!("{table}/{key}").as_str(), record.value())?;
                }
            }
            Op::Event { time, value } => {
                *seq += 1;
                let stored = Stored {
                    time: *time,
                    value: value.clone(),
                };
                let bytes = serde_json::to_vec(&stored).map_err(std::io::Error::other)?;
                let mut table = transaction.open_table(EVENTS)?;
                table.insert(*seq, bytes.as_slice())?;
                committed.events.push(*seq);
                new_events.push(Event {
                    seq: *seq,
                    time: *time,
                    value: stored.value,
                });
            }
        }
    }
    Ok(Ok(committed))
}

/// Drops the oldest events beyond the bound.
fn trim(transaction: &WriteTransaction, max: u64) -> std::result::Result<(), redb::Error> {
    let mut table = transaction.open_table(EVENTS)?;
    while table.len()? > max {
        table.pop_first()?;
    }
    Ok(())
}
