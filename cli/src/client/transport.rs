//! One byte stream to the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::host::Host;
use super::tls::bridge;
use crate::error::ApiError;

/// A connected stream. Its socket can be taken out for blocking I/O once HTTP is done with it.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Connects to `host`, on TCP in TLS if `tls` says how.
pub(crate) async fn connect(
    host: &Host,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Stream, ApiError> {
    match host {
        Host::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Stream::Unix(stream)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ApiError::Denied {
                    host: host.to_string(),
                    path: path.display().to_string(),
                })
            }
            Err(_) => Err(ApiError::Unreachable {
                host: host.to_string(),
            }),
        },
        Host::Tcp(address) => {
            let unreachable = |_| ApiError::Unreachable {
                host: host.to_string(),
            };
            let stream = TcpStream::connect(address.as_str())
                .await
                .map_err(unreachable)?;
            stream.set_nodelay(true)?;
            match tls {
                Some(config) => Ok(Stream::Unix(bridge(stream, address, config).await?)),
                None => Ok(Stream::Tcp(stream)),
            }
        }
        Host::Ssh(arguments) => Ok(Stream::Unix(ssh(arguments)?)),
    }
}

/// A socket whose other end is the standard input and output of `ssh`.
fn ssh(arguments: &[String]) -> io::Result<UnixStream> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let input = OwnedFd::from(theirs.try_clone()?);
    let mut child = tokio::process::Command::new("ssh")
        .args(arguments)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    tokio::spawn(async move { child.wait().await });
    ours.set_nonblocking(true)?;
    UnixStream::from_std(ours)
}

impl Stream {
    /// The socket in blocking mode.
    pub(crate) fn into_blocking(self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
        }
    }
}

macro_rules! each {
    ($stream:expr, $inner:ident => $body:expr) => {
        match $stream {
            Stream::Unix($inner) => $body,
            Stream::Tcp($inner) => $body,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}
