//! Handles to a container's process and to processes executed in it.

use std::os::fd::OwnedFd;

use gantry_model::{ContainerId, ExecId, Timestamp};
use gantry_sys::cgroup::Stats;
use tokio::net::UnixStream;

use crate::spec::Resources;
use crate::{
    Attach, Attached, ConsoleSize, ExecRequest, ExitStatus, RuntimeError, StartError,
    StartErrorKind,
};

/// One container's init process and its monitor. Shared; every method may be called concurrently.
#[derive(Debug)]
pub struct Process {
    id: ContainerId,
    pid: i32,
}

impl Process {
    /// The container.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }
    /// The init process in the host's PID namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
    /// When the program was executed; `None` before [`Process::start`] succeeded.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        None
    }
    /// Executes the container's program.
    ///
    /// # Errors
    /// [`StartError`]; the container is gone then and [`Process::wait`] answers.
    pub async fn start(&self) -> Result<(), StartError> {
        Err(StartError {
            kind: StartErrorKind::Other,
            message: "not supported yet".into(),
        })
    }
    /// Sends a signal to the init process.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`] when it has ended.
    pub async fn signal(&self, _signo: i32) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// Kills every process of the container (SIGKILL to the whole cgroup).
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn kill_all(&self) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// Waits for the end of the init process. Any number of waiters; answers at once when it has ended.
    ///
    /// # Errors
    /// [`RuntimeError::Protocol`] when the monitor vanished without an exit record.
    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        Err(unsupported())
    }
    /// The exit status, when it has ended.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        None
    }
    /// Joins a client to the container's streams.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or the connection's error.
    pub async fn attach(&self, _attach: Attach) -> Result<Attached, RuntimeError> {
        Err(unsupported())
    }
    /// Runs a process in the container.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] when it cannot be executed, [`RuntimeError::NotRunning`].
    pub async fn exec(&self, _request: ExecRequest) -> Result<ExecProcess, RuntimeError> {
        Err(unsupported())
    }
    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or no terminal.
    pub async fn resize(&self, _size: ConsoleSize) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// A descriptor of the container's network namespace.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn netns(&self) -> Result<OwnedFd, RuntimeError> {
        Err(unsupported())
    }
    /// Freezes every process.
    ///
    /// # Errors
    /// Errors of the freezer.
    pub async fn pause(&self) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// Thaws them.
    ///
    /// # Errors
    /// Errors of the freezer.
    pub async fn unpause(&self) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// Changes limits while it runs; `None` fields stay as they are.
    ///
    /// # Errors
    /// Errors of the cgroup file system, with the file's name.
    pub async fn update(&self, _resources: &Resources) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// What the kernel accounts to the container.
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn stats(&self) -> Result<Stats, RuntimeError> {
        Err(unsupported())
    }
    /// Every process of the container, in the host's PID namespace.
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn pids(&self) -> Result<Vec<i32>, RuntimeError> {
        Err(unsupported())
    }
    /// Removes cgroups and runtime files, killing what still runs. Idempotent.
    ///
    /// # Errors
    /// Errors of the file systems; calling again goes on.
    pub async fn delete(&self) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
}

/// The engine's ends of an exec's streams.
#[derive(Debug)]
pub enum ExecStdio {
    /// Pipes, for the streams that were asked for.
    Pipes {
        /// To write to.
        stdin: Option<OwnedFd>,
        /// To read from.
        stdout: Option<OwnedFd>,
        /// To read from.
        stderr: Option<OwnedFd>,
    },
    /// The master side of the terminal.
    Pty(OwnedFd),
}

/// A process running inside a container.
#[derive(Debug)]
pub struct ExecProcess {
    id: ExecId,
    pid: i32,
    stdio: Option<ExecStdio>,
    _control: Option<UnixStream>,
}

impl ExecProcess {
    /// The engine's identifier of it.
    #[must_use]
    pub fn id(&self) -> &ExecId {
        &self.id
    }
    /// In the host's PID namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
    /// The streams; `None` from the second call on. Non-blocking mode is the caller's affair.
    pub fn take_stdio(&mut self) -> Option<ExecStdio> {
        self.stdio.take()
    }
    /// Waits for its end. Any number of waiters.
    ///
    /// # Errors
    /// [`RuntimeError::Protocol`] when the monitor vanished.
    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        Err(unsupported())
    }
    /// Sends it a signal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn signal(&self, _signo: i32) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or no terminal.
    pub async fn resize(&self, _size: ConsoleSize) -> Result<(), RuntimeError> {
        Err(unsupported())
    }
}

fn unsupported() -> RuntimeError {
    RuntimeError::Unsupported("not supported yet".into())
}
