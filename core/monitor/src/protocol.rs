//! What is said on a control connection, and how.
//!
//! A message is a 4-byte little-endian length and that many bytes of MessagePack. Descriptors ride on the first byte of
//! their message (`SCM_RIGHTS`); which messages carry any is said at each. Requests carry a number of the client's
//! choosing; the answer repeats it; what comes unasked has number 0. A connection on which `Attach` was sent stops being
//! one of messages: [`AttachReply`] follows, then a plain byte stream both ways.

use serde::{Deserialize, Serialize};

/// The longest message either side accepts, in bytes (without its length).
pub const MAX_MESSAGE: usize = 16 << 20;

/// From the daemon to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToMonitor {
    /// Repeated in the answer; not 0.
    pub seq: u64,
    /// What is asked.
    pub request: Request,
}

/// From the monitor to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromMonitor {
    /// The request's number; 0 for an event.
    pub seq: u64,
    /// What is said.
    pub message: Message,
}

/// A request. One that cannot be served is answered by [`Message::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run the created container's process. Answered by `Started` or `StartFailed` (after which the container is gone,
    /// without an exit record). A second `Start` is an error.
    Start,
    /// Send a signal. Answered by `Done`, or by an error with `ESRCH` when the process is gone.
    Signal {
        /// The signal's number.
        signo: i32,
        /// To every process of the container's cgroup.
        all: bool,
        /// To this exec instead of the container's first process.
        exec: Option<String>,
    },
    /// Set the size of the terminal. Answered by `Done`.
    Resize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
        /// Of this exec's terminal instead of the container's.
        exec: Option<String>,
    },
    /// Answered by [`Message::Info`].
    Info,
    /// Answered by `Netns`, which carries a descriptor of the container's network namespace.
    TakeNetns,
    /// Run a process in the container; answered by `ExecStarted` or `ExecFailed`, and by `ExecExited` with the same
    /// number later. Carries standard input, output and error (three descriptors) unless it has a terminal.
    Exec {
        /// A name for it, free among the container's running execs.
        id: String,
        /// With a terminal: no descriptors come along, `ExecStarted` brings the master side.
        tty: bool,
        /// An encoded [`ExecPlan`](crate::plan::ExecPlan): the monitor hands it on unread.
        #[serde(with = "serde_bytes")]
        plan: Vec<u8>,
    },
    /// Turn this connection into a stream of the container's input and output, answered by [`AttachReply`].
    ///
    /// From the monitor come Docker's multiplexed frames (`{1|2,0,0,0,len: u32 BE}` and data) without a terminal, bare
    /// bytes with one, and the end after the last byte of the container. To the monitor go bare bytes of standard input;
    /// shutting that direction down ends the container's input when it is `stdin_once`.
    Attach {
        /// Take standard input from the stream.
        stdin: bool,
        /// Send standard output.
        stdout: bool,
        /// Send standard error.
        stderr: bool,
        /// Begin with the unfinished lines that the log does not have yet; for one who has read the log up to
        /// [`AttachReply::log_offset`].
        #[serde(default)]
        partial: bool,
    },
    /// Open the log file anew (it was moved or truncated by someone). Answered by `Done`.
    ReopenLog,
}

/// An answer or an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Event, on the first connection: everything is set up, the process waits for `Start`.
    Created {
        /// [`VERSION`](crate::plan::VERSION) of the monitor.
        version: u32,
        /// The process, as the host counts.
        pid: i32,
        /// The monitor itself.
        monitor: i32,
    },
    /// Event, on the first connection, which then ends: nothing of the container is left.
    CreateFailed(Failure),
    /// The process runs.
    Started {
        /// When, in nanoseconds since the epoch.
        at: i64,
    },
    /// The process could not be run; the connection ends and nothing of the container is left.
    StartFailed(Failure),
    /// Event, on every connection: the container ended. Its exit record is written; the monitor is about to leave. Until
    /// the connection ends it may still hold the root file system (unmounting an overlay can take seconds).
    Exited(ExitRecord),
    /// The exec runs. With a terminal, carries its master side.
    ExecStarted {
        /// The process, as the host counts.
        pid: i32,
    },
    /// The exec could not be run.
    ExecFailed(Failure),
    /// The exec ended.
    ExecExited {
        /// The exit code; 128 + the signal when killed by one.
        code: i32,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// What the monitor knows.
    Info(Info),
    /// Carries a descriptor of the network namespace.
    Netns,
    /// Carries a descriptor of the user namespace.
    UserNs,
    /// Done.
    Done,
    /// Could not be done.
    Error {
        /// The system's number of the error.
        errno: i32,
        /// In words.
        message: String,
    },
}

