//! Health checks: a question to a running container every now and then, and what its answers make of it.

mod command;
mod net;
mod output;

use std::sync::Arc;
use std::time::Duration;

use gantry_model::Timestamp;
use gantry_model::container::HealthConfig;
use gantry_runtime::Process;

use super::kill::stop_signal;
use crate::container::Container;
use crate::container::record::{Health, HealthResult, HealthStatus, Phase, Record};
use crate::{Engine, EngineError, Result};

/// Results that are kept.
const KEPT_RESULTS: usize = 5;
/// The exit code of a check that could not be made or took too long.
const NO_ANSWER: i32 = -1;

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

    /// Time to the next check of a container that has been up for `up`.
    fn pause(&self, up: Duration, status: HealthStatus) -> Duration {
        match up < self.start_period && status == HealthStatus::Starting {
            true => self.start_interval,
            false => self.interval,
        }
    }

    /// What a result makes of a container's health. `up` is how long it had been up when the check began.
    fn judge(&self, health: &mut Health, result: HealthResult, up: Duration) {
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
            health.was_healthy = true;
        } else if health.status != HealthStatus::Starting || up >= self.start_period {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push(result);
        let surplus = health.log.len().saturating_sub(KEPT_RESULTS);
        health.log.drain(..surplus);
    }
}

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
                engine
                    .note_health(&target, &process, &schedule, result)
                    .await;
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

    /// Notes a result. Runs with the container's turn, so that it never undoes what another step writes.
    async fn note_health(
        &self,
        container: &Arc<Container>,
        process: &Arc<Process>,
        schedule: &Schedule,
        result: HealthResult,
    ) {
        let _turn = container.queue.lock().await;
        let current = container.process();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, process)) {
            return;
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
            return;
        };
        self.tell(&record, &format!("health_status: {}", status.as_str()));
        let ends = record.host_config.restart_policy.unhealthy == Some(true);
        if ends && status == HealthStatus::Unhealthy {
            self.end_unhealthy(container, process);
        }
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

/// Docker's words for a check that took too long.
fn too_long(timeout: Duration, output: &str) -> String {
    let timeout = go_duration(timeout);
    match output {
        "" => format!("Health check exceeded timeout ({timeout})"),
        output => format!("Health check exceeded timeout ({timeout}): {output}"),
    }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let decimals = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        match decimals.trim_end_matches('0') {
            "" => (value / unit).to_string(),
            decimals => format!("{}.{decimals}", value / unit),
        }
    };
    const SECOND: u128 = 1_000_000_000;
    match nanoseconds {
        0 => "0s".into(),
        1..1000 => format!("{nanoseconds}ns"),
        1000..1_000_000 => format!("{}µs", fraction(nanoseconds, 1000)),
        1_000_000..SECOND => format!("{}ms", fraction(nanoseconds, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanoseconds / (60 * SECOND), nanoseconds % (60 * SECOND));
            let seconds = fraction(rest, SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> HealthResult {
        HealthResult {
            start: Timestamp::now(),
            end: Timestamp::now(),
            exit_code,
            output: String::new(),
        }
    }

    fn schedule(check: HealthConfig) -> Schedule {
        Schedule::new(&check)
    }

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn zero_means_dockers_default() {
        let plain = schedule(HealthConfig::default());
        let seconds = |n| Duration::from_secs(n);
        assert_eq!(
            (plain.interval, plain.timeout, plain.start_period),
            (seconds(30), seconds(30), seconds(0))
        );
        assert_eq!((plain.start_interval, plain.retries), (seconds(5), 3));
    }

    #[test]
    fn the_start_interval_holds_in_the_start_period_until_the_first_success() {
        let schedule = schedule(HealthConfig {
            interval: 60 * SECOND,
            start_period: 20 * SECOND,
            start_interval: 2 * SECOND,
            ..HealthConfig::default()
        });
        let pause = |up, status| schedule.pause(Duration::from_secs(up), status).as_secs();
        assert_eq!(pause(0, HealthStatus::Starting), 2);
        assert_eq!(pause(19, HealthStatus::Starting), 2);
        assert_eq!(pause(20, HealthStatus::Starting), 60);
        assert_eq!(pause(3, HealthStatus::Healthy), 60);
        assert_eq!(pause(3, HealthStatus::Unhealthy), 60);
    }

    #[test]
    fn verdicts() {
        let schedule = schedule(HealthConfig {
            start_period: 20 * SECOND,
            retries: 2,
            ..HealthConfig::default()
        });
        let mut health = Health::default();
        let mut judge = |exit_code, up| {
            schedule.judge(&mut health, result(exit_code), Duration::from_secs(up));
            (health.status, health.failing_streak, health.log.len())
        };
        use HealthStatus::{Healthy, Starting, Unhealthy};
        // Failures in the start period do not count, after a success they do.
        assert_eq!(judge(1, 5), (Starting, 0, 1));
        assert_eq!(judge(0, 6), (Healthy, 0, 2));
        assert_eq!(judge(-1, 7), (Healthy, 1, 3));
        assert_eq!(judge(2, 8), (Unhealthy, 2, 4));
        assert_eq!(judge(0, 9), (Healthy, 0, 5));
        assert_eq!(judge(0, 30), (Healthy, 0, 5));
        let mut late = Health::default();
        for _ in 0..2 {
            schedule.judge(&mut late, result(1), Duration::from_secs(20));
        }
        assert_eq!((late.status, late.was_healthy), (Unhealthy, false));
    }

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

    #[test]
    fn durations_as_go_prints_them() {
        for (milliseconds, want) in [
            (700, "700ms"),
            (30_000, "30s"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (3_661_010, "1h1m1.01s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), want);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(
            too_long(Duration::from_secs(1), "half"),
            "Health check exceeded timeout (1s): half"
        );
    }
}
