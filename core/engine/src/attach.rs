//! Joining clients to a container's streams.

use gantry_runtime::{Attach, Process};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::container::Container;
use crate::container::record::Phase;
use crate::logs::{self, Logs, Source};
use crate::query::{AttachQuery, LogsQuery};
use crate::{Engine, EngineError, Result};

/// A client that is, or will be, joined to a container.
pub struct Attachment {
    /// Whether the container has a terminal: then the stream carries raw bytes, else Docker's multiplexed frames.
    pub tty: bool,
    /// The log up to the point where the stream begins, when it was asked for.
    pub replay: Option<Logs>,
    /// The monitor's stream; pending until the container starts. An error means that it will not start. Written bytes
    /// are standard input, shutting down the write half ends it. `None` when only the log was asked for.
    pub stream: Option<oneshot::Receiver<UnixStream>>,
}

/// A client that waits for the start.
pub(crate) struct Pending {
    attach: Attach,
    sender: oneshot::Sender<UnixStream>,
}

/// Joins a client that waited.
pub(crate) async fn join(process: &Process, pending: Pending) -> Result<()> {
    let attached = process.attach(pending.attach).await?;
    // The client may have gone while it waited.
    let _ = pending.sender.send(attached.stream);
    Ok(())
}

impl Engine {
    /// Joins a client to a container's streams.
    ///
    /// # Errors
    /// A container that is paused or restarting.
    pub async fn container_attach(&self, id: &str, query: AttachQuery) -> Result<Attachment> {
        let container = self.find(id)?;
        let record = container.record();
        attachable(id, record.state.phase)?;
        self.tell(&record, "attach");
        let (stream, begins) = match query.stream {
            true => {
                let attach = Attach {
                    stdin: query.stdin && record.config.open_stdin,
                    stdout: query.stdout,
                    stderr: query.stderr,
                    partial: query.logs,
                };
                let (stream, begins) = join_or_wait(&container, attach).await?;
                (Some(stream), begins)
            }
            false => (None, None),
        };
        let replay = match query.logs {
            true => {
                let source = Source {
                    path: self.log_path(&container.id),
                    progress: container.watch(),
                    end: begins,
                };
                let query = LogsQuery {
                    stdout: query.stdout,
                    stderr: query.stderr,
                    ..LogsQuery::default()
                };
                Some(logs::open(source, record.config.tty, &query)?)
            }
            false => None,
        };
        Ok(Attachment {
            tty: record.config.tty,
            replay,
            stream,
        })
    }

    /// A client typed the keys that detach it.
    pub fn container_detached(&self, id: &str) {
        if let Ok(container) = self.find(id) {
            self.tell(&container.record(), "detach");
        }
    }

    /// Reads a container's log.
    ///
    /// # Errors
    /// No stream chosen, a log driver that keeps nothing.
    pub async fn container_logs(&self, id: &str, query: LogsQuery) -> Result<Logs> {
        let container = self.find(id)?;
        let record = container.record();
        self.check_readable(&record)?;
        let source = Source {
            path: self.log_path(&container.id),
            progress: container.watch(),
            end: None,
        };
        logs::open(source, record.config.tty, &query)
    }
}

/// Whether a client can be joined to a container in this phase.
fn attachable(id: &str, phase: Phase) -> Result<()> {
    let why = match phase {
        Phase::Paused => "is paused, unpause the container before attach",
        Phase::Restarting => "is restarting, wait until the container is running",
        Phase::Removing => "is marked for removal",
        _ => return Ok(()),
    };
    Err(EngineError::conflict(format!("container {id} {why}")))
}

/// Joins a client to a container that runs, or lets it wait for the start. The number is the size of the log where the
/// stream begins.
async fn join_or_wait(
    container: &Container,
    attach: Attach,
) -> Result<(oneshot::Receiver<UnixStream>, Option<u64>)> {
    let (sender, receiver) = oneshot::channel();
    let running = {
        let mut live = container.live.lock();
        match live.process.clone() {
            Some(process) => Some((process, sender)),
            None => {
                live.pending.push(Pending { attach, sender });
                None
            }
        }
    };
    let Some((process, sender)) = running else {
        return Ok((receiver, None));
    };
    let attached = process.attach(attach).await?;
    // The receiver is right here.
    let _ = sender.send(attached.stream);
    Ok((receiver, Some(attached.log_offset)))
}
