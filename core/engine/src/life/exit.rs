//! The end of a container's process, and what its restart policy makes of it.

use std::sync::Arc;

use gantry_runtime::{ExitStatus, Process};

use crate::container::Container;
use crate::container::record::{Phase, Record};
use crate::container::restart::wants_restart;
use crate::events::Attributes;
use crate::{Engine, ErrorKind};

/// The exit code of a container whose true one is not known: its monitor was lost, or the machine went down.
pub(super) const LOST: i32 = 255;

impl Engine {
    /// Waits for the end of a process in the background.
    pub(super) fn watch_over(&self, container: Arc<Container>, process: Arc<Process>) {
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
        let (stopping, restarting, health) = {
            let mut live = container.live.lock();
            live.process = None;
            (live.stopping, live.restarting, live.background.take())
        };
        if let Some(health) = health {
            health.abort();
        }
        let before = container.record();
        let run = status.exited_at.since(before.state.started_at);
        let again = !stopping
            && wants_restart(
                &before.host_config.restart_policy,
                status.code,
                before.restart_count,
                before.manually_stopped,
            );
        self.tell_end(&before, status);
        self.clean_up(&before, process).await;
        let record = container.update(|record| note_end(record, status, again));
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
        if again {
            self.restart_later(container, run);
        } else if remove && let Err(error) = self.remove_stopped(container, true).await {
            tracing::warn!(container = %record.id, %error, "cannot remove a container at its end");
        }
    }

    fn tell_end(&self, record: &Record, status: ExitStatus) {
        if status.oom {
            self.tell(record, "oom");
        }
        let run = status.exited_at.since(record.state.started_at);
        let attributes = Attributes::from([
            ("exitCode".to_owned(), status.code.to_string()),
            ("execDuration".to_owned(), run.as_secs().to_string()),
        ]);
        self.tell_with(record, "die", attributes);
    }

    /// Starts a container again after its policy's delay.
    pub(super) fn restart_later(&self, container: &Arc<Container>, run: std::time::Duration) {
        let mut live = container.live.lock();
        let delay = live.backoff.next(run);
        let (engine, container) = (self.clone(), container.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // From here on the task must not be aborted: a start runs to its end.
            tokio::spawn(async move {
                let _turn = container.queue.lock().await;
                if container.record().state.phase != Phase::Restarting {
                    return;
                }
                if let Err(error) = engine.start_again(&container).await {
                    engine.restart_failed(&container, &error);
                }
            });
        });
        live.background = Some(task.abort_handle());
    }

    /// A policy's restart did not work: it is tried again, unless the request itself is at fault.
    fn restart_failed(&self, container: &Arc<Container>, error: &crate::EngineError) {
        tracing::warn!(container = %container.id, %error, "cannot restart a container");
        let record = container.record();
        let again = error.kind != ErrorKind::BadRequest
            && !container.live.lock().stopping
            && wants_restart(
                &record.host_config.restart_policy,
                record.state.exit_code,
                record.restart_count,
                record.manually_stopped,
            );
        if !again {
            return;
        }
        let record = container.update(|record| {
            record.state.phase = Phase::Restarting;
            record.restart_count += 1;
        });
        if let Err(error) = self.records.keep(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's state");
        }
        container.tell(|progress| progress.running = true);
        self.restart_later(container, std::time::Duration::ZERO);
    }
}

fn note_end(record: &mut Record, status: ExitStatus, again: bool) {
    let state = &mut record.state;
    state.phase = match again {
        true => Phase::Restarting,
        false => Phase::Exited,
    };
    state.pid = 0;
    state.exit_code = status.code;
    state.oom_killed = status.oom;
    state.finished_at = status.exited_at;
    if let Some(health) = &mut state.health {
        health.status = "unhealthy".into();
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
