//! The byte stream under the HTTP connection.
//!
//! Clients older than the `Upgrade` header (and some that never learnt it) post to attach and exec start and then
//! treat the connection as theirs. hyper gives a connection away only when asked to upgrade, so the head of such a
//! request is completed on its way in, and hyper's 101 becomes the bare 200 such clients wait for on its way out.

mod head;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::socket::{Conn, Shared};
use head::{Verdict, judge};

/// A head that is longer is not looked at.
const MAX_HEAD: usize = 64 << 10;
const READ: usize = 8 << 10;
const UPGRADE: &[u8] = b"Connection: Upgrade\r\nUpgrade: tcp\r\n";
const BARE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

/// Plain or encrypted bytes.
pub(crate) enum Stream {
    Plain(Shared),
    Tls(Box<TlsStream<Shared>>),
}

macro_rules! inner {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream.get_mut() {
            Stream::Plain(inner) => {
                let $inner = Pin::new(inner);
                $do
            }
            Stream::Tls(inner) => {
                let $inner = Pin::new(&mut **inner);
                $do
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self, inner => inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self, inner => inner.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self, inner => inner.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, inner => inner.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, inner => inner.poll_shutdown(cx))
    }
}

/// What the next write is.
enum Writing {
    /// Whatever it is.
    Anything,
    /// The head that answers a request that was completed.
    Answer,
    /// A 101 whose place these bytes take; what is left of them.
    Instead(&'static [u8]),
}

/// A stream that completes requests which forgot to ask for their upgrade.
pub(crate) struct Transport {
    stream: Stream,
    conn: Arc<Conn>,
    /// Read and not judged yet.
    held: BytesMut,
    /// Judged, to be delivered.
    ready: Bytes,
    writing: Writing,
}

impl Transport {
    pub(crate) fn new(stream: Stream, conn: Arc<Conn>) -> Self {
        Self {
            stream,
            conn,
            held: BytesMut::new(),
            ready: Bytes::new(),
            writing: Writing::Anything,
        }
    }

    /// The bytes' stream itself, and what was read of it already.
    pub(crate) fn into_stream(self) -> (Stream, Bytes) {
        (self.stream, self.ready)
    }

    /// Moves what is held to where it is delivered from, completed if it is a head that needs it. False when more must be
    /// read to tell.
    fn judge(&mut self, eof: bool) -> bool {
        match judge(&self.held) {
            Verdict::NeedMore if !eof && self.held.len() < MAX_HEAD => return false,
            Verdict::Bare { first_line } => {
                let mut head = self.held.split_to(first_line);
                head.extend_from_slice(UPGRADE);
                head.unsplit(self.held.split());
                self.held = head;
                self.writing = Writing::Answer;
            }
            Verdict::NeedMore | Verdict::Ordinary => {}
        }
        self.ready = self.held.split().freeze();
        true
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ready.is_empty() {
            if this.conn.is_busy() && this.held.is_empty() {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            loop {
                let before = this.held.len();
                this.held.resize(before + READ, 0);
                let mut chunk = ReadBuf::new(&mut this.held[before..]);
                let polled = Pin::new(&mut this.stream).poll_read(cx, &mut chunk);
                let count = chunk.filled().len();
                this.held.truncate(before + count);
                ready!(polled)?;
                if this.judge(count == 0) {
                    break;
                }
            }
        }
        let count = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Writing::Answer = this.writing {
            if buf.starts_with(b"HTTP/1.1 101") {
                this.writing = Writing::Instead(BARE_HEAD);
            } else if !buf.starts_with(b"HTTP/1.1 100") {
                this.writing = Writing::Anything;
            }
        }
        let Writing::Instead(rest) = &mut this.writing else {
            return Pin::new(&mut this.stream).poll_write(cx, buf);
        };
        while !rest.is_empty() {
            let count = ready!(Pin::new(&mut this.stream).poll_write(cx, rest))?;
            *rest = &rest[count..];
        }
        this.writing = Writing::Anything;
        // hyper writes a head without a body in one piece.
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Writing::Anything = self.writing {
            return Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
