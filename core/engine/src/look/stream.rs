//! Archives on their way to a client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use gantry_image::Sink;
use gantry_wire::PathStat;
use tokio::sync::mpsc;

/// Pieces of an archive that may wait for a client.
const DEPTH: usize = 4;

/// Bytes as they are made. An error in the middle means that what came is not all.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What is at a path in a container.
pub struct Archive {
    /// What is told of it.
    pub stat: PathStat,
    /// It, as a tar archive.
    pub content: ByteStream,
}

/// The end that an archive is written to, from a thread that may block.
pub(super) struct Pipe(mpsc::Sender<io::Result<Bytes>>);

struct Receiver(mpsc::Receiver<io::Result<Bytes>>);

/// Both ends.
pub(super) fn pipe() -> (Pipe, ByteStream) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (Pipe(sender), Box::pin(Receiver(receiver)))
}

impl Stream for Receiver {
    type Item = io::Result<Bytes>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

impl Pipe {
    /// Tells the reader how the writing ended, unless it ended well.
    pub(super) fn end(self, outcome: io::Result<u64>) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "an archive was cut off");
            // A reader that has gone needs to know nothing.
            let _ = self.0.blocking_send(Err(error));
        }
    }
}

impl Sink for Pipe {
    fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(piece));
        self.0
            .blocking_send(Ok(bytes))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
