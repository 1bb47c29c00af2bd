//! The accepted socket, shared between the connection that reads and writes it and the streams that watch it.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, Shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// How often a half-closed peer is looked after.
const LOOK: Duration = Duration::from_secs(5);

/// How often an idle peer over the network is asked whether it is there; Go's servers do the same.
const KEEPALIVE: Duration = Duration::from_secs(15);

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
    /// A connection over the network: frames of an attached terminal are small and do not wait for each other, and a peer
    /// that vanished without a word is noticed within minutes although nothing is sent.
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
        Ok(Self::Tcp(stream))
    }

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

    /// Resolves when nothing can be sent to the peer any more. A peer that half-closed, as clients without input do, tells
    /// no more until then, and the kernel's hang-up is not among what the event loop waits for; so it is looked for.
    async fn hung_up(&self) {
        while !self.is_hung_up() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_hung_up(&self) -> bool {
        let fd = either!(self, inner => inner.as_fd());
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
        match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
            Err(_) => false,
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
    /// Resolves when nobody waits for the answer any more: the client left, or the server stops. Over TCP a half-closed
    /// client counts as one that left, since the two look the same; dockerd takes it so everywhere.
    pub(crate) async fn gone(self: Arc<Self>) {
        let gone = async {
            self.socket.closed().await;
            if let Socket::Unix(_) = &*self.socket {
                self.socket.hung_up().await;
            }
        };
        tokio::select! {
            () = gone => {}
            () = self.stop.cancelled() => {}
        }
    }
    /// As [`Conn::gone`], for connections that were taken over: there a half-closed client is one without input.
    pub(crate) async fn left(self: Arc<Self>) {
        let left = async {
            self.socket.closed().await;
            self.socket.hung_up().await;
        };
        tokio::select! {
            () = left => {}
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

    #[tokio::test]
    async fn peers_over_the_network_are_asked_whether_they_live() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, _client) = tokio::join!(listener.accept(), client);
        let Socket::Tcp(stream) = Socket::tcp(accepted.unwrap().0).unwrap() else {
            panic!("another socket");
        };
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE);
    }

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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_half_closes_is_not_gone_until_it_leaves() {
        let (conn, mut there, _stop) = pair();
        there.shutdown().await.unwrap();
        let gone = tokio::spawn(conn.clone().gone());
        let left = tokio::spawn(conn.left());
        tokio::time::sleep(3 * LOOK).await;
        assert!(!gone.is_finished() && !left.is_finished());
        drop(there);
        gone.await.unwrap();
        left.await.unwrap();
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
