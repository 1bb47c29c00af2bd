//! What happened: a bounded memory of events, and everybody who listens.
//!
//! An event is told at once and written to the store's log within a second, together with others: the start of a
//! container waits for no disk. After a restart the log is read back.

mod filter;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use gantry_model::Timestamp;
use gantry_store::{Batch, Store};
use gantry_wire::{EventActor, EventMessage};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use crate::query::EventsQuery;
use crate::{EngineError, EventStream, Result};

/// Events that are remembered.
const KEPT: usize = 1024;
/// Events that a slow listener may lag behind.
const LAG: usize = 1024;
/// How long events are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// Attributes of an event.
pub(crate) type Attributes = BTreeMap<String, String>;

struct Past {
    kept: VecDeque<Arc<EventMessage>>,
    unwritten: Vec<Arc<EventMessage>>,
}

/// The events of one engine.
pub(crate) struct Events {
    past: Mutex<Past>,
    live: broadcast::Sender<Arc<EventMessage>>,
    gathered: Arc<Notify>,
    store: Store,
}

impl Events {
    /// Reads the log back and begins to write.
    pub(crate) fn open(store: &Store) -> Result<Arc<Self>> {
        let kept: VecDeque<Arc<EventMessage>> = store
            .events_after(0)?
            .into_iter()
            .rev()
            .take(KEPT)
            .filter_map(|event| serde_json::from_value(event.value).ok())
            .map(Arc::new)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let events = Arc::new(Self {
            past: Mutex::new(Past {
                kept,
                unwritten: Vec::new(),
            }),
            live: broadcast::Sender::new(LAG),
            gathered: Arc::default(),
            store: store.clone(),
        });
        tokio::spawn(write(Arc::downgrade(&events), events.gathered.clone()));
        tokio::spawn(relay(Arc::downgrade(&events), store.subscribe()));
        Ok(events)
    }

    /// Tells that something happened to an object.
    pub(crate) fn tell(&self, kind: &str, action: &str, id: &str, attributes: Attributes) {
        let now = Timestamp::now();
        self.tell_message(EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: EventActor {
                id: id.into(),
                attributes,
            },
            scope: "local".into(),
            time: now.seconds(),
            time_nano: i64::try_from(now.nanoseconds()).unwrap_or(i64::MAX),
        });
    }

    fn tell_message(&self, message: EventMessage) {
        self.publish(Arc::new(message), true);
    }

    fn publish(&self, message: Arc<EventMessage>, unwritten: bool) {
        let mut past = self.past.lock();
        if past.kept.len() == KEPT {
            past.kept.pop_front();
        }
        past.kept.push_back(message.clone());
        if unwritten {
            past.unwritten.push(message.clone());
        }
        // Under the lock, so that listeners see the order of the log. Nobody listening is no error.
        let _ = self.live.send(message);
        drop(past);
        self.gathered.notify_one();
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    /// Writes what has been gathered.
    pub(crate) async fn flush(&self) {
        let unwritten = std::mem::take(&mut self.past.lock().unwritten);
        let mut batch = Batch::new();
        for message in unwritten {
            let nanos = i128::from(message.time_nano);
            let time = Timestamp::from_unix(
                message.time,
                i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
            );
            if let Ok(value) = serde_json::to_value(&*message) {
                batch.event(time, value);
            }
        }
        if !batch.is_empty()
            && let Err(error) = self.store.commit(batch).await
        {
            tracing::warn!(%error, "events are lost from the log");
        }
    }

    /// Past and coming events.
    ///
    /// # Errors
    /// Unknown filters.
    pub(crate) fn stream(&self, query: EventsQuery) -> Result<EventStream> {
        query.filters.check(filter::KEYS)?;
        let nanos = |time: Timestamp| i64::try_from(time.nanoseconds()).unwrap_or(i64::MAX);
        let (since, until) = (query.since.map(nanos), query.until.map(nanos));
        let (past, live) = {
            let past = self.past.lock();
            (past.kept.clone(), self.live.subscribe())
        };
        let filters = query.filters;
        let wanted = move |event: &EventMessage| {
            until.is_none_or(|until| event.time_nano <= until) && filter::matches(&filters, event)
        };
        let before: Vec<Arc<EventMessage>> = match since {
            Some(since) => past
                .into_iter()
                .filter(|event| event.time_nano >= since && wanted(event))
                .collect(),
            // With an end alone, everything up to it is meant.
            None if until.is_some_and(|until| until < nanos(Timestamp::now())) => {
                past.into_iter().filter(|event| wanted(event)).collect()
            }
            None => Vec::new(),
        };
        let before = futures_util::stream::iter(before).map(|event| EventMessage::clone(&event));
        let rest = query
            .until
            .map(|until| until.since(Timestamp::now()))
            .map(|left| tokio::time::Instant::now() + left);
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
            let shown = wanted(&event).then(|| EventMessage::clone(&event));
            std::future::ready(shown)
        });
        Ok(Box::pin(before.chain(coming)))
    }
}

/// Writes gathered events every now and then, for as long as there is an engine.
async fn write(events: std::sync::Weak<Events>, gathered: Arc<Notify>) {
    loop {
        gathered.notified().await;
        tokio::time::sleep(GATHER).await;
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
            Ok(message) if is_images(&message) => events.publish(Arc::new(message), false),
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
mod tests {
    use super::*;
    use gantry_wire::Filters;

    async fn events() -> (Arc<Events>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        (Events::open(&store).unwrap(), dir)
    }

    fn attributes(name: &str) -> Attributes {
        [("name".to_owned(), name.to_owned())].into()
    }

    async fn past(events: &Events, filters: &str) -> Vec<String> {
        let query = EventsQuery {
            since: Some(Timestamp::from_unix(0, 0)),
            until: Some(Timestamp::now()),
            filters: Filters::parse(filters).unwrap(),
        };
        let stream = events.stream(query).unwrap();
        stream.map(|event| event.action).collect().await
    }

    #[tokio::test]
    async fn past_events_are_filtered() {
        let (events, _dir) = events().await;
        events.tell("container", "create", "c1", attributes("web"));
        events.tell("container", "exec_create: ls", "c1", attributes("web"));
        events.tell("network", "connect", "n1", attributes("bridge"));
        assert_eq!(past(&events, "").await.len(), 3);
        assert_eq!(past(&events, r#"{"container":["web"]}"#).await.len(), 2);
        assert_eq!(past(&events, r#"{"type":["network"]}"#).await, ["connect"]);
        assert_eq!(
            past(&events, r#"{"event":["exec_create"]}"#).await,
            ["exec_create: ls"]
        );
        let bad = EventsQuery {
            filters: Filters::parse(r#"{"nope":["x"]}"#).unwrap(),
            ..EventsQuery::default()
        };
        assert!(events.stream(bad).is_err());
    }

    #[tokio::test]
    async fn coming_events_arrive() {
        let (events, _dir) = events().await;
        let mut stream = events.stream(EventsQuery::default()).unwrap();
        events.tell("volume", "create", "v", Attributes::new());
        assert_eq!(stream.next().await.unwrap().kind, "volume");
    }

    #[tokio::test]
    async fn the_log_is_read_back() {
        let (events, dir) = events().await;
        events.tell("volume", "create", "v", Attributes::new());
        events.flush().await;
        let store = events.store.clone();
        drop(events);
        let again = Events::open(&store).unwrap();
        assert_eq!(past(&again, "").await, ["create"]);
        drop(dir);
    }
}
