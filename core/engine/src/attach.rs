//! Joining clients to a container's streams.

use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::logs::Logs;

/// A client that is, or will be, joined to a container.
pub struct Attachment {
    /// Whether the container has a terminal: then the stream carries raw bytes, else Docker's multiplexed frames.
    pub tty: bool,
    /// The log up to the point where the stream begins, when it was asked for.
    pub replay: Option<Logs>,
    /// The monitor's stream; pending until the container starts. An error means that it will not start. Written bytes
    /// are standard input, shutting down the write half ends it.
    pub stream: Option<oneshot::Receiver<UnixStream>>,
}

/// A client that waits for the start.
pub struct Pending {
    /// What it wants.
    pub attach: gantry_runtime::Attach,
    /// Where it waits.
    pub sender: oneshot::Sender<UnixStream>,
}
