//! Events by their number in the log: a client that names the last one it saw misses none.
//!
//! Such a stream tells an event once the log has it durably, so that a number which a client has seen is never given to
//! another event. While one listens, events are not gathered before they are written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use gantry_model::Timestamp;
use gantry_store::{Event, Store};
use gantry_wire::EventMessage;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Events, Wanted};
use crate::engine::blocking;
use crate::query::EventsQuery;
use crate::{EngineError, EventStream, Result};

/// Events that are read from the log at once.
const PAGE: usize = 256;

/// Where a numbered stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeAfter {
    /// After the event of this number; 0: with the first that ever was.
    Number(u64),
    /// With what happens from now on.
    Now,
}

/// A numbered stream's place in the log.
struct Place {
    store: Store,
    live: broadcast::Receiver<Arc<Event>>,
    /// The last number that was told.
    after: u64,
    page: VecDeque<Event>,
    /// Whether the log has more than what is in the page.
    behind: bool,
    until: Option<Instant>,
    /// Held for as long as somebody listens.
    _eager: Eager,
}

/// As long as one of these lives, events are written at once.
struct Eager(Arc<Events>);

impl Eager {
    fn new(events: &Arc<Events>) -> Self {
        events.eager.fetch_add(1, Ordering::Relaxed);
        Self(events.clone())
    }
}

impl Drop for Eager {
    fn drop(&mut self) {
        self.0.eager.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Events {
    /// Events with their numbers, none missing after the one that is named. A client too slow to be told all before the
    /// log drops them finds its stream ended.
    ///
    /// # Errors
    /// Events after the named one that are not kept any more, or a number that the log has not reached.
    pub(crate) async fn stream_numbered(
        self: &Arc<Self>,
        query: EventsQuery,
        after: ResumeAfter,
    ) -> Result<EventStream> {
        let eager = Eager::new(self);
        let live = self.store.subscribe();
        self.flush().await;
        let store = self.store.clone();
        let range = blocking(move || store.event_range()).await??;
        let (first, last) = range.unwrap_or((1, 0));
        let after = match after {
            ResumeAfter::Now => last,
            ResumeAfter::Number(after) if after > last => {
                return Err(EngineError::gone(format!(
                    "there is no event {after}: the last one is {last}"
                )));
            }
            ResumeAfter::Number(after) if after + 1 < first => {
                return Err(EngineError::gone(format!(
                    "events after {after} are not kept any more: the first one is {first}"
                )));
            }
            ResumeAfter::Number(after) => after,
        };
        let until = query.until.map(|until| until.since(Timestamp::now()));
        let place = Place {
            store: self.store.clone(),
            live,
            after,
            page: VecDeque::new(),
            behind: after < last,
            until: until.map(|left| Instant::now() + left),
            _eager: eager,
        };
        let wanted = Wanted::new(query);
        let events = futures_util::stream::unfold(place, Place::next).filter_map(move |event| {
            let message = decode(event).filter(|message| wanted.since(message));
            std::future::ready(message)
        });
        Ok(Box::pin(events))
    }
}

fn decode(event: Event) -> Option<EventMessage> {
    let mut message: EventMessage = serde_json::from_value(event.value).ok()?;
    message.seq = Some(event.seq);
    Some(message)
}

impl Place {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.page.pop_front() {
                if event.seq != self.after + 1 {
                    tracing::warn!("a listener was too slow for the log of events");
                    return None;
                }
                self.after = event.seq;
                return Some((event, self));
            }
            if self.behind {
                self.read().await?;
                continue;
            }
            let next = self.live.recv();
            let next = match self.until {
                Some(end) => tokio::time::timeout_at(end, next).await.ok()?,
                None => next.await,
            };
            match next {
                Ok(event) if event.seq == self.after + 1 => self.page.push_back((*event).clone()),
                Ok(event) => self.behind = event.seq > self.after,
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Reads on in the log.
    async fn read(&mut self) -> Option<()> {
        let (store, after) = (self.store.clone(), self.after);
        let page = blocking(move || store.events_page(after, PAGE))
            .await
            .ok()?;
        self.page = page.ok()?.into();
        self.behind = self.page.len() == PAGE;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{attributes, events};
    use super::*;

    async fn take(stream: &mut EventStream, count: usize) -> Vec<(u64, String)> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let event = stream.next().await.unwrap();
            taken.push((event.seq.unwrap(), event.action));
        }
        taken
    }

    async fn from(events: &Arc<Events>, after: u64) -> EventStream {
        let query = EventsQuery::default();
        let after = ResumeAfter::Number(after);
        events.stream_numbered(query, after).await.unwrap()
    }

    #[tokio::test]
    async fn a_resumed_stream_misses_nothing() {
        let (events, _dir) = events().await;
        events.tell("container", "create", "c", attributes("a"));
        let mut stream = from(&events, 0).await;
        events.tell("container", "start", "c", attributes("a"));
        let taken = take(&mut stream, 2).await;
        assert_eq!(taken, [(1, "create".to_owned()), (2, "start".to_owned())]);
        drop(stream);
        for number in 0..600 {
            events.tell("volume", &number.to_string(), "v", attributes("v"));
        }
        let mut stream = from(&events, 2).await;
        events.tell("volume", "600", "v", attributes("v"));
        let taken = take(&mut stream, 601).await;
        let numbers: Vec<u64> = taken.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers, (3..604).collect::<Vec<_>>());
        assert!(
            (0..601).eq(taken
                .iter()
                .map(|(_, action)| action.parse::<i32>().unwrap()))
        );
    }

    #[tokio::test]
    async fn numbers_out_of_the_log_are_refused() {
        let (events, _dir) = events().await;
        events.tell("volume", "create", "v", attributes("v"));
        let ask = async |after| {
            let query = EventsQuery::default();
            events.stream_numbered(query, after).await.map(drop)
        };
        assert!(ask(ResumeAfter::Number(1)).await.is_ok());
        assert!(ask(ResumeAfter::Now).await.is_ok());
        let error = ask(ResumeAfter::Number(2)).await.unwrap_err();
        assert_eq!(error.message, "there is no event 2: the last one is 1");
    }

    #[tokio::test]
    async fn from_now_on() {
        let (events, _dir) = events().await;
        events.tell("volume", "before", "v", attributes("v"));
        let query = EventsQuery::default();
        let stream = events.stream_numbered(query, ResumeAfter::Now).await;
        events.tell("volume", "after", "v", attributes("v"));
        let taken = take(&mut stream.unwrap(), 1).await;
        assert_eq!(taken, [(2, "after".to_owned())]);
    }
}
