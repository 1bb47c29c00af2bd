//! What happened: a bounded memory of events, and everybody who listens.
//!
//! An event is told at once and written to the store's log within a second, together with others: the start of a
//! container waits for no disk. Until then it stands in a spool under the exec-root, so that a daemon that is killed loses
//! none; a power cut may take those of the last second. After a restart the log is read back.

mod filter;
mod resume;
mod spool;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use gantry_model::Timestamp;
use gantry_store::{Batch, Store};
use gantry_wire::{EventActor, EventMessage, Filters};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

pub use resume::ResumeAfter;

use crate::query::EventsQuery;
use crate::{EngineError, EventStream, Result};
use spool::Spool;

/// Events that are remembered.
const KEPT: usize = 1024;
/// Events that a slow listener may lag behind.
const LAG: usize = 1024;
/// How long events are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// Events that wait for a disk that does not take them.
const MAX_UNWRITTEN: usize = 16 * KEPT;

/// Attributes of an event.
pub(crate) type Attributes = BTreeMap<String, String>;

struct Past {
    kept: VecDeque<Arc<EventMessage>>,
    unwritten: Vec<Arc<EventMessage>>,
    spool: Spool,
}

/// The events of one engine.
pub(crate) struct Events {
    past: Mutex<Past>,
    live: broadcast::Sender<Arc<EventMessage>>,
    gathered: Arc<Notify>,
    store: Store,
    /// How many listen to what is in the log.
    eager: AtomicUsize,
    /// Held while events are written, so that the log has them in order.
    writing: tokio::sync::Mutex<()>,
}

/// What of the events a client wants.
struct Wanted {
    since: Option<i64>,
    until: Option<i64>,
    filters: Filters,
}

impl Wanted {
    fn new(query: EventsQuery) -> Self {
        let nanos = |time: Timestamp| i64::try_from(time.nanoseconds()).unwrap_or(i64::MAX);
        Self {
            since: query.since.map(nanos),
            until: query.until.map(nanos),
            filters: query.filters,
        }
    }

    /// Of those that are to come.
    fn coming(&self, event: &EventMessage) -> bool {
        self.until.is_none_or(|until| event.time_nano <= until)
            && filter::matches(&self.filters, event)
    }

    /// Of those that were.
    fn since(&self, event: &EventMessage) -> bool {
        self.since.is_none_or(|since| event.time_nano >= since) && self.coming(event)
    }
}

impl Events {
    /// Reads the log and the spool back, and begins to write.
    pub(crate) fn open(store: &Store, spool: &Path) -> Result<Arc<Self>> {
        let last = store.event_range()?.map_or(0, |(_, last)| last);
        let mut kept: Vec<Arc<EventMessage>> = store
            .events_after(last.saturating_sub(KEPT as u64))?
            .into_iter()
            .filter_map(|event| serde_json::from_value(event.value).ok())
            .map(Arc::new)
            .collect();
        let (spool, left) = Spool::open(spool).map_err(|e| EngineError::io(spool.display(), &e))?;
        // The daemon may have died between writing the log and removing the spool.
        let unwritten: Vec<Arc<EventMessage>> = left
            .into_iter()
            .filter(|event| !kept.iter().any(|logged| **logged == *event))
            .map(Arc::new)
            .collect();
        kept.extend(unwritten.iter().cloned());
        // Images' events are in the log before those that were gathered meanwhile.
        kept.sort_by_key(|event| event.time_nano);
        kept.drain(..kept.len().saturating_sub(KEPT));
        let events = Arc::new(Self {
            past: Mutex::new(Past {
                kept: kept.into(),
                unwritten,
                spool,
            }),
            live: broadcast::Sender::new(LAG),
            gathered: Arc::default(),
            store: store.clone(),
            eager: AtomicUsize::new(0),
            writing: tokio::sync::Mutex::default(),
        });
        events.gathered.notify_one();
        tokio::spawn(write(Arc::downgrade(&events), events.gathered.clone()));
        tokio::spawn(relay(Arc::downgrade(&events), store.subscribe()));
        Ok(events)
    }

