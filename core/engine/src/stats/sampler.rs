//! The task that all streams share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_model::{ContainerId, Timestamp};
use gantry_wire::ContainerStats;
use gantry_wire::stats::CpuStats;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{INTERVAL, host, nothing, sample, subject};
use crate::Engine;
use crate::container::Container;
use crate::engine::blocking;

/// A sample this old at least and at most serves to compare the next one with.
const USEFUL: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);

/// Processor time at a moment, and that moment as the process's own clock has it.
struct Last {
    at: Instant,
    read: Timestamp,
    cpu: CpuStats,
}

struct Watched {
    container: Arc<Container>,
    lines: watch::Sender<Bytes>,
}

#[derive(Default)]
struct State {
    watched: HashMap<ContainerId, Watched>,
    last: HashMap<ContainerId, Last>,
    /// Whether the task is there.
    running: bool,
}

/// Who watches what. One an engine.
#[derive(Default)]
pub(crate) struct Sampler(Arc<Mutex<State>>);

/// A sample as it is sent.
pub(super) fn line(stats: &ContainerStats) -> Bytes {
    let mut line = serde_json::to_vec(stats).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

impl Sampler {
    /// The last sample's processor time, when it is of use.
    pub(super) fn before(&self, id: &ContainerId) -> Option<(Timestamp, CpuStats)> {
        let state = self.0.lock();
        let last = state.last.get(id)?;
        USEFUL
            .contains(&last.at.elapsed())
            .then(|| (last.read, last.cpu.clone()))
    }

    /// Keeps a sample's processor time for the next one.
    pub(super) fn note(&self, id: &ContainerId, stats: &ContainerStats) {
        self.0.lock().note(id, stats);
    }

    /// Lines of a container's samples to come; it ends when the container is removed.
    pub(super) fn watch(
        &self,
        engine: &Engine,
        container: Arc<Container>,
    ) -> watch::Receiver<Bytes> {
        let mut state = self.0.lock();
        let watched = state
            .watched
            .entry(container.id.clone())
            .or_insert_with(|| Watched {
                container,
                lines: watch::Sender::default(),
            });
        let lines = watched.lines.subscribe();
        if !state.running {
            state.running = true;
            let memory = engine.services.runtime.host().memory_total;
            tokio::spawn(run(self.0.clone(), memory));
        }
        lines
    }
}

impl State {
    fn note(&mut self, id: &ContainerId, stats: &ContainerStats) -> Option<Last> {
        let last = Last {
            at: Instant::now(),
            read: stats.read,
            cpu: stats.cpu_stats.clone(),
        };
        self.last.retain(|_, last| last.at.elapsed() < USEFUL.end);
        self.last.insert(id.clone(), last)
    }

    /// What is still watched; with nothing left the task ends.
    fn due(&mut self) -> Option<Vec<Arc<Container>>> {
        self.watched.retain(|_, watched| {
            watched.lines.receiver_count() > 0 && !watched.container.progress().removed
        });
        self.running = !self.watched.is_empty();
        self.running
            .then(|| self.watched.values().map(|w| w.container.clone()).collect())
    }

    /// Hands a sample to the streams, with the one before it.
    fn publish(&mut self, id: &ContainerId, mut stats: ContainerStats) {
        if !stats.read.is_zero()
            && let Some(before) = self.note(id, &stats)
        {
            stats.preread = before.read;
            stats.precpu_stats = before.cpu;
        }
        if let Some(watched) = self.watched.get(id) {
            watched.lines.send_replace(line(&stats));
        }
    }
}

async fn run(state: Arc<Mutex<State>>, memory: u64) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(due) = state.lock().due() else {
            return;
        };
        let shared = state.clone();
        let sampled = blocking(move || {
            for container in due {
                let stats = match subject(&container) {
                    Some(subject) => sample::take(&subject, &host::read(), memory),
                    None => nothing(&container),
                };
                shared.lock().publish(&container.id, stats);
            }
        });
        if let Err(error) = sampled.await {
            tracing::warn!(%error, "containers could not be sampled");
        }
    }
}
