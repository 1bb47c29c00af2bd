//! Forwarding: one task for each container whose driver sends its output elsewhere.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_logs::forward::{self, Forwarder, Job};
use gantry_model::ContainerId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::container::Container;
use crate::container::record::Record;
use crate::{Engine, EngineError, Result};

/// How often it is looked whether a receiver still takes the rest of a container's output before the container is removed,
/// and how often it may have taken nothing until the rest is given up.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 10;

/// The tasks that run.
#[derive(Default)]
pub(crate) struct Forwards(Mutex<HashMap<ContainerId, Running>>);

/// One of them.
struct Running {
    /// Cuts the wait for a receiver short.
    hurry: Arc<Notify>,
    task: tokio::task::AbortHandle,
    /// Closed when the task has ended.
    ended: watch::Receiver<()>,
}

impl Engine {
    /// Up to where a container's log was forwarded.
    fn forward_cursor(&self, id: &ContainerId) -> PathBuf {
        self.container_dir(id).join("forward.cursor")
    }

    fn forwarder(&self, record: &Record) -> Result<Option<Box<dyn Forwarder>>> {
        let log = &record.host_config.log_config;
        if !gantry_logs::forwards(&log.kind) {
            return Ok(None);
        }
        let subject = self.log_subject(record);
        Ok(forward::open(&log.kind, &log.config, &subject)?)
    }

    /// Refuses a start whose output could go nowhere, as Docker does. What is written later while the receiver is away
    /// waits for it.
    ///
    /// # Errors
    /// The receiver of the container's log cannot be reached.
    pub(crate) async fn reach_log_receiver(&self, record: &Record) -> Result<()> {
        let what = "failed to create task for container: failed to initialize logging driver";
        match self.forwarder(record)? {
            Some(mut forwarder) if forwarder.must_be_there() => forwarder
                .connect()
                .await
                .map_err(|error| EngineError::io(what, &error)),
            _ => Ok(()),
        }
    }

    /// Forwards what a container has written and writes, if its driver does that and it is not being done already.
    pub(crate) fn forward_logs(&self, container: &Arc<Container>) {
        let record = container.record();
        if !gantry_logs::forwards(&record.host_config.log_config.kind) {
            return;
        }
        let mut running = self.forwards.0.lock();
        if running.contains_key(&record.id) {
            return;
        }
        let hurry = Arc::new(Notify::new());
        let (end, ended) = watch::channel(());
        let (engine, container, nudge) = (self.clone(), container.clone(), hurry.clone());
        let task = tokio::spawn(async move {
            let _end = end;
            engine.forward_until_quiet(&container, nudge).await;
        });
        let task = task.abort_handle();
        let entry = Running { hurry, task, ended };
        running.insert(record.id.clone(), entry);
    }

    async fn forward_until_quiet(&self, container: &Arc<Container>, hurry: Arc<Notify>) {
        loop {
            let outcome = self.forward_once(container, hurry.clone()).await;
            if let Err(error) = &outcome {
                tracing::warn!(container = %container.id, %error, "logs are not forwarded any more");
            }
            // A start that came meanwhile left the work to this task.
            let mut running = self.forwards.0.lock();
            if outcome.is_err() || !container.progress().running {
                running.remove(&container.id);
                return;
            }
        }
    }

    async fn forward_once(&self, container: &Arc<Container>, hurry: Arc<Notify>) -> Result<()> {
        let record = container.record();
        let Some(forwarder) = self.forwarder(&record)? else {
            return Ok(());
        };
        let job = Job {
            container: record.id.to_string(),
            path: self.log_path(&record.id),
            cursor: self.forward_cursor(&record.id),
            forwarder,
            alive: container.watch(),
            hurry,
        };
        let outcome = forward::run(job).await;
        outcome.map_err(|error| EngineError::io("forward logs", &error))
    }

    /// Forwards the rest of the log of a container that is about to be removed, as long as its receiver takes something.
    pub(crate) async fn finish_forwarding(&self, container: &Arc<Container>) {
        self.forward_logs(container);
        let (hurry, mut ended) = {
            let running = self.forwards.0.lock();
            let Some(task) = running.get(&container.id) else {
                return;
            };
            (task.hurry.clone(), task.ended.clone())
        };
        hurry.notify_one();
        let cursor = self.forward_cursor(&container.id);
        let (mut before, mut idle) = (None, 0);
        // The task never sends: what comes is its end.
        while tokio::time::timeout(LOOK, ended.changed()).await.is_err() {
            let now = tokio::fs::read(&cursor).await.ok();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
            if idle >= LOOKS {
                tracing::warn!(container = %container.id, "removed before all of its log was forwarded: the receiver does not take it");
                break;
            }
        }
        if let Some(left) = self.forwards.0.lock().remove(&container.id) {
            left.task.abort();
        }
    }
}
