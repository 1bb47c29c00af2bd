//! What the engine asks for and is answered with. Plain data.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_driver_api::MountPlan;
use gantry_model::{ContainerId, ExecId, Timestamp};
use tokio::net::UnixStream;

use crate::{ContainerSpec, Process};

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Where the monitor writes the container's output, in Docker's json-file format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    /// The current file; rotated ones get `.1`, `.2`, ... appended. Its directory exists.
    pub path: PathBuf,
    /// Bytes after which the file is rotated; `None`: never.
    pub max_size: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// Bytes of output that may wait for the disk before some is dropped; `None`: the container waits.
    pub buffer: Option<u64>,
    /// The JSON object of `attrs` in every line (`{"tag":"x"}`); empty for none.
    pub attrs: String,
}

/// Everything [`crate::Runtime::create`] needs.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container.
    pub id: ContainerId,
    /// From [`crate::Runtime::build_spec`] (or by hand; what cannot be honoured is refused).
    pub spec: ContainerSpec,
    /// The root file system; mounted only inside the container's mount namespace.
    pub rootfs: MountPlan,
    /// The network namespace to run in. `None`: what the specification says (a new one, or the host's).
    pub netns: Option<OwnedFd>,
    /// The user namespace to run in; it has the maps that the specification names. The owners of the root's files, and of
    /// mounts with the option `idmap`, are shown as they map them: root's as root's. `None`: what the specification
    /// says, with the root's owners as they are.
    pub userns: Option<OwnedFd>,
    /// Whether the process gets a terminal instead of pipes.
    pub tty: bool,
    /// Whether stdin is a pipe (or the terminal) that clients can attach to; else it is `/dev/null`.
    pub open_stdin: bool,
    /// Whether the end of the first attached client's input ends the container's stdin.
    pub stdin_once: bool,
    /// The log; `None` for the `none` driver.
    pub log: Option<LogTarget>,
    /// First size of the terminal.
    pub console_size: Option<ConsoleSize>,
    /// A name from [`crate::RuntimeConfig::runtimes`]; `None` or `gantry`: Gantry's own.
    pub runtime: Option<String>,
}

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attach {
    /// Bytes that are written to the stream go to the container's stdin; shutting down the write half ends it.
    pub stdin: bool,
    /// Standard output (with a terminal: everything).
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Begin with the unfinished lines that the log does not have yet: for one who has read the log up to
    /// [`Attached::log_offset`].
    pub partial: bool,
}

/// An open attachment.
#[derive(Debug)]
pub struct Attached {
    /// To read: Docker's multiplexed frames, or raw bytes of a terminal, exactly as they go to the client; it ends
    /// after the last byte of output. To write: raw stdin.
    pub stream: UnixStream,
    /// Size of the log file at the moment the attachment began: what lies before it was not and will not be sent here.
    pub log_offset: u64,
    /// How often the log had been rotated by then.
    pub log_rotations: u32,
}

/// A process to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Chosen by the engine.
    pub id: ExecId,
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// Added to (and over) the container's own environment; `NAME` without `=` unsets.
    pub env: Vec<String>,
    /// Working directory; `None`: the container's.
    pub cwd: Option<String>,
    /// `name|uid[:group|gid]`; `None`: the container's.
    pub user: Option<String>,
    /// All capabilities the engine has, whatever the container's are. Seccomp stays as it is, as with Docker.
    pub privileged: bool,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// First size of the terminal.
    pub console_size: Option<ConsoleSize>,
    /// Whether stdin is wanted; else it is `/dev/null`.
    pub stdin: bool,
    /// Whether stdout is wanted; else `/dev/null`.
    pub stdout: bool,
    /// Whether stderr is wanted; else `/dev/null`.
    pub stderr: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code as Docker tells it: 128 + signal for one killed by a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel's out-of-memory killer struck in the container.
    pub oom: bool,
    /// When it was executed; [`Timestamp::zero`] when it never was.
    pub started_at: Timestamp,
    /// When it was reaped.
    pub exited_at: Timestamp,
}

/// What the monitor left behind of a container that ended while nobody was connected.
pub type ExitRecord = ExitStatus;

/// What [`crate::Runtime::reconnect`] found.
#[derive(Debug)]
pub enum Reconnected {
    /// It lives (created or running).
    Running(Arc<Process>),
    /// It ended; the record is kept until [`crate::Runtime::forget`].
    Exited(ExitRecord),
    /// Neither monitor nor record of this boot: the machine was restarted, or it never got that far.
    Gone,
}
