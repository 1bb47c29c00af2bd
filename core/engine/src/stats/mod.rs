//! What containers use.
//!
//! A question takes one sample; streams share one task that samples every container that somebody watches, once a second
//! and all in one go, and ends with the last stream. Nothing is kept running for containers that nobody watches.

mod host;
mod sample;
mod sampler;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use gantry_wire::ContainerStats;

use crate::container::Container;
use crate::container::record::Phase;
use crate::engine::blocking;
use crate::look::ByteStream;
use crate::{Engine, Result};

use sample::Subject;
pub(crate) use sampler::Sampler;

/// The time between two samples of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// How a client wants to see what a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsMode {
    /// Once, with nothing before it to compare with.
    OneShot,
    /// Once, compared with a moment before.
    Once,
}

impl Engine {
    /// What a container uses now. One that does not run has a sample of zeros.
    ///
    /// # Errors
    /// A container that is not there.
    pub async fn container_stats(&self, id: &str, mode: StatsMode) -> Result<ContainerStats> {
        let container = self.find(id)?;
        if !is_sampled(&container) {
            return Ok(nothing(&container));
        }
        let before = match mode {
            StatsMode::OneShot => None,
            StatsMode::Once => match self.stats.before(&container.id) {
                None => {
                    let first = self.sample(&container).await?;
                    tokio::time::sleep(INTERVAL).await;
                    Some((first.read, first.cpu_stats))
                }
                before => before,
            },
        };
        let mut stats = self.sample(&container).await?;
        self.stats.note(&container.id, &stats);
        if let Some((read, cpu)) = before {
            stats.preread = read;
            stats.precpu_stats = cpu;
        }
        Ok(stats)
    }

    /// What a container uses, a line of JSON each second until it is removed.
    ///
    /// # Errors
    /// A container that is not there.
    pub async fn container_stats_stream(&self, id: &str) -> Result<ByteStream> {
        let container = self.find(id)?;
        let first = self.container_stats(id, StatsMode::OneShot).await?;
        let watched = self.stats.watch(self, container);
        let state = (Some(sampler::line(&first)), watched);
        Ok(Box::pin(stream::unfold(
            state,
            |(first, mut watched)| async {
                if let Some(first) = first {
                    return Some((Ok(first), (None, watched)));
                }
                watched.changed().await.ok()?;
                let line: Bytes = watched.borrow_and_update().clone();
                Some((Ok(line), (None, watched)))
            },
        )))
    }

    async fn sample(&self, container: &Arc<Container>) -> Result<ContainerStats> {
        let Some(subject) = subject(container) else {
            return Ok(nothing(container));
        };
        let memory = self.services.runtime.host().memory_total;
        blocking(move || sample::take(&subject, &host::read(), memory)).await
    }
}

fn is_sampled(container: &Container) -> bool {
    container.record().state.phase != Phase::Restarting && container.process().is_some()
}

/// What is sampled of a container; none when it does not run.
fn subject(container: &Container) -> Option<Subject> {
    let process = container.process().filter(|_| is_sampled(container))?;
    let record = container.record();
    let network = match record.host_config.network_mode.as_str() {
        "host" => None,
        _ => Some(process.pid()),
    };
    Some(Subject {
        name: format!("/{}", record.name),
        id: container.id.to_string(),
        group: process.group().clone(),
        network,
    })
}

/// A container that does not run.
fn nothing(container: &Container) -> ContainerStats {
    ContainerStats {
        name: format!("/{}", container.record().name),
        id: container.id.to_string(),
        ..ContainerStats::default()
    }
}
