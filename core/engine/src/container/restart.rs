//! Restart policies.

use std::time::Duration;

use gantry_model::container::RestartPolicy;

use crate::{EngineError, Result};

/// The first delay.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length was a success: the delays begin anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// The delays of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait after a run of length `run`.
    pub(crate) fn next(&mut self, run: Duration) -> Duration {
        let delay = match self.last {
            Some(last) if run < LONG_RUN => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(delay);
        delay
    }
    /// A client started the container: the delays begin anew.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }
}

/// Whether a policy wants the container to run again.
#[must_use]
pub(crate) fn wants_restart(
    policy: &RestartPolicy,
    exit_code: i32,
    restarts: u32,
    manually_stopped: bool,
) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !manually_stopped,
        "on-failure" => {
            exit_code != 0
                && (policy.maximum_retry_count == 0
                    || i64::from(restarts) < policy.maximum_retry_count)
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
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
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
        }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u64> = (0..12)
            .map(|_| u64::try_from(backoff.next(short).as_millis()).unwrap())
            .collect();
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        assert_eq!(backoff.next(Duration::from_secs(10)), FIRST);
    }

    #[test]
    fn who_is_restarted() {
        assert!(wants_restart(&policy("always", 0), 0, 9, true));
        assert!(wants_restart(&policy("unless-stopped", 0), 0, 9, false));
        assert!(!wants_restart(&policy("unless-stopped", 0), 0, 9, true));
        assert!(!wants_restart(&policy("on-failure", 0), 0, 0, false));
        assert!(wants_restart(&policy("on-failure", 2), 1, 1, false));
        assert!(!wants_restart(&policy("on-failure", 2), 1, 2, false));
        assert!(!wants_restart(&policy("", 0), 1, 0, false));
    }

    #[test]
    fn what_is_refused() {
        assert!(check(&policy("on-failure", 3), false).is_ok());
        assert!(check(&policy("always", 3), false).is_err());
        assert!(check(&policy("on-failure", -1), false).is_err());
        assert!(check(&policy("sometimes", 0), false).is_err());
        assert!(check(&policy("always", 0), true).is_err());
    }
}
