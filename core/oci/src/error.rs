//! What goes wrong, in runc's words where callers look at them.

use std::fmt::Display;

use gantry_monitor::hooks::HookError;
use gantry_monitor::protocol::{Failure, Stage};
use gantry_runtime::SpecError;
use gantry_sys::cgroup::CgroupError;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Asked for what cannot be or is not done.
    #[error("{0}")]
    Refused(String),
    /// podman looks for "does not exist".
    #[error("container {0:?} does not exist")]
    NoContainer(String),
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    #[error("container not running")]
    NotRunning,
    /// The container's process could not be set up, or cannot be executed.
    #[error("unable to start container process: {}", .0.message)]
    Start(Failure),
    #[error("exec failed: unable to start container process: {}", .0.message)]
    Exec(Failure),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("{what}: {}", gantry_monitor::words_of(source))]
    System {
        what: String,
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn refused(why: impl Display) -> Self {
        Self::Refused(why.to_string())
    }
    /// 127 and 126 where an exec's program is not there or cannot be executed, in the manner of shells; otherwise 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exec(f) if f.stage == Stage::NotFound => 127,
            Self::Exec(f) if f.stage == Stage::NotExecutable => 126,
            _ => 1,
        }
    }
}

/// Gives a system's error its words.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::System {
            what: what(),
            source: e.into(),
        })
    }
}
