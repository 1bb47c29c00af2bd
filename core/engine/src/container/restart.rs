//! Restart policies.

use std::time::Duration;

use gantry_model::Timestamp;
use gantry_model::container::RestartPolicy;
use serde::{Deserialize, Serialize};

use crate::{EngineError, Result};

/// The first delay.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length was a success: the delays begin anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// The delays of one container. They are kept with its record, so that a new daemon goes on where the last one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Backoff {
    /// The last delay in milliseconds; 0: none yet.
    delay: u64,
    /// When the container is to start again.
    due: Timestamp,
}

impl Backoff {
    /// After a run of length `run` that ended `now`: sets the next delay.
    pub(crate) fn advance(&mut self, run: Duration, now: Timestamp) {
        let last = Duration::from_millis(self.delay);
        let delay = match last.is_zero() || run >= LONG_RUN {
            true => FIRST,
            false => (last * 2).min(LONGEST),
        };
        self.delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.due = later(now, delay);
    }
    /// Whether the container is, or was last, brought back by its policy rather than by a client.
    #[must_use]
    pub(crate) fn is_under_way(&self) -> bool {
        self.delay > 0
    }
    /// How much of the delay is left. A clock that was set back does not make it longer.
    #[must_use]
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        self.due.since(now).min(Duration::from_millis(self.delay))
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let sum = time.nanoseconds() + i128::try_from(by.as_nanos()).unwrap_or(0);
    let seconds = i64::try_from(sum.div_euclid(1_000_000_000)).unwrap_or(0);
    let rest = i32::try_from(sum.rem_euclid(1_000_000_000)).unwrap_or(0);
    Timestamp::from_unix(seconds, rest)
}

/// What a policy decides upon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// How the run ended; a start that failed counts as a run.
    pub(crate) exit_code: i32,
    /// Ended because of bad health, whatever the exit code.
    pub(crate) unhealthy: bool,
    /// Times the policy has brought the container back since a client started it.
    pub(crate) restarts: u32,
    /// Stopped by a client.
    pub(crate) manually_stopped: bool,
}

/// Whether a policy wants the container to run again.
#[must_use]
pub(crate) fn wants_restart(policy: &RestartPolicy, outcome: Outcome) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !outcome.manually_stopped,
        "on-failure" => {
            (outcome.exit_code != 0 || outcome.unhealthy)
                && (policy.maximum_retry_count == 0
                    || i64::from(outcome.restarts) < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Checks a policy as a client gave it.
///
/// # Errors
/// Docker's refusals.
pub(crate) fn check(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let invalid = |message: String| Err(EngineError::bad_request(message));
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if policy.maximum_retry_count > 0 => {
            return invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .into(),
            );
        }
        "always" | "unless-stopped" | "no" | "" => {}
        "on-failure" if policy.maximum_retry_count < 0 => {
            return invalid(
                "invalid restart policy: maximum retry count cannot be negative".into(),
            );
        }
        "on-failure" => {}
        other => {
            return invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    let never = matches!(policy.name.as_str(), "" | "no");
    if never && policy.unhealthy == Some(true) {
        return invalid(
            "invalid restart policy: a restart when unhealthy needs 'always', 'on-failure' or 'unless-stopped'"
                .into(),
        );
    }
    if auto_remove && !never {
        return Err(EngineError::bad_request(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, retries: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.into(),
            maximum_retry_count: retries,
            unhealthy: None,
        }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew() {
        let now = Timestamp::from_unix(1000, 0);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.left(now), Duration::ZERO);
        assert!(!backoff.is_under_way());
        let mut next = |run: u64| {
            backoff.advance(Duration::from_secs(run), now);
            backoff.left(now).as_millis()
        };
        let delays: Vec<u128> = (0..12).map(|_| next(1)).collect();
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        assert_eq!(next(10), 100);
    }

    #[test]
    fn a_delay_outlives_the_daemon_and_not_the_clock() {
        let mut backoff = Backoff::default();
        backoff.advance(Duration::ZERO, Timestamp::from_unix(1000, 0));
        backoff.advance(Duration::ZERO, Timestamp::from_unix(1000, 0));
        assert!(backoff.is_under_way());
        let kept = serde_json::to_string(&backoff).unwrap();
        let read: Backoff = serde_json::from_str(&kept).unwrap();
        let at = |seconds, nanoseconds| read.left(Timestamp::from_unix(seconds, nanoseconds));
        assert_eq!(at(1000, 150_000_000), Duration::from_millis(50));
        assert_eq!(at(1001, 0), Duration::ZERO);
        assert_eq!(at(10, 0), Duration::from_millis(200));
    }

    #[test]
    fn who_is_restarted() {
        let wants = |name: &str, retries: i64, exit_code: i32, restarts: u32, stopped: bool| {
            let outcome = Outcome {
                exit_code,
                unhealthy: false,
                restarts,
                manually_stopped: stopped,
            };
            wants_restart(&policy(name, retries), outcome)
        };
        assert!(wants("always", 0, 0, 9, true));
        assert!(wants("unless-stopped", 0, 0, 9, false));
        assert!(!wants("unless-stopped", 0, 0, 9, true));
        assert!(!wants("on-failure", 0, 0, 0, false));
        assert!(wants("on-failure", 2, 1, 1, false));
        assert!(!wants("on-failure", 2, 1, 2, false));
        assert!(!wants("", 0, 1, 0, false));
        let unhealthy = Outcome {
            exit_code: 0,
            unhealthy: true,
            restarts: 0,
            manually_stopped: false,
        };
        assert!(wants_restart(&policy("on-failure", 0), unhealthy));
        assert!(!wants_restart(&policy("no", 0), unhealthy));
    }

    #[test]
    fn what_is_refused() {
        assert!(check(&policy("on-failure", 3), false).is_ok());
        assert!(check(&policy("always", 3), false).is_err());
        assert!(check(&policy("on-failure", -1), false).is_err());
        assert!(check(&policy("sometimes", 0), false).is_err());
        assert!(check(&policy("always", 0), true).is_err());
        let healthy = |name: &str| RestartPolicy {
            unhealthy: Some(true),
            ..policy(name, 0)
        };
        assert!(check(&healthy("always"), false).is_ok());
        assert!(check(&healthy("no"), false).is_err());
        assert!(check(&healthy(""), false).is_err());
    }
}
