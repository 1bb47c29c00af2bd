//! Fail points.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode, serde_json};
use serde::Deserialize;

/// How a method fails.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "with")]
pub enum Failure {
    /// It panics.
    Panic,
    /// The process gets SIGSEGV.
    Segfault,
    /// The process exits.
    Exit {
        /// With this status.
        status: i32,
    },
    /// It never returns.
    Hang,
    /// It takes this long, then works.
    Slow {
        /// Milliseconds.
        millis: u64,
    },
    /// It answers with an error.
    Error {
        /// Its class.
        code: ErrorCode,
        /// Its text.
        message: String,
    },
}

/// The options that every mock has.
#[derive(Debug, Default, Deserialize)]
pub struct Script {
    /// Failures by method name.
    #[serde(default)]
    fail: BTreeMap<String, Failure>,
}

impl Script {
    /// Reads a driver's options, and fails for `new` if they say so.
    ///
    /// # Errors
    /// `InvalidArgument` for options that make no sense; what the script says.
    pub fn parse(options: &serde_json::Value) -> DriverResult<Self> {
        let script: Self = serde_json::from_value(options.clone())
            .map_err(|e| DriverError::invalid(format!("options: {e}")))?;
        script.gate("new")?;
        Ok(script)
    }

    /// Called at the start of `method`.
    ///
    /// # Errors
    /// What the script says.
    ///
    /// # Panics
    /// When the script says so.
    pub fn gate(&self, method: &str) -> DriverResult<()> {
        match self.fail.get(method) {
            None => Ok(()),
            Some(Failure::Panic) => panic!("{method} was told to panic"),
            // The first one only takes the standard library's handler away.
            Some(Failure::Segfault) => loop {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::SEGV)
                    .map_err(|e| DriverError::io("raising SIGSEGV", &e.into()))?;
            },
            Some(Failure::Exit { status }) => std::process::exit(*status),
            Some(Failure::Hang) => loop {
                std::thread::park();
            },
            Some(Failure::Slow { millis }) => {
                std::thread::sleep(Duration::from_millis(*millis));
                Ok(())
            }
            Some(Failure::Error { code, message }) => {
                Err(DriverError::new(*code, message.as_str()))
            }
        }
    }
}
