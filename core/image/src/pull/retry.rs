//! Trying again: which failures pass, and how long to wait.

use std::time::{Duration, Instant};

use gantry_driver_api::{DriverError, DriverResult, ErrorCode};

use crate::Settings;

/// The longest wait between two attempts. Who is sent away for longer has to come back by himself.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often a waiting thread looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(100);

/// Whether another attempt may succeed, soon. A driver whose process died is there again, as a new generation.
pub(crate) fn is_transient(error: &DriverError) -> bool {
    let soon = Duration::from_secs(error.retry_after.unwrap_or(0)) <= MAX_WAIT;
    soon && matches!(
        error.code,
        ErrorCode::Unavailable
            | ErrorCode::ResourceExhausted
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Panicked
    )
}

/// Makes up to `attempts` attempts at what may pass, waiting from `base` on between them, until it is `unwanted`. Blocks.
pub(crate) fn persist<T>(
    attempts: u32,
    base: Duration,
    unwanted: impl Fn() -> bool,
    mut attempt: impl FnMut() -> DriverResult<T>,
) -> DriverResult<T> {
    let mut failures = 0;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        failures += 1;
        if !is_transient(&error) || failures >= attempts || unwanted() {
            return Err(error);
        }
        rest(wait(failures, base, &error), &unwanted);
        if unwanted() {
            return Err(error);
        }
    }
}

/// Failures in a row at something that gets on bit by bit; getting on begins the count anew.
#[derive(Debug, Default)]
pub(crate) struct Failures(u32);

impl Failures {
    /// How long to wait after a failure before which it `got_on` or did not; none where another attempt is of no use.
    pub(crate) fn after(
        &mut self,
        error: &DriverError,
        got_on: bool,
        settings: &Settings,
    ) -> Option<Duration> {
        self.0 = if got_on { 1 } else { self.0 + 1 };
        let again = is_transient(error) && self.0 < settings.max_attempts;
        again.then(|| wait(self.0, settings.retry_base, error))
    }
}

/// Sleeps for `time`, or until it is `unwanted`.
pub(crate) fn rest(time: Duration, unwanted: impl Fn() -> bool) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || unwanted() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}

/// How long to wait before attempt number `attempt` (the second is 1): `base` doubled each time, between half and all
/// of that at random so that many clients do not come back at once; at least what the server asked for.
pub(crate) fn wait(attempt: u32, base: Duration, error: &DriverError) -> Duration {
    let doubled = base.saturating_mul(1 << (attempt - 1).min(10));
    let mut random = [0; 2];
    // Without randomness the wait is merely less random.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    let jittered = doubled.mul_f64(0.5 + share / 2.0);
    let wished = Duration::from_secs(error.retry_after.unwrap_or(0));
    jittered.max(wished).min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_obey_the_server() {
        let mut error = DriverError::new(ErrorCode::Unavailable, "x");
        let base = Duration::from_millis(100);
        for attempt in 1..6 {
            let wait = wait(attempt, base, &error);
            let full = base * (1 << (attempt - 1));
            assert!(wait >= full / 2 && wait <= full, "{attempt}: {wait:?}");
        }
        assert!(wait(4_000_000, base, &error) <= MAX_WAIT);
        error.retry_after = Some(7);
        assert_eq!(wait(1, base, &error), Duration::from_secs(7));
        assert!(is_transient(&error));
        error.retry_after = Some(86_400);
        assert!(!is_transient(&error), "nobody waits for a day");
    }
}
