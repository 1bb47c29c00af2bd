//! The end of a container's process, and what its restart policy makes of it.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::Timestamp;
use gantry_runtime::{ExitStatus, Process};
use tokio::sync::oneshot;

use super::start::{Failure, Starter};
use crate::container::Container;
use crate::container::record::{HealthStatus, Phase, Record};
use crate::container::restart::{Outcome, wants_restart};
use crate::events::Attributes;
use crate::{Engine, Result};

/// The exit code of a container whose true one is not known: its monitor was lost, or the machine went down.
pub(super) const LOST: i32 = 255;

impl Engine {
    /// Waits for the end of a process in the background.
    pub(super) fn watch_over(&self, container: Arc<Container>, process: Arc<Process>) {
        self.watch_memory(&container, &process);
        let engine = self.clone();
        tokio::spawn(async move {
            let status = match process.wait().await {
                Ok(status) => status,
                Err(error) => {
                    tracing::warn!(container = %container.id, %error, "lost sight of a container");
                    lost(&container.record())
                }
            };
            let _turn = container.queue.lock().await;
            let current = container.process();
            if !current.is_some_and(|current| Arc::ptr_eq(&current, &process)) {
                return;
            }
            engine.ended(&container, Some(process), status).await;
        });
    }

    /// A container's process has ended; the container's turn is held.
    pub(super) async fn ended(
        &self,
        container: &Arc<Container>,
        process: Option<Arc<Process>>,
        status: ExitStatus,
    ) {
        if self.note_ended(container, process, status).await {
            self.restart_later(container);
        }
    }

    /// As [`Self::ended`]; whether the policy wants the container to start again, which is left to the caller.
    pub(super) async fn note_ended(
        &self,
        container: &Arc<Container>,
        process: Option<Arc<Process>>,
        status: ExitStatus,
    ) -> bool {
        let (stopping, restarting, unhealthy, told, health) = {
            let mut live = container.live.lock();
            live.process = None;
            (
                live.stopping,
                live.restarting,
                std::mem::take(&mut live.unhealthy),
                std::mem::take(&mut live.oom_told),
                live.background.take(),
            )
        };
        if let Some(health) = health {
            health.abort();
        }
        let before = container.record();
        let outcome = Outcome {
            exit_code: status.code,
            unhealthy,
            restarts: before.restart_count,
            manually_stopped: before.manually_stopped,
        };
        let again = !stopping && wants_restart(&before.host_config.restart_policy, outcome);
        self.tell_end(&before, status, told);
        self.clean_up(&before, process).await;
        let record = container.update(|record| note_end(record, status, again, unhealthy));
        let remove = record.host_config.auto_remove && !restarting && !again;
        // The removal writes its own beginning down.
        if !remove && let Err(error) = self.records.keep(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's state");
        }
        self.execs.ended(&record.id);
        container.tell(|progress| {
            progress.exits += 1;
            progress.exit_code = status.code;
            progress.running = again;
        });
        if remove && let Err(error) = self.remove_stopped(container, true).await {
            tracing::warn!(container = %record.id, %error, "cannot remove a container at its end");
        }
        again
    }

    fn tell_end(&self, record: &Record, status: ExitStatus, oom_told: bool) {
        if status.oom && !oom_told {
            self.tell(record, "oom");
        }
        let run = status.exited_at.since(record.state.started_at);
        let attributes = Attributes::from([
            ("exitCode".to_owned(), status.code.to_string()),
            ("execDuration".to_owned(), run.as_secs().to_string()),
        ]);
        self.tell_with(record, "die", attributes);
    }

    /// Starts a container again when what is left of its policy's delay is over.
    pub(super) fn restart_later(&self, container: &Arc<Container>) {
        self.restart_after(container, std::future::ready(()), Vec::new());
    }

    /// As [`Self::restart_later`], not before `ready`. `tried` is dropped when the attempt is over.
    pub(super) fn restart_after(
        &self,
        container: &Arc<Container>,
        ready: impl Future<Output = ()> + Send + 'static,
        tried: Vec<oneshot::Sender<()>>,
    ) {
        let delay = container.record().state.backoff.left(Timestamp::now());
        let (engine, waiting) = (self.clone(), container.clone());
        // Held until the handle is there: what the task starts puts its own in its place.
        let mut live = container.live.lock();
        let task = tokio::spawn(async move {
            ready.await;
            tokio::time::sleep(delay).await;
            let required = engine.require(&waiting).await;
            // From here on the task must not be aborted: a start runs to its end.
            tokio::spawn(async move {
                let _turn = waiting.queue.lock().await;
                if waiting.record().state.phase == Phase::Restarting {
                    engine.restart_now(&waiting, required).await;
                }
                drop(tried);
            });
        });
        live.background = Some(task.abort_handle());
    }

    /// The policy's start; what fails is tried again for as long as the policy wants. The container's turn is held.
    async fn restart_now(&self, container: &Arc<Container>, required: Result<()>) {
        let started = match required {
            Ok(()) => self.start_again(container, Starter::Policy).await,
            Err(error) => {
                let before = container.record();
                let failure = Failure::from(error);
                Err(self
                    .start_failed(container, &before, failure, Starter::Policy)
                    .await)
            }
        };
        let Err(error) = started else {
            return;
        };
        tracing::warn!(container = %container.id, %error, "cannot restart a container");
        if container.record().state.phase == Phase::Restarting {
            self.restart_later(container);
        }
    }
}

fn note_end(record: &mut Record, status: ExitStatus, again: bool, unhealthy: bool) {
    let state = &mut record.state;
    state.phase = match again {
        true => Phase::Restarting,
        false => Phase::Exited,
    };
    state.pid = 0;
    state.exit_code = status.code;
    state.oom_killed = status.oom;
    state.finished_at = status.exited_at;
    // A run that ended in bad health without ever having been in good health was no success, however long it was.
    let mut run = status.exited_at.since(state.started_at);
    if let Some(health) = &mut state.health {
        health.status = HealthStatus::Unhealthy;
        if unhealthy && !health.was_healthy {
            run = Duration::ZERO;
        }
    }
    if again {
        state.backoff.advance(run, status.exited_at);
    }
    record.restart_count += u32::from(again);
}

/// The status of a container whose true one nobody knows.
pub(super) fn lost(record: &Record) -> ExitStatus {
    ExitStatus {
        code: LOST,
        signal: None,
        oom: false,
        started_at: record.state.started_at,
        exited_at: gantry_model::Timestamp::now(),
    }
}
