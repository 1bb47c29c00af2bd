//! Streams between two threads: bounded, and with buffers that go round.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes that pass at once.
pub(crate) const CHUNK: usize = 256 << 10;
/// Chunks that may wait.
const DEPTH: usize = 4;

/// One end of a stream: bytes, or why there are no more. The stream ends when it is dropped.
pub(crate) struct ChunkSender {
    full: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

/// The other end.
pub(crate) struct ChunkReader {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

pub(crate) fn chunks() -> (ChunkSender, ChunkReader) {
    let (full_sender, full) = sync_channel(DEPTH);
    let (empty, empty_receiver) = channel();
    let sender = ChunkSender {
        full: full_sender,
        empty: empty_receiver,
    };
    let reader = ChunkReader {
        full,
        empty,
        chunk: Vec::new(),
        at: 0,
    };
    (sender, reader)
}

impl ChunkSender {
    /// A buffer of [`CHUNK`] bytes of anything.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.empty.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        buffer
    }

    /// Waits while enough is on its way.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads any more.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> io::Result<()> {
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        self.full.send(Ok(chunk)).map_err(gone)
    }

    /// Ends the stream with an error, if anybody still reads.
    pub(crate) fn fail(&self, error: io::Error) {
        let _ = self.full.send(Err(error));
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() {
            match self.full.recv() {
                Ok(chunk) => {
                    let used = std::mem::replace(&mut self.chunk, chunk?);
                    self.at = 0;
                    // Where the sender has gone, buffers have too.
                    let _ = self.empty.send(used);
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_errors_after_them() {
        let (sender, mut reader) = chunks();
        let writer = std::thread::spawn(move || {
            for number in 0..200_u8 {
                let mut chunk = sender.buffer();
                chunk.truncate(usize::from(number));
                chunk.fill(number);
                sender.send(chunk).unwrap();
            }
            sender.fail(io::ErrorKind::ConnectionAborted.into());
        });
        let mut got = Vec::new();
        let error = reader.read_to_end(&mut got).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        let wanted = (0..200_u8).flat_map(|number| vec![number; usize::from(number)]);
        assert!(got.into_iter().eq(wanted));
        writer.join().unwrap();
    }

    #[test]
    fn a_reader_that_goes_ends_the_sender() {
        let (sender, reader) = chunks();
        drop(reader);
        let error = sender.send(vec![1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        sender.fail(error);
    }
}
