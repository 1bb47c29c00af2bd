//! What list, logs, attach and their like are asked with.

use gantry_model::Timestamp;
use gantry_wire::Filters;

/// Which containers to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Also those that do not run.
    pub all: bool,
    /// The newest so many, running or not.
    pub limit: Option<usize>,
    /// Measure the writable layers.
    pub size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ImageListQuery {
    /// Also intermediate images.
    pub all: bool,
    /// Fill in `RepoDigests` (always done; kept for the request's sake).
    pub digests: bool,
    /// Compute `SharedSize`.
    pub shared_size: bool,
    /// Fill in `Manifests`.
    pub manifests: bool,
    /// Docker's filters.
    pub filters: Filters,
}

/// Which events to stream.
#[derive(Debug, Clone, Default)]
pub struct EventsQuery {
    /// Start with past events from here; `None`: only what happens from now on.
    pub since: Option<Timestamp>,
    /// Stop here; `None`: never.
    pub until: Option<Timestamp>,
    /// Docker's filters.
    pub filters: Filters,
}

/// Which part of a container's log to read.
#[derive(Debug, Clone, Default)]
pub struct LogsQuery {
    /// Go on with what is written until the container exits.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Lines not older than this.
    pub since: Option<Timestamp>,
    /// Lines not younger than this.
    pub until: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// The last so many lines; `None`: all.
    pub tail: Option<u64>,
    /// Put the line's attributes before it.
    pub details: bool,
    /// Lines of one stream may share a frame: the client takes no frame for a line.
    pub joined: bool,
}

/// What an attach wants.
#[derive(Debug, Clone, Default)]
pub struct AttachQuery {
    /// Live output and input, not the log alone.
    pub stream: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error.
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// The key sequence that detaches, as the client wrote it (`ctrl-p,ctrl-q`).
    pub detach_keys: Option<String>,
}

/// What a removal may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill the container first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Returns at once when the container does not run.
    #[default]
    NotRunning,
    /// The next exit, even when the container does not run now.
    NextExit,
    /// The container is gone.
    Removed,
}

impl std::str::FromStr for WaitCondition {
    type Err = crate::EngineError;
    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(crate::EngineError::bad_request(format!(
                "invalid condition: {other:?}"
            ))),
        }
    }
}