    /// Tells that something happened to an object.
    pub(crate) fn tell(&self, kind: &str, action: &str, id: &str, attributes: Attributes) {
        let mut past = self.past.lock();
        // Under the lock, so that times are in the order in which events are told.
        let now = Timestamp::now();
        let message = EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: EventActor {
                id: id.into(),
                attributes,
            },
            scope: "local".into(),
            time: now.seconds(),
            time_nano: i64::try_from(now.nanoseconds()).unwrap_or(i64::MAX),
            seq: None,
        };
        if let Err(error) = past.spool.append(&message) {
            tracing::warn!(%error, "an event would not survive the daemon's death now");
        }
        let message = Arc::new(message);
        past.unwritten.push(message.clone());
        self.publish(&mut past, message);
        drop(past);
        self.gathered.notify_one();
    }

    /// Tells those who listen, under the lock of what was, so that they see the same order.
    fn publish(&self, past: &mut Past, message: Arc<EventMessage>) {
        if past.kept.len() == KEPT {
            past.kept.pop_front();
        }
        past.kept.push_back(message.clone());
        // Nobody listening is no error.
        let _ = self.live.send(message);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count() + self.eager.load(Ordering::Relaxed)
    }

    /// Writes what has been gathered.
    pub(crate) async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let (messages, cut, dir) = {
            let mut past = self.past.lock();
            let messages = std::mem::take(&mut past.unwritten);
            (messages, past.spool.cut(), past.spool.dir().to_owned())
        };
        let mut batch = Batch::new();
        for message in &messages {
            let nanos = i128::from(message.time_nano);
            let time = Timestamp::from_unix(
                message.time,
                i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
            );
            if let Ok(value) = serde_json::to_value(&**message) {
                batch.event(time, value);
            }
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.commit(batch).await {
            tracing::warn!(%error, "events are not in the log yet");
            let mut past = self.past.lock();
            past.unwritten.splice(0..0, messages);
            let excess = past.unwritten.len().saturating_sub(MAX_UNWRITTEN);
            past.unwritten.drain(..excess);
            return;
        }
        if let Err(error) = cut.and_then(|cut| Spool::forget(&dir, cut)) {
            tracing::warn!(%error, "cannot remove the events' spool");
        }
    }

    /// Past and coming events.
    pub(crate) fn stream(&self, query: EventsQuery) -> EventStream {
        // Without either time, only what comes is meant.
        let asks_past = query.since.is_some() || query.until.is_some();
        let rest = query
            .until
            .map(|until| tokio::time::Instant::now() + until.since(Timestamp::now()));
        let wanted = Wanted::new(query);
        let (past, live) = {
            let past = self.past.lock();
            let before: Vec<Arc<EventMessage>> = match asks_past {
                true => past.kept.iter().cloned().collect(),
                false => Vec::new(),
            };
            (before, self.live.subscribe())
        };
        let before: Vec<_> = past.into_iter().filter(|e| wanted.since(e)).collect();
        let before = futures_util::stream::iter(before).map(|event| EventMessage::clone(&event));
        let coming = futures_util::stream::unfold(live, move |mut live| async move {
            loop {
                let next = async { live.recv().await };
                let next = match rest {
                    Some(end) => tokio::time::timeout_at(end, next).await.ok()?,
                    None => next.await,
                };
                match next {
                    Ok(event) => return Some((event, live)),
                    // A listener too slow for the events loses some, as with Docker.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .filter_map(move |event| {
            let shown = wanted.coming(&event).then(|| EventMessage::clone(&event));
            std::future::ready(shown)
        });
        Box::pin(before.chain(coming))
    }
}

/// Writes gathered events every now and then, for as long as there is an engine.
async fn write(events: std::sync::Weak<Events>, gathered: Arc<Notify>) {
    loop {
        gathered.notified().await;
        let awaited = events
            .upgrade()
            .is_some_and(|events| events.eager.load(Ordering::Relaxed) > 0);
        if !awaited {
            tokio::time::sleep(GATHER).await;
        }
        match events.upgrade() {
            Some(events) => events.flush().await,
            None => return,
        }
    }
}

/// Passes on what the image service writes into the log itself, together with its changes.
async fn relay(
    events: std::sync::Weak<Events>,
    mut log: broadcast::Receiver<Arc<gantry_store::Event>>,
) {
    loop {
        let event = match log.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(events) = events.upgrade() else {
            return;
        };
        match serde_json::from_value::<EventMessage>(event.value.clone()) {
            Ok(message) if is_images(&message) => {
                let mut past = events.past.lock();
                events.publish(&mut past, Arc::new(message));
            }
            _ => {}
        }
    }
}

/// Whether an event comes from the image service. A prune as a whole is the engine's.
fn is_images(message: &EventMessage) -> bool {
    message.kind == "image" && message.action != "prune"
}

impl From<gantry_wire::FilterError> for EngineError {
    fn from(error: gantry_wire::FilterError) -> Self {
        Self::bad_request(error.to_string())
    }
}

#[cfg(test)]
mod tests;
