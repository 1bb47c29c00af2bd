//! One plugin's program, run with a deadline.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use gantry_plugin_sdk::serde_json::{self, Value};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Deserialize;

/// What is read of a plugin's words, in bytes.
const LONGEST: u64 = 1 << 20;

/// An attachment as plugins know it.
#[derive(Debug, Clone)]
pub(crate) struct Attachment<'a> {
    pub(crate) id: &'a str,
    /// A path that leads to the namespace; none when it has vanished.
    pub(crate) netns: Option<String>,
    /// The link's name inside.
    pub(crate) link: &'a str,
    /// `CNI_ARGS`.
    pub(crate) args: &'a str,
}

/// Where plugins are.
#[derive(Debug)]
pub(crate) struct Plugins {
    path: Vec<PathBuf>,
}

/// What a plugin says of its failure.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    code: u32,
    msg: String,
    details: String,
}

impl Plugins {
    pub(crate) fn new(path: Vec<PathBuf>) -> Self {
        Self { path }
    }

    /// A plugin's program.
    pub(crate) fn find(&self, kind: &str) -> DriverResult<PathBuf> {
        let candidates = self.path.iter().map(|dir| dir.join(kind));
        let is_program = |path: &PathBuf| {
            let facts = path.metadata();
            facts.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        candidates.into_iter().find(is_program).ok_or_else(|| {
            let dirs: Vec<_> = self.path.iter().map(|d| d.display().to_string()).collect();
            let dirs = dirs.join(", ");
            DriverError::invalid(format!("there is no CNI plugin {kind:?} in {dirs}"))
        })
    }

    /// Runs one command of a plugin; returns what it answers. One that has not ended at `until` is killed.
    pub(crate) fn run(
        &self,
        command: &str,
        kind: &str,
        attachment: &Attachment<'_>,
        input: &Value,
        until: Instant,
    ) -> DriverResult<Vec<u8>> {
        let program = self.find(kind)?;
        let failed = |e: io::Error| DriverError::io(format!("running CNI plugin {kind:?}"), &e);
        let (output, errors) = (file().map_err(failed)?, file().map_err(failed)?);
        let mut child = Command::new(program);
        let path = std::env::join_paths(&self.path);
        let path = path.map_err(|e| DriverError::invalid(e.to_string()))?;
        child
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", attachment.id)
            .env("CNI_NETNS", attachment.netns.as_deref().unwrap_or_default())
            .env("CNI_IFNAME", attachment.link)
            .env("CNI_ARGS", attachment.args)
            .env("CNI_PATH", path)
            // Plugins have children: they are killed together.
            .process_group(0)
            .stdin(stdin(input).map_err(failed)?)
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(errors.try_clone().map_err(failed)?);
        let child = child.spawn().map_err(failed)?;
        let status = finish(child, until).map_err(failed)?;
        let output = read(output).map_err(failed)?;
        let Some(status) = status else {
            let text =
                format!("CNI plugin {kind:?} did not end its {command} in time and was killed");
            return Err(DriverError::new(ErrorCode::DeadlineExceeded, text));
        };
        if status.success() {
            return Ok(output);
        }
        let errors = read(errors).map_err(failed)?;
        Err(error(command, kind, status, &output, &errors))
    }
}

/// A file without a name: unlike a pipe, it is never full, and nobody who keeps it open is waited for.
fn file() -> io::Result<File> {
    let fd: OwnedFd = rustix::fs::memfd_create("cni", MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

fn stdin(input: &Value) -> io::Result<Stdio> {
    let mut file = file()?;
    file.write_all(&serde_json::to_vec(input)?)?;
    file.rewind()?;
    Ok(file.into())
}

fn read(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Waits for a child; none when it had to be killed.
fn finish(mut child: Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|fd| wait(&fd, until));
    if !matches!(ended, Ok(true)) {
        // Nobody has reaped it: the number is still its own.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

/// Whether a process ends before `until`.
fn wait(process: &OwnedFd, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The specification's error codes in the engine's terms.
fn class(code: u32) -> ErrorCode {
    match code {
        2 | 7 => ErrorCode::InvalidArgument,
        1 | 3 => ErrorCode::FailedPrecondition,
        11 | 50 | 51 => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

fn error(
    command: &str,
    kind: &str,
    status: ExitStatus,
    output: &[u8],
    errors: &[u8],
) -> DriverError {
    let failure: Failure = serde_json::from_slice(output).unwrap_or_default();
    let words = match (failure.msg.as_str(), failure.details.as_str()) {
        ("", "") => {
            let errors = String::from_utf8_lossy(errors);
            let last = errors.lines().rfind(|line| !line.trim().is_empty());
            last.map_or_else(
                || status.to_string(),
                |line| format!("{status}: {}", line.trim()),
            )
        }
        (msg, "") => msg.to_owned(),
        ("", details) => details.to_owned(),
        (msg, details) => format!("{msg}: {details}"),
    };
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    DriverError::new(
        class(failure.code),
        format!("CNI plugin {kind:?} failed to {command}: {words}"),
    )
}
