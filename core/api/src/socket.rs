//! The accepted socket, shared between the connection that reads and writes it and the streams that watch it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Runs the same words on either kind.
macro_rules! either {
    ($socket:expr, $inner:ident => $do:expr) => {
        match $socket {
            Socket::Unix($inner) => $do,
            Socket::Tcp($inner) => $do,
        }
    };
}

impl Socket {
    /// Bytes written that the peer has not taken yet; `None` where the kernel does not say.
    pub(crate) fn unsent(&self) -> Option<usize> {
        either!(self, inner => gantry_sys::socket::unsent(inner)).ok()
    }

    /// Resolves when the peer has closed, or half-closed, its end, without taking bytes from it. Never resolves while
    /// bytes are waiting.
    async fn closed(&self) {
        let peek = || {
            let result = either!(self, inner => rustix::net::recv(inner, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT));
            result.map(|(_, count)| count).map_err(io::Error::from)
        };
        loop {
            let ready = either!(self, inner => inner.ready(Interest::READABLE).await);
            if ready.is_err() {
                return;
            }
            match either!(self, inner => inner.try_io(Interest::READABLE, peek)) {
                Ok(0) => return,
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// What streams and handlers know of the connection they answer on.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) socket: Arc<Socket>,
    /// A request is being answered, so what is read is not the head of one.
    busy: AtomicBool,
    /// The server stops.
    stop: CancellationToken,
}

impl Conn {
    pub(crate) fn new(socket: Arc<Socket>, stop: CancellationToken) -> Self {
        Self {
            socket,
            busy: AtomicBool::new(false),
            stop,
        }
    }
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Release);
    }
    /// Resolves when the server stops.
    pub(crate) async fn stopped(self: Arc<Self>) {
        self.stop.cancelled().await;
    }
    /// Resolves when nobody waits for the answer any more: the client left, or the server stops.
    pub(crate) async fn gone(self: Arc<Self>) {
        tokio::select! {
            () = self.socket.closed() => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The reading and writing end of a shared socket.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<Socket>);

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(either!(&*self.0, inner => inner.poll_read_ready(cx)))?;
            match either!(&*self.0, inner => inner.try_read_buf(buf)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(&*self.0, inner => inner.poll_write_ready(cx)))?;
            match either!(&*self.0, inner => inner.try_write_vectored(bufs)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match either!(&*self.0, inner => rustix::net::shutdown(inner, Shutdown::Write)) {
            // The peer was faster.
            Err(rustix::io::Errno::NOTCONN) | Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn pair() -> (Arc<Conn>, UnixStream, CancellationToken) {
        let (here, there) = UnixStream::pair().unwrap();
        let stop = CancellationToken::new();
        let conn = Arc::new(Conn::new(Arc::new(Socket::Unix(here)), stop.clone()));
        (conn, there, stop)
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed() {
        let (conn, there, _stop) = pair();
        let gone = tokio::spawn(conn.gone());
        tokio::task::yield_now().await;
        assert!(!gone.is_finished());
        drop(there);
        gone.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_sends_is_not_gone_but_a_stop_is() {
        let (conn, mut there, stop) = pair();
        there.write_all(b"x").await.unwrap();
        let gone = tokio::spawn(conn.gone());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!gone.is_finished());
        stop.cancel();
        gone.await.unwrap();
    }
}
