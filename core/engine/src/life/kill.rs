//! Stopping, restarting and signalling.

use std::sync::Arc;
use std::time::Duration;

use gantry_runtime::{Process, RuntimeError};
use tokio::sync::watch;

use crate::container::record::{Phase, Record};
use crate::container::{Container, Progress};
use crate::events::Attributes;
use crate::{Engine, EngineError, Result, signal};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long the kernel may take to end what was killed before more is done.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (negative: never).
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotModified`] when it does not run.
    pub async fn container_stop(
        &self,
        id: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let container = self.find(id)?;
        let signal = signal
            .filter(|s| !s.is_empty())
            .map(signal::parse)
            .transpose()?;
        self.to_the_end(|engine| async move {
            if !container.record().state.phase.is_running() {
                return Err(EngineError::not_modified("container is not running"));
            }
            engine.stop(&container, signal, timeout).await
        })
        .await
    }

    /// Stops a container that runs and starts it, or starts one that does not run.
    ///
    /// # Errors
    /// Those of stop and start.
    pub async fn container_restart(
        &self,
        id: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let container = self.find(id)?;
        let signal = signal
            .filter(|s| !s.is_empty())
            .map(signal::parse)
            .transpose()?;
        self.to_the_end(|engine| async move {
            // Before it is stopped: what cannot start again is better left running.
            engine.require(&container).await?;
            // A container that is restarted does not end in the sense of `--rm`.
            if container.record().state.phase.is_running() {
                container.live.lock().restarting = true;
                let stopped = engine.stop(&container, signal, timeout).await;
                container.live.lock().restarting = false;
                stopped?;
            }
            {
                let _turn = container.queue.lock().await;
                match engine.start(&container).await {
                    // Somebody else was faster.
                    Err(error) if error.kind == crate::ErrorKind::NotModified => {}
                    started => started?,
                }
            }
            engine.tell(&container.record(), "restart");
            Ok(())
        })
        .await
    }

    /// Sends a signal; empty means SIGKILL.
    ///
    /// # Errors
    /// Unknown signals, a container that does not run.
    pub async fn container_kill(&self, id: &str, signal: &str) -> Result<()> {
        let number = match signal {
            "" => SIGKILL,
            name => signal::parse(name)?,
        };
        let refused = |error: EngineError| error.context(format!("cannot kill container: {id}"));
        let container = self.find(id).map_err(refused)?;
        let not_running = || {
            let id = &container.id;
            refused(EngineError::conflict(format!(
                "container {id} is not running"
            )))
        };
        let between = container.record().state.phase == Phase::Restarting;
        if between && self.cancel_restart(&container).await? {
            return Ok(());
        }
        let record = container.record();
        let process = container
            .process()
            .filter(|_| record.state.phase.has_process());
        let process = process.ok_or_else(not_running)?;
        let deadly = number == SIGKILL || number == stop_signal(&record);
        let mut watch = container.watch();
        let seen = watch.borrow_and_update().exits;
        if deadly {
            self.mark_stopped(&container)?;
        }
        self.tell_with(&record, "kill", named_signal(number));
        match process.signal(number).await {
            Ok(()) => {}
            Err(RuntimeError::NotRunning) => return Err(not_running()),
            Err(error) => return Err(error.into()),
        }
        if deadly && record.state.phase == Phase::Paused {
            process.unpause().await?;
        }
        if number == SIGKILL {
            ended(&mut watch, seen, Some(KILL_PATIENCE)).await;
        }
        Ok(())
    }

    /// Stops a running container; its turn must not be held: the end needs it.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let record = container.record();
        if record.state.phase == Phase::Restarting && self.cancel_restart(container).await? {
            self.tell(&container.record(), "stop");
            return Ok(());
        }
        let Some(process) = container.process() else {
            return Ok(());
        };
        self.mark_stopped(container)?;
        let signal = signal.unwrap_or_else(|| stop_signal(&record));
        self.bring_to_end(container, &process, signal, timeout)
            .await?;
        self.tell(&record, "stop");
        Ok(())
    }

    /// Sends a signal, and SIGKILL when the container has not ended `timeout` seconds later.
    pub(super) async fn bring_to_end(
        &self,
        container: &Arc<Container>,
        process: &Process,
        number: i32,
        timeout: Option<i64>,
    ) -> Result<()> {
        let record = container.record();
        let mut watch = container.watch();
        let seen = watch.borrow_and_update().exits;
        if !container
            .process()
            .is_some_and(|now| std::ptr::eq(&*now, process))
        {
            return Ok(());
        }
        let seconds = timeout
            .or(record.config.stop_timeout)
            .unwrap_or(self.config.load().stop_timeout);
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        self.tell_with(&record, "kill", named_signal(number));
        let sent = process.signal(number).await;
        if record.state.phase == Phase::Paused {
            process.unpause().await?;
        }
        let gone = match sent {
            Ok(()) => ended(&mut watch, seen, patience).await,
            Err(RuntimeError::NotRunning) => true,
            Err(error) => {
                tracing::warn!(container = %record.id, %error, "cannot send the stop signal");
                false
            }
        };
        if !gone {
            tracing::info!(container = %record.id, "container did not stop in time, killing it");
            self.tell_with(&record, "kill", named_signal(SIGKILL));
            process.kill_all().await?;
        }
        if !ended(&mut watch, seen, Some(KILL_PATIENCE)).await {
            return Err(EngineError::internal(format!(
                "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                record.id
            )));
        }
        Ok(())
    }

    /// The coming end is a client's will: no policy brings the container back.
    fn mark_stopped(&self, container: &Arc<Container>) -> Result<()> {
        let restarting = {
            let mut live = container.live.lock();
            live.stopping = true;
            live.restarting
        };
        // Of a restart that the daemon does not live to see the end of, the policy takes care.
        let record = container.update(|record| record.manually_stopped = !restarting);
        self.records.note(&record)
    }

    /// A container between two runs is not to run again; `false` when it is between two runs no more.
    async fn cancel_restart(&self, container: &Arc<Container>) -> Result<bool> {
        let _turn = container.queue.lock().await;
        if container.record().state.phase != Phase::Restarting {
            return Ok(false);
        }
        {
            let mut live = container.live.lock();
            live.stopping = true;
            if let Some(delayed) = live.background.take() {
                delayed.abort();
            }
        }
        let record = container.update(|record| {
            record.manually_stopped = true;
            record.state.phase = Phase::Exited;
        });
        self.records.keep(&record)?;
        container.tell(|progress| {
            progress.exits += 1;
            progress.running = false;
        });
        Ok(true)
    }
}

pub(super) fn stop_signal(record: &Record) -> i32 {
    // Checked at creation.
    signal::parse(&record.config.stop_signal).unwrap_or(SIGTERM)
}

fn named_signal(number: i32) -> Attributes {
    [("signal".to_owned(), number.to_string())].into()
}

/// Waits until the container has ended since `seen` ends were counted; whether it did within `patience`.
pub(super) async fn ended(
    watch: &mut watch::Receiver<Progress>,
    seen: u64,
    patience: Option<Duration>,
) -> bool {
    let gone = watch.wait_for(|progress| progress.exits > seen || progress.removed);
    match patience {
        None => gone.await.is_ok(),
        Some(patience) => tokio::time::timeout(patience, gone)
            .await
            .is_ok_and(|gone| gone.is_ok()),
    }
}
