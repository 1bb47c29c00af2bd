//! Starting: the decision, the acknowledgement, and what is left of a failure.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::Timestamp;
use gantry_runtime::{Process, StartErrorKind};

use crate::container::Container;
use crate::container::record::{Health, HealthStatus, Phase, Record};
use crate::container::restart::{Backoff, Outcome, wants_restart};
use crate::{Engine, EngineError, ErrorKind, Result};

/// A failed start: the error, and the exit code that the container shows.
pub(super) struct Failure {
    pub(super) error: EngineError,
    pub(super) exit_code: i32,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self {
            error,
            exit_code: 128,
        }
    }
}

/// Whose will a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    /// Told about a failure, which ends the matter.
    Client,
    /// Tries again after a failure.
    Policy,
}

/// The words that come before the runtime's own; clients look for what comes after.
const CREATE_FAILED: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process";

impl From<gantry_runtime::RuntimeError> for Failure {
    fn from(error: gantry_runtime::RuntimeError) -> Self {
        use gantry_runtime::RuntimeError as R;
        match error {
            R::Start(error) => error.into(),
            R::Create { .. } => {
                let message =
                    format!("{CREATE_FAILED}: error during container init: {error}: unknown");
                EngineError::internal(message).into()
            }
            other => EngineError::from(other).into(),
        }
    }
}

impl From<gantry_runtime::StartError> for Failure {
    fn from(error: gantry_runtime::StartError) -> Self {
        let (kind, exit_code) = match error.kind {
            StartErrorKind::NotFound => (ErrorKind::BadRequest, 127),
            StartErrorKind::Permission => (ErrorKind::BadRequest, 126),
            StartErrorKind::Other => (ErrorKind::Internal, 128),
        };
        let message = format!(
            "{CREATE_FAILED}: error during container init: {}: unknown",
            error.message
        );
        Self {
            error: EngineError { kind, message },
            exit_code,
        }
    }
}

impl Engine {
    /// Starts a container, after what it requires.
    ///
    /// # Errors
    /// [`ErrorKind::NotModified`] when it runs; everything that can go wrong with programs, networks and mounts, and with
    /// the start of what it requires.
    pub async fn container_start(&self, id: &str) -> Result<()> {
        let container = self.find(id)?;
        self.to_the_end(|engine| async move {
            if container.record().state.phase.can_start() {
                engine.require(&container).await?;
            }
            let _turn = container.queue.lock().await;
            engine.start(&container).await
        })
        .await
    }

    /// A client's start; the container's turn is held.
    pub(super) async fn start(&self, container: &Arc<Container>) -> Result<()> {
        match container.record().state.phase {
            Phase::Running => return Err(EngineError::not_modified("container is running")),
            Phase::Paused => {
                return Err(EngineError::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Phase::Removing => return Err(marked_for_removal()),
            Phase::Created | Phase::Starting | Phase::Exited | Phase::Restarting => {}
        }
        if container.progress().removed {
            return Err(EngineError::not_found(format!(
                "No such container: {}",
                container.id
            )));
        }
        {
            let mut live = container.live.lock();
            if let Some(delayed) = live.background.take() {
                delayed.abort();
            }
        }
        container.update(|record| {
            record.manually_stopped = false;
            record.restart_count = 0;
            record.state.backoff = Backoff::default();
        });
        self.start_again(container, Starter::Client).await
    }

    /// Starts a container that does not run; the container's turn is held.
    pub(super) async fn start_again(
        &self,
        container: &Arc<Container>,
        starter: Starter,
    ) -> Result<()> {
        let before = container.record();
        {
            let mut live = container.live.lock();
            live.stopping = false;
            live.unhealthy = false;
        }
        let mut intent = Record::clone(&before);
        intent.state.phase = Phase::Starting;
        self.records.note(&intent)?;
        match self.launch(container, &before).await {
            Ok(process) => {
                self.started(container, process)?;
                Ok(())
            }
            Err(failure) => Err(self
                .start_failed(container, &before, failure, starter)
                .await),
        }
    }

    fn started(&self, container: &Arc<Container>, process: Arc<Process>) -> Result<()> {
        let record = container.update(|record| {
            // The results of earlier runs stay to be seen.
            let earlier = record
                .state
                .health
                .as_ref()
                .map(|health| health.log.clone());
            let health = record.health_check().map(|_| Health {
                status: HealthStatus::Starting,
                log: earlier.unwrap_or_default(),
                ..Health::default()
            });
            let state = &mut record.state;
            state.phase = Phase::Running;
            state.pid = process.pid();
            state.exit_code = 0;
            state.oom_killed = false;
            state.error.clear();
            state.started_at = process.started_at().unwrap_or_else(Timestamp::now);
            state.health = health;
        });
        let kept = self.records.keep(&record);
        container.tell(|progress| progress.running = true);
        self.tell(&record, "start");
        self.watch_over(container.clone(), process);
        self.forward_logs(container);
        self.check_health(container);
        kept
    }

    /// Undoes a failed start, and removes the container if it was to go at its end. After a policy's start the container
    /// is between two runs again, for as long as the policy wants.
    pub(super) async fn start_failed(
        &self,
        container: &Arc<Container>,
        before: &Record,
        failure: Failure,
        starter: Starter,
    ) -> EngineError {
        self.undo_launch(container, before).await;
        let outcome = Outcome {
            exit_code: failure.exit_code,
            unhealthy: false,
            restarts: before.restart_count,
            manually_stopped: before.manually_stopped,
        };
        let again = starter == Starter::Policy
            && !container.live.lock().stopping
            && wants_restart(&before.host_config.restart_policy, outcome);
        let record = container.update(|record| {
            let state = &mut record.state;
            state.phase = match (again, state.started_at.is_zero()) {
                (true, _) => Phase::Restarting,
                (false, true) => Phase::Created,
                (false, false) => Phase::Exited,
            };
            state.pid = 0;
            state.exit_code = failure.exit_code;
            state.error.clone_from(&failure.error.message);
            if again {
                state.backoff.advance(Duration::ZERO, Timestamp::now());
            }
            record.restart_count += u32::from(again);
        });
        if let Err(error) = self.records.keep(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's state");
        }
        container.tell(|progress| {
            // What waits for a policy's next run waits no longer.
            progress.exits += u64::from(progress.running && !again);
            progress.running = again;
            progress.exit_code = failure.exit_code;
        });
        if record.host_config.auto_remove
            && let Err(error) = self.remove_stopped(container, true).await
        {
            tracing::warn!(container = %record.id, %error, "cannot remove a container that did not start");
        }
        failure.error
    }
}

pub(super) fn marked_for_removal() -> EngineError {
    EngineError::conflict("container is marked for removal and cannot be started")
}
