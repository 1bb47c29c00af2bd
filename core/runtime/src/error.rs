//! What can go wrong, in classes that the engine maps to status and exit codes.

use std::path::PathBuf;

use crate::spec::SpecError;

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The specification cannot be built or lowered: the caller's fault.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The container's set-up failed; nothing of it is left.
    #[error("{stage}: {message}")]
    Create {
        /// What was being done (`mount`, `cgroup`, `namespaces`, ...).
        stage: String,
        /// The kernel's error, 0 when it was not a system call.
        errno: i32,
        /// For people.
        message: String,
    },
    /// The process could not be executed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No runtime of that name is configured.
    #[error("unknown or invalid runtime name: {0}")]
    UnknownRuntime(String),
    /// The container's process has ended, or its monitor is gone.
    #[error("container is not running")]
    NotRunning,
    /// The zygote cannot be started or does not answer.
    #[error("zygote: {0}")]
    Zygote(String),
    /// The monitor ended without a word.
    #[error("zygote: the monitor ended while it set the container up")]
    MonitorLost,
    /// The monitor said something that cannot be understood.
    #[error("monitor protocol: {0}")]
    Protocol(String),
    /// A control group operation failed.
    #[error("cgroup: {0}")]
    Cgroup(String),
    /// Reading or writing runtime files.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// This kind of container cannot do that (a foreign runtime without the feature, a host without the controller).
    #[error("{0}")]
    Unsupported(String),
}

/// Why a program was not executed. `kind` decides the exit code that Docker's clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The class.
    pub kind: StartErrorKind,
    /// As runc words it: `exec: "foo": executable file not found in $PATH`.
    pub message: String,
}

/// Classes of [`StartError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartErrorKind {
    /// The program does not exist: exit code 127.
    NotFound,
    /// It is there but may not be executed, or is a directory: exit code 126.
    Permission,
    /// Anything else: exit code 128 at `start`, 126 for an exec.
    Other,
}
