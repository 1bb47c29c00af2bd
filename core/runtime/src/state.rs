//! What is kept of a container in its runtime directory: enough to find it again, to run execs and to clean up.
//! Written without a sync: it must outlive this process, not the machine.

use std::io;
use std::path::{Path, PathBuf};

use gantry_model::{ContainerId, Timestamp};
use gantry_monitor::plan;
use gantry_monitor::protocol::{self, ExitRecord};
use serde::{Deserialize, Serialize};

use crate::{ExitStatus, RuntimeError};

/// The files of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dir(PathBuf);

/// The persistent part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// The cgroup below the hierarchies' roots.
    pub(crate) cgroup: PathBuf,
    /// Whether another OCI runtime made it.
    pub(crate) foreign: bool,
    /// Whether it has a terminal.
    pub(crate) tty: bool,
    /// What execs start from.
    pub(crate) process: plan::Process,
    /// More groups of every user in it (`--group-add`).
    pub(crate) groups: Vec<String>,
    /// Its `oom_score_adj`.
    pub(crate) oom_score_adj: Option<i32>,
}

impl Dir {
    pub(crate) fn of(exec_root: &Path, id: &ContainerId) -> Self {
        Self(exec_root.join("containers").join(id.as_str()))
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn exit_path(&self) -> PathBuf {
        self.0.join("exit.json")
    }
    fn state_path(&self) -> PathBuf {
        self.0.join("state")
    }
    pub(crate) fn failed(&self, source: io::Error) -> RuntimeError {
        RuntimeError::Io {
            path: self.0.clone(),
            source,
        }
    }
    /// Makes the directory with the state in it. What an earlier attempt left is taken away.
    pub(crate) fn make(&self, state: &State) -> Result<(), RuntimeError> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                builder.create(&self.0)
            }
            other => other,
        }
        .map_err(|e| self.failed(e))?;
        let bytes = protocol::to_bytes(state).map_err(|e| RuntimeError::Protocol(e.to_string()))?;
        std::fs::write(self.state_path(), bytes).map_err(|e| self.failed(e))
    }
    /// `None` where there is none, or it cannot be read.
    pub(crate) fn state(&self) -> Option<State> {
        let bytes = std::fs::read(self.state_path()).ok()?;
        protocol::from_bytes(&bytes)
            .inspect_err(|e| tracing::warn!("{}: {e}", self.state_path().display()))
            .ok()
    }
    /// What the monitor wrote at the end.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        let text = std::fs::read(self.exit_path()).ok()?;
        let record: ExitRecord = serde_json::from_slice(&text)
            .inspect_err(|e| tracing::warn!("{}: {e}", self.exit_path().display()))
            .ok()?;
        Some(exit_status(&record))
    }
    /// Takes everything away. Absent is fine.
    pub(crate) fn remove(&self) -> Result<(), RuntimeError> {
        match std::fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed(e)),
            _ => Ok(()),
        }
    }
}

/// From the monitor's clock.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    if nanoseconds == 0 {
        return Timestamp::zero();
    }
    let (seconds, rest) = (
        nanoseconds.div_euclid(1_000_000_000),
        nanoseconds.rem_euclid(1_000_000_000),
    );
    Timestamp::from_unix(seconds, i32::try_from(rest).unwrap_or(0))
}

pub(crate) fn exit_status(record: &ExitRecord) -> ExitStatus {
    ExitStatus {
        code: record.code,
        signal: record.signal,
        oom: record.oom,
        started_at: timestamp(record.started_at),
        exited_at: timestamp(record.exited_at),
    }
}
