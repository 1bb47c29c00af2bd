//! When a container is checked, and what the results make of its health.

use std::time::Duration;

use gantry_model::container::HealthConfig;

use crate::container::record::{Health, HealthResult, HealthStatus};

/// Results that are kept.
const KEPT_RESULTS: usize = 5;

/// A check's times with Docker's defaults filled in.
pub(super) struct Schedule {
    interval: Duration,
    pub(super) timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Schedule {
    pub(super) fn new(check: &HealthConfig) -> Self {
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
    pub(super) fn pause(&self, up: Duration, status: HealthStatus) -> Duration {
        match up < self.start_period && status == HealthStatus::Starting {
            true => self.start_interval,
            false => self.interval,
        }
    }

    /// What a result makes of a container's health. `up` is how long it had been up when the check began.
    pub(super) fn judge(&self, health: &mut Health, result: HealthResult, up: Duration) {
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

#[cfg(test)]
mod tests {
    use gantry_model::Timestamp;

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
}
