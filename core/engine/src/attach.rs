//! Joining clients to a container's streams.

use gantry_runtime::{Attach, Process};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

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
        let refuse = |why: &str| Err(EngineError::conflict(format!("container {id} {why}")));
        match record.state.phase {
            Phase::Paused => return refuse("is paused, unpause the container before attach"),
            Phase::Restarting => {
                return refuse("is restarting, wait until the container is running");
            }
            Phase::Removing => {
                return Err(EngineError::conflict("container is marked for removal"));
            }
            _ => {}
        }
        self.tell(&record, "attach");
        let attach = Attach {
            stdin: query.stdin && record.config.open_stdin,
            stdout: query.stdout,
            stderr: query.stderr,
            partial: query.logs,
        };
        let mut offset = None;
        let stream = match query.stream {
            false => None,
            true => {
                let (sender, receiver) = oneshot::channel();
                let pending = Pending { attach, sender };
                let waiting = {
                    let mut live = container.live.lock();
                    match live.process.clone() {
                        Some(process) => Some((process, pending)),
                        None => {
                            live.pending.push(pending);
                            None
                        }
                    }
                };
                if let Some((process, pending)) = waiting {
                    let attached = process.attach(pending.attach).await?;
                    offset = Some(attached.log_offset);
                    let _ = pending.sender.send(attached.stream);
                }
                Some(receiver)
            }
        };
        let replay = match query.logs {
            false => None,
            true => {
                let source = Source {
                    path: self.log_path(&container.id),
                    progress: container.watch(),
                    end: offset,
                };
                let query = LogsQuery {
                    stdout: query.stdout,
                    stderr: query.stderr,
                    ..LogsQuery::default()
                };
                Some(logs::open(source, record.config.tty, &query)?)
            }
        };
        Ok(Attachment {
            tty: record.config.tty,
            replay,
            stream,
        })
    }

    /// Reads a container's log.
    ///
    /// # Errors
    /// No stream chosen, a log driver that keeps nothing.
    pub async fn container_logs(&self, id: &str, query: LogsQuery) -> Result<Logs> {
        let container = self.find(id)?;
        let record = container.record();
        if record.host_config.log_config.kind == "none" {
            return Err(EngineError::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        let source = Source {
            path: self.log_path(&container.id),
            progress: container.watch(),
            end: None,
        };
        logs::open(source, record.config.tty, &query)
    }
}
