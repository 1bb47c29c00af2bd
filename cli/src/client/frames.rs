//! The eight-byte frames in which standard output and standard error share one stream.
//!
//! A header is the stream's number, three zero bytes and the payload's length in big endian. Payloads are handed on as
//! they arrive; nothing but headers and the daemon's error texts is held back.

use std::io;

const HEADER: usize = 8;
/// An error text of the daemon is cut here.
const MAX_ERROR: usize = 64 << 10;

/// Which of the streams a payload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// Takes a multiplexed stream apart, however it is cut into pieces.
#[derive(Default)]
pub(crate) struct Demux {
    header: [u8; HEADER],
    filled: usize,
    remaining: usize,
    error: Vec<u8>,
}

impl Demux {
    /// Passes the payloads in `bytes` to `sink`.
    ///
    /// # Errors
    ///
    /// The sink's own, an unknown stream number, or the error that the daemon sent in place of output.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Channel, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                let take = bytes.len().min(HEADER - self.filled);
                self.header[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
                self.filled += take;
                bytes = &bytes[take..];
                if self.filled < HEADER {
                    return Ok(());
                }
                let [_, _, _, _, length @ ..] = self.header;
                self.remaining = u32::from_be_bytes(length) as usize;
                if self.remaining == 0 {
                    self.filled = 0;
                }
                continue;
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.remaining));
            self.payload(payload, &mut sink)?;
            self.remaining -= payload.len();
            if self.remaining == 0 {
                self.filled = 0;
                self.finish_error()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn payload(
        &mut self,
        payload: &[u8],
        sink: &mut impl FnMut(Channel, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.header[0] {
            0 | 1 => sink(Channel::Stdout, payload),
            2 => sink(Channel::Stderr, payload),
            3 => {
                let room = MAX_ERROR.saturating_sub(self.error.len());
                self.error
                    .extend_from_slice(&payload[..payload.len().min(room)]);
                Ok(())
            }
            other => Err(io::Error::other(format!(
                "Unrecognized input header: {other}"
            ))),
        }
    }

    fn finish_error(&mut self) -> io::Result<()> {
        if self.error.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.error)).into_owned();
        Err(io::Error::other(format!(
            "error from daemon in stream: {text}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_cut_anywhere_come_out_whole() {
        let mut input = frame(1, b"hello ");
        input.extend(frame(2, b"warn"));
        input.extend(frame(1, b""));
        input.extend(frame(1, b"world"));
        for piece in 1..input.len() {
            let (mut out, mut err, mut demux) = (Vec::new(), Vec::new(), Demux::default());
            for bytes in input.chunks(piece) {
                demux
                    .feed(bytes, |channel, payload| {
                        match channel {
                            Channel::Stdout => out.extend_from_slice(payload),
                            Channel::Stderr => err.extend_from_slice(payload),
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(
                (out.as_slice(), err.as_slice()),
                (&b"hello world"[..], &b"warn"[..]),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn errors_in_the_stream_are_errors() {
        let error = Demux::default()
            .feed(&frame(3, b"log driver gone"), |_, _| Ok(()))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "error from daemon in stream: log driver gone"
        );
        let error = Demux::default()
            .feed(&frame(9, b"x"), |_, _| Ok(()))
            .unwrap_err();
        assert_eq!(error.to_string(), "Unrecognized input header: 9");
    }
}
