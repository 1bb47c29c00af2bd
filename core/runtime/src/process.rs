//! The handle to a container's process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gantry_model::{ContainerId, Timestamp};
use gantry_monitor::client;
use gantry_monitor::protocol::{AttachReply, Message, Request, ToMonitor, encode};
use gantry_sys::caps::CapSet;
use gantry_sys::cgroup::{CgroupError, Group, OomWatch, Restore, Stats};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::control::{self, Control, End, unexpected};
use crate::exec;
use crate::failure::{cgroup, never_ran, start_error};
use crate::spec::{Resources, resources};
use crate::state::{Dir, exit_status, timestamp};
use crate::work::{blocking, clear};
use crate::{
    Attach, Attached, ConsoleSize, ExecProcess, ExecRequest, ExitStatus, RuntimeError, StartError,
    StartErrorKind,
};

/// How long [`Process::delete`] waits for a killed container to end, and then for its monitor to leave: unmounting an
/// overlay has the kernel write its upper layer to the disk.
const LEAVE: Duration = Duration::from_secs(30);

/// One container's init process and its monitor. Shared; every method may be called concurrently.
#[derive(Debug)]
pub struct Process {
    pub(crate) id: ContainerId,
    pub(crate) pid: i32,
    pub(crate) dir: Dir,
    pub(crate) group: Group,
    pub(crate) control: Control,
    /// What a privileged exec gets.
    pub(crate) all_caps: CapSet,
    /// Nanoseconds since the epoch; 0 before the start.
    pub(crate) started_at: AtomicI64,
    /// Set when the end is known otherwise than from the monitor.
    pub(crate) ended: Mutex<Option<ExitStatus>>,
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
    /// Its control group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }
    /// When the program was executed; `None` before [`Process::start`] succeeded.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        match self.started_at.load(Ordering::Acquire) {
            0 => None,
            at => Some(timestamp(at)),
        }
    }
    /// Executes the container's program.
    ///
    /// # Errors
    /// [`StartError`]; the container is gone then and [`Process::wait`] answers.
    pub async fn start(&self) -> Result<(), StartError> {
        let other = |message: String| StartError {
            kind: StartErrorKind::Other,
            message,
        };
        let answer = self.control.ask(Request::Start).await;
        match answer.map_err(|e| other(e.to_string()))?.message {
            Message::Started { at } => {
                self.started_at.store(at, Ordering::Release);
                Ok(())
            }
            Message::StartFailed(failure) => {
                let error = start_error(failure);
                *self.ended.lock() = Some(never_ran(error.kind));
                Err(error)
            }
            message => Err(other(unexpected(message).to_string())),
        }
    }
    /// Sends a signal to the init process.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`] when it has ended.
    pub async fn signal(&self, signo: i32) -> Result<(), RuntimeError> {
        self.control
            .command(Request::Signal {
                signo,
                all: false,
                exec: None,
            })
            .await
    }
    /// Kills every process of the container (SIGKILL to the whole cgroup).
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn kill_all(&self) -> Result<(), RuntimeError> {
        self.with_group(|group| group.kill_all()).await
    }
    /// Waits for the end of the init process. Any number of waiters; answers at once when it has ended.
    ///
    /// When the monitor itself was killed, the container can be neither reaped nor logged any more: it is killed, and
    /// counted as ended by SIGKILL.
    ///
    /// # Errors
    /// [`RuntimeError::Protocol`] when the connection is of no more use though the monitor lives: reconnect. Errors of
    /// the cgroup file system, while killing a container without a monitor.
    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        let mut end = self.control.end();
        // The sender lives as long as the connection, which we hold.
        let _ = end.wait_for(|end| !matches!(end, End::Running)).await;
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        let status = match self.dir.exit() {
            Some(status) => status,
            // It lives, but we do not understand each other: no reason to harm the container.
            None if client::connect(self.dir.path()).is_ok() => {
                return Err(RuntimeError::Protocol("the connection broke".into()));
            }
            None => {
                tracing::error!(id = %self.id, "the container's monitor is gone; killing the container");
                self.kill_all().await?;
                self.lost()
            }
        };
        Ok(*self.ended.lock().get_or_insert(status))
    }
    fn lost(&self) -> ExitStatus {
        ExitStatus {
            code: 128 + nix::libc::SIGKILL,
            signal: Some(nix::libc::SIGKILL),
            oom: false,
            started_at: self.started_at().unwrap_or_default(),
            exited_at: Timestamp::now(),
        }
    }
    /// The exit status, when it has ended.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        if let Some(status) = *self.ended.lock() {
            return Some(status);
        }
        match &*self.control.end().borrow() {
            End::Exited(record) => Some(exit_status(record)),
            End::Running | End::Lost => None,
        }
    }
    /// Joins a client to the container's streams.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or the connection's error.
    pub async fn attach(&self, attach: Attach) -> Result<Attached, RuntimeError> {
        let lost = |_: io::Error| RuntimeError::NotRunning;
        let stream = client::connect(self.dir.path()).map_err(lost)?;
        stream.set_nonblocking(true).map_err(lost)?;
        let mut stream = UnixStream::from_std(stream).map_err(lost)?;
        let request = Request::Attach {
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            partial: attach.partial,
        };
        let bytes = encode(&ToMonitor { seq: 1, request })
            .map_err(|e| RuntimeError::Protocol(e.to_string()))?;
        control::write(&stream, &bytes, &[]).await.map_err(lost)?;
        let mut reply = [0; AttachReply::LEN];
        stream.read_exact(&mut reply).await.map_err(lost)?;
        let reply = AttachReply::from_bytes(reply);
        if reply.errno != 0 {
            let error = io::Error::from_raw_os_error(reply.errno.cast_signed());
            return Err(self.dir.failed(error));
        }
        Ok(Attached {
            stream,
            log_offset: reply.log_offset,
            log_rotations: reply.rotations,
        })
    }
    /// Runs a process in the container.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] when it cannot be executed, [`RuntimeError::NotRunning`].
    pub async fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<ExecProcess, RuntimeError> {
        // Kept on disk, not here: with its filter it is the largest part of a container that nobody executes in.
        let state = self.dir.state().ok_or(RuntimeError::NotRunning)?;
        let plan = exec::plan(&state, &request, self.all_caps)?;
        let (stdio, theirs) = exec::stdio(&request).map_err(|e| self.dir.failed(e))?;
        let message = Request::Exec {
            id: request.id.to_string(),
            tty: request.tty,
            plan,
        };
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let (answer, ended) = self.control.exec(message, &fds).await?;
        match answer.message {
            Message::ExecStarted { pid } => {
                exec::running(self, request, pid, stdio, answer.fd, ended)
            }
            Message::ExecFailed(failure) => Err(start_error(failure).into()),
            message => Err(unexpected(message)),
        }
    }
    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or no terminal.
    pub async fn resize(&self, size: ConsoleSize) -> Result<(), RuntimeError> {
        self.control
            .command(Request::Resize {
                height: size.height,
                width: size.width,
                exec: None,
            })
            .await
    }
    /// Has the monitor open its log file anew, after someone moved or truncated it.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], or the file cannot be opened.
    pub async fn reopen_log(&self) -> Result<(), RuntimeError> {
        self.control.command(Request::ReopenLog).await
    }
    /// A descriptor of the container's network namespace.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub async fn netns(&self) -> Result<OwnedFd, RuntimeError> {
        let answer = self.control.ask(Request::TakeNetns).await?;
        match (answer.message, answer.fd) {
            (Message::Netns, Some(fd)) => Ok(fd),
            (message, _) => Err(unexpected(message)),
        }
    }
    /// Freezes every process.
    ///
    /// # Errors
    /// Errors of the freezer.
    pub async fn pause(&self) -> Result<(), RuntimeError> {
        self.with_group(|group| group.freeze()).await
    }
    /// Thaws them.
    ///
    /// # Errors
    /// Errors of the freezer.
    pub async fn unpause(&self) -> Result<(), RuntimeError> {
        self.with_group(|group| group.thaw()).await
    }
    /// Whether its processes are frozen.
    ///
    /// # Errors
    /// Errors of the freezer.
    pub async fn is_paused(&self) -> Result<bool, RuntimeError> {
        self.with_group(|group| group.is_frozen()).await
    }
    /// Changes limits while it runs, all of them or none; `None` fields stay as they are. Swap too: unlike at creation, a
    /// limit on memory alone says nothing on it. The answer undoes it.
    ///
    /// # Errors
    /// Errors of the cgroup file system, with the file's name.
    pub async fn update(&self, resources: &Resources) -> Result<Restore, RuntimeError> {
        let mut limits = resources::to_limits(resources)?;
        if resources.memory_swap.is_none() {
            limits.memory_swap = None;
        }
        self.with_group(move |group| group.update(&limits)).await
    }
    /// Watches for its memory running out; the descriptor is readable when there may be news.
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn watch_oom(&self) -> Result<(OomWatch, OwnedFd), RuntimeError> {
        self.with_group(|group| group.watch_oom()).await
    }
    /// What the kernel accounts to the container.
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn stats(&self) -> Result<Stats, RuntimeError> {
        self.with_group(|group| group.stats()).await
    }
    /// Every process of the container, in the host's PID namespace.
    ///
    /// # Errors
    /// Errors of the cgroup file system.
    pub async fn pids(&self) -> Result<Vec<i32>, RuntimeError> {
        self.with_group(|group| group.pids()).await
    }
    /// Removes cgroups and runtime files, killing what still runs. Afterwards nothing uses the root file system any
    /// more: its layer may be removed or mounted again. Idempotent.
    ///
    /// # Errors
    /// Errors of the file systems; calling again goes on.
    pub async fn delete(&self) -> Result<(), RuntimeError> {
        let mut end = self.control.end();
        if matches!(*end.borrow_and_update(), End::Running) {
            self.kill_all().await?;
            // In a cgroup that could not be listed the signal goes to the first process alone.
            let _ = self.signal(nix::libc::SIGKILL).await;
            let ended = end.wait_for(|end| !matches!(end, End::Running));
            if tokio::time::timeout(LEAVE, ended).await.is_err() {
                tracing::warn!(id = %self.id, "the container does not end");
            }
        }
        let (group, dir) = (self.group.clone(), self.dir.clone());
        let cleared = blocking(move || clear(&group, &dir));
        let left = tokio::time::timeout(LEAVE, self.control.closed());
        let (cleared, left) = tokio::join!(cleared, left);
        if left.is_err() {
            tracing::warn!(id = %self.id, "the container's monitor does not leave");
        }
        cleared
    }
    /// Works on the cgroup, away from the reactor.
    async fn with_group<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Group) -> Result<T, CgroupError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let group = self.group.clone();
        blocking(move || work(&group).map_err(cgroup)).await
    }
}
