//! Processes executed in a running container.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_model::{ExecId, Timestamp};
use gantry_monitor::plan::{Capabilities, ExecPlan, User};
use gantry_monitor::protocol::{self, Request};
use gantry_sys::caps::CapSet;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::watch;

use crate::control::ExecEnd;
use crate::spec::process::merge_env;
use crate::state::State;
use crate::{ConsoleSize, ExecRequest, ExitStatus, Process, RuntimeError, SpecError};

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
    started_at: Timestamp,
    stdio: Option<ExecStdio>,
    container: Arc<Process>,
    ended: watch::Receiver<ExecEnd>,
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
        let (code, signal) = exec_end(self.ended.clone()).await?;
        Ok(ExitStatus {
            code,
            signal,
            oom: false,
            started_at: self.started_at,
            exited_at: Timestamp::now(),
        })
    }
    /// Sends it a signal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn signal(&self, signo: i32) -> Result<(), RuntimeError> {
        let exec = Some(self.id.to_string());
        self.container
            .control
            .command(Request::Signal {
                signo,
                all: false,
                exec,
            })
            .await
    }
    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or no terminal.
    pub async fn resize(&self, size: ConsoleSize) -> Result<(), RuntimeError> {
        let exec = Some(self.id.to_string());
        self.container
            .control
            .command(Request::Resize {
                height: size.height,
                width: size.width,
                exec,
            })
            .await
    }
}

/// What the monitor is told: the container's own process, with what the request changes.
pub(crate) fn plan(
    state: &State,
    request: &ExecRequest,
    all: CapSet,
) -> Result<Vec<u8>, RuntimeError> {
    if request.argv.is_empty() {
        return Err(SpecError::Invalid("no exec command specified".into()).into());
    }
    let mut process = state.process.clone();
    process.argv.clone_from(&request.argv);
    // TERM is for the exec's terminal, not for the container's.
    let terminal = if request.tty { "TERM=xterm" } else { "TERM" };
    let inherits_term = process.env.iter().any(|e| e.starts_with("TERM=")) && !state.tty;
    if !inherits_term {
        process.env = merge_env(&process.env, &[terminal.to_owned()]);
    }
    process.env = merge_env(&process.env, &request.env);
    process.create_cwd = false;
    if let Some(cwd) = &request.cwd {
        if !cwd.starts_with('/') {
            let message = format!("Cwd must be an absolute path: {cwd}");
            return Err(SpecError::Invalid(message).into());
        }
        process.cwd = cwd.into();
    }
    if let Some(user) = &request.user {
        process.user = User::Name {
            spec: user.clone(),
            groups: state.groups.clone(),
        };
    }
    if request.privileged {
        let bits = all.bits();
        process.capabilities = Capabilities {
            bounding: bits,
            effective: bits,
            permitted: bits,
            ..Capabilities::default()
        };
    }
    let plan = ExecPlan {
        process,
        oom_score_adj: state.oom_score_adj,
        size: request.console_size.map(|s| (s.height, s.width)),
    };
    protocol::to_bytes(&plan).map_err(|e| RuntimeError::Protocol(e.to_string()))
}

/// Our ends of the streams and the process's three; none of either for a terminal.
pub(crate) fn stdio(request: &ExecRequest) -> io::Result<(Option<ExecStdio>, Vec<OwnedFd>)> {
    if request.tty {
        return Ok((None, Vec::new()));
    }
    let mut theirs = Vec::with_capacity(3);
    let mut end = |wanted: bool, is_input: bool| -> io::Result<Option<OwnedFd>> {
        if !wanted {
            let null = std::fs::File::options()
                .read(is_input)
                .write(!is_input)
                .open("/dev/null")?;
            theirs.push(null.into());
            return Ok(None);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ours, other) = if is_input {
            (write, read)
        } else {
            (read, write)
        };
        theirs.push(other);
        Ok(Some(ours))
    };
    let stdin = end(request.stdin, true)?;
    let stdout = end(request.stdout, false)?;
    let stderr = end(request.stderr, false)?;
    let ours = ExecStdio::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((Some(ours), theirs))
}

/// The handle of what the monitor has started.
pub(crate) fn running(
    container: &Arc<Process>,
    request: ExecRequest,
    pid: i32,
    pipes: Option<ExecStdio>,
    master: Option<OwnedFd>,
    ended: watch::Receiver<ExecEnd>,
) -> Result<ExecProcess, RuntimeError> {
    let stdio = pipes.or_else(|| master.map(ExecStdio::Pty));
    if stdio.is_none() {
        return Err(RuntimeError::Protocol(
            "no terminal came with the exec".into(),
        ));
    }
    Ok(ExecProcess {
        id: request.id,
        pid,
        started_at: Timestamp::now(),
        stdio,
        container: Arc::clone(container),
        ended,
    })
}

/// Receives an exec's end once it is there.
async fn exec_end(mut ended: watch::Receiver<ExecEnd>) -> Result<(i32, Option<i32>), RuntimeError> {
    let lost = || RuntimeError::Protocol("the container's monitor is gone".into());
    let end = ended.wait_for(Option::is_some).await.map_err(|_| lost())?;
    end.and_then(Result::ok).ok_or_else(lost)
}
