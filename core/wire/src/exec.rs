//! Processes started inside running containers.

use gantry_model::container::StrSlice;
use serde::{Deserialize, Serialize};

/// Body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecCreateRequest {
    /// `user|uid[:group|gid]`; empty means the container's.
    pub user: String,
    /// All capabilities.
    pub privileged: bool,
    /// Give the process a terminal.
    pub tty: bool,
    /// Terminal size: height, width, in characters.
    pub console_size: Option<[u32; 2]>,
    /// Connect standard input.
    pub attach_stdin: bool,
    /// Connect standard error.
    pub attach_stderr: bool,
    /// Connect standard output.
    pub attach_stdout: bool,
    /// Key sequence that detaches; empty means the default.
    pub detach_keys: String,
    /// `NAME=value`, over the container's.
    pub env: Option<Vec<String>>,
    /// Working directory; empty means the container's.
    pub working_dir: String,
    /// Executable and arguments.
    pub cmd: StrSlice,
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStartRequest {
    /// Do not wait and do not connect streams.
    pub detach: bool,
    /// Whether the client expects a terminal.
    pub tty: bool,
    /// Terminal size: height, width, in characters.
    pub console_size: Option<[u32; 2]>,
}

/// Reply of creations that answer with an identifier alone (exec, commit).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdReply {
    /// The new object's identifier.
    pub id: String,
}

/// Reply of `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecInspect {
    /// Identifier.
    #[serde(rename = "ID")]
    pub id: String,
    /// The process lives.
    pub running: bool,
    /// `null` until the process ended.
    pub exit_code: Option<i64>,
    /// What was started.
    pub process_config: ProcessConfig,
    /// Standard input is connected.
    pub open_stdin: bool,
    /// Standard error is connected.
    pub open_stderr: bool,
    /// Standard output is connected.
    pub open_stdout: bool,
    /// Always false; from old times.
    pub can_remove: bool,
    /// The container.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Key sequence that detaches.
    pub detach_keys: String,
    /// Process identifier on the host; zero when it does not run.
    pub pid: i64,
}

/// What an exec started. The names are in lower case on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    /// It has a terminal.
    pub tty: bool,
    /// Executable.
    pub entrypoint: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// All capabilities.
    pub privileged: Option<bool>,
    /// User as given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