/// Why something was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// The system's number of the error; 0 when it was not a system call that failed.
    pub errno: i32,
    /// What failed, in the words that Docker's users know (`exec: "foo": executable file not found in $PATH`).
    pub message: String,
}

/// The part of a start in which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The launch or plan could not be read, or asks for what this monitor cannot do.
    Plan,
    /// Streams, sockets, log files of the monitor.
    Monitor,
    /// Joining cgroups.
    Cgroup,
    /// Namespaces and ID maps.
    Namespace,
    /// The root file system, mounts, devices.
    Mount,
    /// Kernel parameters, limits, labels, capabilities, seccomp.
    Setup,
    /// User or group not found.
    User,
    /// Working directory.
    Cwd,
    /// The program is not there (exit code 127).
    NotFound,
    /// The program cannot be executed (exit code 126).
    NotExecutable,
    /// A foreign runtime failed.
    Runtime,
    /// The process was gone before it could be started (killed, say).
    Gone,
}

/// The end of a container; also the content of its exit record (JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    /// The exit code; 128 + the signal when killed by one.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom: bool,
    /// In nanoseconds since the epoch; 0 when it never ran.
    pub started_at: i64,
    /// In nanoseconds since the epoch.
    pub exited_at: i64,
    /// Chunks of output that could not be written to the log.
    pub log_errors: u64,
}

/// What the monitor knows of its container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// [`VERSION`](crate::plan::VERSION) of the monitor.
    pub version: u32,
    /// The container's ID.
    pub id: String,
    /// The container's first process, as the host counts.
    pub pid: i32,
    /// The monitor itself.
    pub monitor: i32,
    /// In nanoseconds since the epoch; 0 when not started yet.
    pub started_at: i64,
    /// Running execs: name and process.
    pub execs: Vec<(String, i32)>,
    /// Output lost to the log so far, in chunks.
    pub log_errors: u64,
}

/// The answer to `Attach`: [`AttachReply::LEN`] bytes, then the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachReply {
    /// 0, or the system's number of why not; the connection then ends.
    pub errno: u32,
    /// How often the log was rotated since the monitor began.
    pub rotations: u32,
    /// The size of the current log file: all output up to here is in the log, all after it comes on the stream.
    pub log_offset: u64,
}

impl AttachReply {
    /// Bytes on the wire.
    pub const LEN: usize = 16;
    /// The bytes on the wire: `errno`, `rotations`, `log_offset`, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let value = u128::from(self.errno)
            | u128::from(self.rotations) << 32
            | u128::from(self.log_offset) << 64;
        value.to_le_bytes()
    }
    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let value = u128::from_le_bytes(bytes);
        Self {
            errno: value as u32,
            rotations: (value >> 32) as u32,
            log_offset: (value >> 64) as u64,
        }
    }
}

/// A message that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// Not what was expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Cannot be encoded.
    #[error("cannot encode message: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Encodes without a length: the header or plan of a launch, the plan of an exec.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, ProtocolError> {
    Ok(rmp_serde::to_vec_named(value)?)
}

/// Reads what [`to_bytes`] wrote.
pub fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ProtocolError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Encodes a message with its length.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, ProtocolError> {
    let mut out = vec![0; 4];
    rmp_serde::encode::write_named(&mut out, message)?;
    let len = out.len() - 4;
    if len > MAX_MESSAGE {
        return Err(ProtocolError::TooLong(len));
    }
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(out)
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes as they come from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
    /// The next complete message. After an error the connection is of no more use.
    pub fn next_message<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>, ProtocolError> {
        let Some(head) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > MAX_MESSAGE {
            return Err(ProtocolError::TooLong(len));
        }
        let Some(body) = self.buffer.get(4..4 + len) else {
            return Ok(None);
        };
        let message = from_bytes(body)?;
        self.buffer.drain(..4 + len);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(Some(message))
    }
    /// What came after the last message (the begin of a byte stream).
    #[must_use]
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}
