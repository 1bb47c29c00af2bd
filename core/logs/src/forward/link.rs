//! A connection to a receiver, whatever it runs over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{self, TlsFiles};

/// How long a connection may take to come about, and a receiver to take what it is sent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often, and how long at most, the kernel is asked whether the receiver has everything.
const SETTLE_STEP: Duration = Duration::from_millis(1);
const SETTLE_MAX: Duration = Duration::from_millis(64);

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String, u16),
    Tls(String, u16, TlsFiles),
    Udp(String, u16),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Link {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Udp(UdpSocket),
    Unixgram(UnixDatagram),
}

trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

impl Link {
    /// Connects.
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        timely(async {
            Ok(match address {
                Address::Tcp(host, port) => Self::Tcp(tcp(host, *port).await?),
                Address::Tls(host, port, files) => {
                    let connector = TlsConnector::from(Arc::new(files.config()?));
                    let stream = tcp(host, *port).await?;
                    let name = tls::server_name(host)?;
                    Self::Tls(Box::new(connector.connect(name, stream).await?))
                }
                Address::Udp(host, port) => Self::Udp(udp(host, *port).await?),
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    Self::Unix(stream.map_err(|e| dial("unix", path.display(), &e))?)
                }
                Address::Unixgram(path) => {
                    let socket = UnixDatagram::unbound()?;
                    let connected = socket.connect(path);
                    connected.map_err(|e| dial("unixgram", path.display(), &e))?;
                    Self::Unixgram(socket)
                }
            })
        })
        .await
    }

    /// Whether each write is a message of its own.
    pub(crate) fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Unixgram(_))
    }

    fn stream(&mut self) -> Option<&mut dyn ByteStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.as_mut()),
            Self::Unix(stream) => Some(stream),
            Self::Udp(_) | Self::Unixgram(_) => None,
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Unixgram(socket) => socket.as_fd(),
        }
    }

    /// Sends bytes, or one datagram, and returns when all of it is with the kernel.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_within(TIMEOUT, bytes).await
    }

    /// As [`Self::send`], with so much time for the receiver to take it.
    pub(crate) async fn send_within(&mut self, time: Duration, bytes: &[u8]) -> io::Result<()> {
        within(time, async {
            if let Some(stream) = self.stream() {
                stream.write_all(bytes).await?;
                return stream.flush().await;
            }
            match self {
                Self::Udp(socket) => socket.send(bytes).await.map(drop),
                Self::Unixgram(socket) => socket.send(bytes).await.map(drop),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Waits until the receiver's machine has all that was sent, so that nothing is lost with a connection that breaks now.
    pub(crate) async fn settled(&mut self) -> io::Result<()> {
        if self.is_datagram() {
            return Ok(());
        }
        timely(async {
            let mut wait = SETTLE_STEP;
            while gantry_sys::socket::unsent(self.socket())? > 0 {
                self.is_open()?;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(SETTLE_MAX);
            }
            self.is_open()
        })
        .await
    }

    /// Notices a receiver that has gone.
    pub(crate) fn is_open(&self) -> io::Result<()> {
        if self.is_datagram() {
            return Ok(());
        }
        if let Err(errno) = rustix::net::sockopt::socket_error(self.socket())? {
            return Err(errno.into());
        }
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(self.socket(), &mut [0u8; 1][..], flags) {
            Ok((_, 0)) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Appends what the receiver says.
    pub(crate) async fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        timely(async {
            let mut buffer = [0; 4096];
            let read = match self.stream() {
                Some(stream) => stream.read(&mut buffer).await?,
                None => 0,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into.extend_from_slice(&buffer[..read]);
            Ok(())
        })
        .await
    }

    /// Sends a datagram that only carries a descriptor: how journald takes what is too large for one.
    pub(crate) async fn send_descriptor(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Self::Unixgram(socket) = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        timely(socket.async_io(Interest::WRITABLE, || {
            let fds = [fd];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
            control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
            rustix::net::sendmsg(socket.as_fd(), &[], &mut control, SendFlags::DONTWAIT)?;
            Ok(())
        }))
        .await
    }
}

/// A connection that did not come about, in the words of Go's `net` package.
fn dial(network: &str, address: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("dial {network} {address}: connect: {error}"),
    )
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|e| dial("tcp", format!("{host}:{port}"), &e))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn udp(host: &str, port: u16) -> io::Result<UdpSocket> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn timely<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within(TIMEOUT, work).await
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(time, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
