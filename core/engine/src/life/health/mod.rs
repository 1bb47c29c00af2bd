//! Health checks: a question to a running container every now and then, and what its answers make of it.

mod command;
mod net;
mod output;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use gantry_model::Timestamp;
use gantry_runtime::Process;

use self::schedule::Schedule;
use super::kill::stop_signal;
use crate::container::Container;
use crate::container::record::{HealthResult, HealthStatus, Phase, Record};
use crate::{Engine, EngineError, Result};

/// The exit code of a check that could not be made or took too long.
const NO_ANSWER: i32 = -1;

/// Checks the kind of a check and its arguments, as a client gave them.
///
/// # Errors
/// Kinds that there are not, and addresses that are none.
pub(crate) fn check_test(test: &[String]) -> Result<()> {
    let Some((kind, arguments)) = test.split_first() else {
        return Ok(());
    };
    match kind.as_str() {
        "" | "NONE" | "CMD" | "CMD-SHELL" => Ok(()),
        "HTTP" | "TCP" => net::Target::parse(kind, arguments)
            .map(drop)
            .map_err(EngineError::bad_request),
        other => Err(EngineError::bad_request(format!(
            "unknown type {other:?} in healthcheck (only \"NONE\", \"CMD\", \"CMD-SHELL\", \"HTTP\" and \"TCP\" are known)"
        ))),
    }
}

impl Engine {
    /// Checks a running container's health from now on, if it has a check.
    pub(super) fn check_health(&self, container: &Arc<Container>) {
        let record = container.record();
        let (Phase::Running, Some(check), Some(process)) = (
            record.state.phase,
            record.health_check(),
            container.process(),
        ) else {
            return;
        };
        let schedule = Schedule::new(check);
        let (engine, target) = (self.clone(), container.clone());
        let task = tokio::spawn(async move {
            loop {
                let state = &target.record().state;
                let status = state.health.as_ref().map(|h| h.status).unwrap_or_default();
                let up = Timestamp::now().since(state.started_at);
                tokio::time::sleep(schedule.pause(up, status)).await;
                let result = engine.probe(&target, &process, schedule.timeout).await;
                if !engine
                    .note_health(&target, &process, &schedule, result)
                    .await
                {
                    return;
                }
            }
        });
        container.live.lock().background = Some(task.abort_handle());
    }

    /// One check.
    async fn probe(
        &self,
        container: &Container,
        process: &Arc<Process>,
        timeout: Duration,
    ) -> HealthResult {
        let record = container.record();
        let start = Timestamp::now();
        let (kind, arguments) = kind(&record);
        let (exit_code, output) = match net::Target::parse(kind, arguments) {
            Ok(target) => net::probe(&target, process, timeout).await,
            // It is none for the network.
            Err(_) => self.probe_by_command(container, process, timeout).await,
        };
        HealthResult {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        }
    }

    /// Notes a result, with the container's turn, so that it never undoes what another step writes. Whether the container
    /// still runs.
    async fn note_health(
        &self,
        container: &Arc<Container>,
        process: &Arc<Process>,
        schedule: &Schedule,
        result: HealthResult,
    ) -> bool {
        let _turn = container.queue.lock().await;
        let current = container.process();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, process)) {
            return false;
        }
        let mut changed = None;
        let record = container.update(|record| {
            let up = result.start.since(record.state.started_at);
            let Some(health) = &mut record.state.health else {
                return;
            };
            let before = health.status;
            schedule.judge(health, result, up);
            changed = Some(health.status).filter(|status| *status != before);
        });
        if let Err(error) = self.records.note(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's state");
        }
        let Some(status) = changed else {
            return true;
        };
        self.tell(&record, &format!("health_status: {}", status.as_str()));
        let ends = record.host_config.restart_policy.unhealthy == Some(true);
        if ends && status == HealthStatus::Unhealthy {
            self.end_unhealthy(container, process);
        }
        true
    }

    /// Bad health ends the run; what follows is the restart policy's. The end needs the container's turn, which the caller
    /// holds: it comes later.
    fn end_unhealthy(&self, container: &Arc<Container>, process: &Arc<Process>) {
        {
            let mut live = container.live.lock();
            if live.stopping {
                return;
            }
            live.unhealthy = true;
        }
        let (engine, container, process) = (self.clone(), container.clone(), process.clone());
        tokio::spawn(async move {
            let signal = stop_signal(&container.record());
            let ended = engine
                .bring_to_end(&container, &process, signal, None)
                .await;
            if let Err(error) = ended {
                tracing::warn!(container = %container.id, %error, "cannot end an unhealthy container");
            }
        });
    }
}

/// A check's kind and its arguments.
fn kind(record: &Record) -> (&str, &[String]) {
    let test = record.health_check().map(|check| check.test.as_slice());
    match test.and_then(<[String]>::split_first) {
        Some((kind, arguments)) => (kind, arguments),
        None => ("", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let check = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            check_test(&words).is_ok()
        };
        for good in [
            &[][..],
            &["NONE"],
            &["CMD", "true"],
            &["CMD-SHELL", "exit 1"],
            &["HTTP", "http://:80/"],
            &["TCP", "80"],
        ] {
            assert!(check(good), "{good:?}");
        }
        for bad in [&["cmd", "true"][..], &["HTTP"], &["TCP", "no"]] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
