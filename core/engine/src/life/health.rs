//! Health checks: a command in the container every now and then.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::container::HealthConfig;
use gantry_model::{ExecId, Timestamp};
use gantry_runtime::{ExecRequest, ExecStdio, Process, RuntimeError};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::Engine;
use crate::container::Container;
use crate::container::record::{HealthResult, Record};
use crate::stream::FdStream;

/// Output that is kept of a check.
const KEPT_OUTPUT: usize = 4096;
/// Results that are kept.
const KEPT_RESULTS: usize = 5;
const SIGKILL: i32 = 9;

/// A check's times with Docker's defaults filled in.
struct Schedule {
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Schedule {
    fn new(check: &HealthConfig) -> Self {
        let or = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => Duration::from_secs(default),
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Self {
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_period: or(check.start_period, 0),
            start_interval: or(check.start_interval, 5),
            retries: u32::try_from(check.retries)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(3),
        }
    }
}

impl Engine {
    /// Checks a running container's health from now on, if it has a check.
    pub(super) fn check_health(&self, container: &Arc<Container>) {
        let record = container.record();
        let (Some(check), Some(process)) = (record.health_check(), container.process()) else {
            return;
        };
        let schedule = Schedule::new(check);
        let (engine, target) = (self.clone(), container.clone());
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                let starting = target
                    .record()
                    .state
                    .health
                    .as_ref()
                    .is_some_and(|health| health.status == "starting");
                let grace = starting && begun.elapsed() < schedule.start_period;
                tokio::time::sleep(match grace {
                    true => schedule.start_interval.min(schedule.interval),
                    false => schedule.interval,
                })
                .await;
                let result = probe(&target.record(), &process, schedule.timeout).await;
                let forgiven = begun.elapsed() < schedule.start_period;
                engine.note_health(&target, result, forgiven, schedule.retries);
            }
        });
        container.live.lock().background = Some(task.abort_handle());
    }

    fn note_health(
        &self,
        container: &Container,
        result: HealthResult,
        forgiven: bool,
        retries: u32,
    ) {
        let mut changed = None;
        let record = container.update(|record| {
            let Some(health) = &mut record.state.health else {
                return;
            };
            let before = health.status.clone();
            if result.exit_code == 0 {
                health.failing_streak = 0;
                health.status = "healthy".into();
            } else if !(forgiven && before == "starting") {
                health.failing_streak += 1;
                if health.failing_streak >= retries {
                    health.status = "unhealthy".into();
                }
            }
            health.log.push(result);
            let surplus = health.log.len().saturating_sub(KEPT_RESULTS);
            health.log.drain(..surplus);
            if health.status != before {
                changed = Some(health.status.clone());
            }
        });
        if let Some(status) = changed {
            if let Err(error) = self.records.note(&record) {
                tracing::warn!(container = %record.id, %error, "cannot write a container's state");
            }
            self.tell(&record, &format!("health_status: {status}"));
        }
    }
}

fn argv(record: &Record) -> Vec<String> {
    let test = record
        .health_check()
        .map(|check| check.test.clone())
        .unwrap_or_default();
    match test.split_first() {
        Some((kind, rest)) if kind == "CMD-SHELL" => {
            let shell = record
                .config
                .shell
                .as_ref()
                .filter(|shell| !shell.is_empty());
            let mut argv = match shell {
                Some(shell) => shell.0.clone(),
                None => vec!["/bin/sh".into(), "-c".into()],
            };
            argv.push(rest.join(" "));
            argv
        }
        Some((_, rest)) => rest.to_vec(),
        None => Vec::new(),
    }
}

async fn probe(record: &Record, process: &Arc<Process>, timeout: Duration) -> HealthResult {
    let start = Timestamp::now();
    let (exit_code, output) = match tokio::time::timeout(timeout, run(record, process)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => (-1, error.to_string()),
        Err(_) => (-1, format!("Health check exceeded timeout ({timeout:?})")),
    };
    HealthResult {
        start,
        end: Timestamp::now(),
        exit_code,
        output,
    }
}

async fn run(record: &Record, process: &Arc<Process>) -> Result<(i32, String), RuntimeError> {
    let request = ExecRequest {
        id: ExecId::generate(),
        argv: argv(record),
        env: Vec::new(),
        cwd: None,
        user: None,
        privileged: false,
        tty: false,
        console_size: None,
        stdin: false,
        stdout: true,
        stderr: true,
    };
    let mut exec = process.exec(request).await?;
    let stdio = exec.take_stdio();
    let guard = KillOnDrop(Some(Arc::new(exec)));
    let mut output = Vec::new();
    if let Some(ExecStdio::Pipes { stdout, stderr, .. }) = stdio {
        for pipe in [stdout, stderr].into_iter().flatten() {
            let Ok(pipe) = FdStream::new(pipe) else {
                continue;
            };
            let left = KEPT_OUTPUT - output.len().min(KEPT_OUTPUT);
            // What is beyond is read too, so that the check is not blocked by a full pipe.
            let mut all = Vec::new();
            let _ = pipe.take(1 << 20).read_to_end(&mut all).await;
            output.extend_from_slice(&all[..left.min(all.len())]);
        }
    }
    let code = guard.wait().await?;
    Ok((code, String::from_utf8_lossy(&output).into_owned()))
}

/// A check that took too long is killed, not left behind.
struct KillOnDrop(Option<Arc<gantry_runtime::ExecProcess>>);

impl KillOnDrop {
    async fn wait(mut self) -> Result<i32, RuntimeError> {
        let status = match &self.0 {
            Some(exec) => exec.wait().await?,
            None => return Err(RuntimeError::NotRunning),
        };
        self.0 = None;
        Ok(status.code)
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(exec) = self.0.take() {
            tokio::spawn(async move {
                // It may have ended by itself.
                let _ = exec.signal(SIGKILL).await;
            });
        }
    }
}
