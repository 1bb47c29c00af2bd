//! What comes from a registry, handed on while it comes to whoever unpacks it.

use std::io;

use gantry_content::Ingest;

use crate::Result;
use crate::chunks::{CHUNK, ChunkSender};

/// Hands on one blob's bytes, until they turn out to be others.
pub(super) struct Tee<'a> {
    to: Option<&'a ChunkSender>,
    /// Nothing has been handed on yet.
    fresh: bool,
    spoiled: bool,
}

impl<'a> Tee<'a> {
    pub(super) fn new(to: Option<&'a ChunkSender>) -> Self {
        Self {
            to,
            fresh: true,
            spoiled: false,
        }
    }

    /// Hands on what an earlier attempt has left, unless this one has done so.
    pub(super) fn replay(&mut self, ingest: &mut Ingest) -> Result<()> {
        if std::mem::replace(&mut self.fresh, false) && ingest.offset() > 0 {
            ingest.replay(|bytes| self.to.is_some_and(|to| to.send(bytes.to_vec()).is_ok()))?;
        }
        Ok(())
    }

    /// A buffer to fill and [`Tee::pass`].
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.to.map_or_else(|| vec![0; CHUNK], ChunkSender::buffer)
    }

    /// Hands on the first `count` bytes of a buffer, and returns one to go on with. An unpacker that has given up has its
    /// reason, which is looked at when the bytes have turned out to be the right ones.
    pub(super) fn pass(&mut self, mut buffer: Vec<u8>, count: usize) -> Vec<u8> {
        let Some(to) = self.to else {
            return buffer;
        };
        buffer.truncate(count);
        if to.send(buffer).is_err() {
            self.to = None;
        }
        self.buffer()
    }

    /// What was handed on is not the blob.
    pub(super) fn spoil(&mut self) {
        if let Some(to) = self.to.take() {
            to.fail(io::ErrorKind::ConnectionAborted.into());
        }
        self.spoiled = true;
    }

    /// Whether all bytes went where they should, as far as they were wanted.
    pub(super) fn is_whole(&self) -> bool {
        !self.spoiled
    }
}
