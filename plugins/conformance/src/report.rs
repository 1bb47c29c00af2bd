//! What was checked, and how it went.

use gantry_driver_api::{DriverError, DriverResult, ErrorCode};

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As promised.
    Passed,
    /// Not as promised; what was seen.
    Failed(String),
    /// It does not apply; why.
    Skipped(String),
}

/// One promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The promise, in words.
    pub promise: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// All checks of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Runs one check.
    pub(crate) fn check(
        &mut self,
        promise: &'static str,
        run: impl FnOnce() -> Result<(), Problem>,
    ) {
        let outcome = match run() {
            Ok(()) => Outcome::Passed,
            Err(Problem::Failed(why)) => Outcome::Failed(why),
            Err(Problem::Skipped(why)) => Outcome::Skipped(why),
        };
        self.checks.push(Check { promise, outcome });
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        let failed = |check: &&Check| matches!(check.outcome, Outcome::Failed(_));
        self.checks.iter().filter(failed)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Check { promise, outcome } in &self.checks {
            match outcome {
                Outcome::Passed => writeln!(f, "ok      {promise}")?,
                Outcome::Failed(why) => writeln!(f, "FAILED  {promise}: {why}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped {promise}: {why}")?,
            }
        }
        Ok(())
    }
}

/// Why a check did not pass.
pub(crate) enum Problem {
    Failed(String),
    Skipped(String),
}

impl From<DriverError> for Problem {
    fn from(error: DriverError) -> Self {
        Self::Failed(format!("{error} ({:?})", error.code))
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Fails with `why` unless `ok`.
pub(crate) fn expect(ok: bool, why: impl FnOnce() -> String) -> Result<(), Problem> {
    if ok {
        Ok(())
    } else {
        Err(Problem::Failed(why()))
    }
}

/// Fails unless `result` is an error of class `code`.
pub(crate) fn refused<T: std::fmt::Debug>(
    result: DriverResult<T>,
    code: ErrorCode,
) -> Result<(), Problem> {
    match result {
        Err(error) if error.code == code => Ok(()),
        other => Err(Problem::Failed(format!("expected {code:?}, got {other:?}"))),
    }
}

pub(crate) fn skip<T>(why: &str) -> Result<T, Problem> {
    Err(Problem::Skipped(why.to_owned()))
}
