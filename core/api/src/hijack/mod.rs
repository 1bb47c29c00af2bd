//! Taking the connection over: attach and exec start.

mod attach;
mod detach;
mod exec;
mod frames;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use bytes::Bytes;
use http::header::HeaderName;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::io::{AsyncRead, AsyncReadExt, WriteHalf};

use crate::error::ApiError;
use crate::socket::{Conn, Socket};
use crate::transport::{Stream, Transport};

pub(crate) use attach::pump as attach;
pub(crate) use detach::DetachKeys;
pub(crate) use exec::pump as exec;
pub(crate) use websocket::WebSocket;

/// How an attached client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The output ended, or the client left.
    Ended,
    /// The client typed its keys.
    Detached,
}

/// What the client sends is for the container, for nobody, or scanned first.
#[derive(Debug)]
pub(crate) enum Input {
    None,
    Plain,
    Scanned(DetachKeys),
}

impl Input {
    /// Keys detach from terminals only.
    pub(crate) fn new(wanted: bool, tty: bool, keys: DetachKeys) -> Self {
        match (wanted, tty) {
            (false, _) => Self::None,
            (true, false) => Self::Plain,
            (true, true) => Self::Scanned(keys),
        }
    }
}

/// A client that is awake has read the head before it was looked for so often; a timer would cost it a millisecond.
const LOOKS: usize = 64;
/// How long the connection waits for the client to have read the head. Nothing is gained by a shorter time: who has not
/// read the head reads no output either. It is bounded for those that write all their input before they read.
const HEAD_READ: Duration = Duration::from_secs(1);

/// How long a client may take to close once everything has been sent.
const LINGER: Duration = Duration::from_secs(1);

/// Takes what the client still sends after the end: closing over unread input would reset the connection, and the client
/// lose output that it has not read yet.
async fn linger(mut client: impl AsyncRead + Unpin) {
    let rest = async {
        // How the connection ends does not matter any more.
        let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// A request whose connection can be taken over.
pub(crate) struct Hijack {
    upgrade: OnUpgrade,
    conn: Arc<Conn>,
}

impl<S: Sync> FromRequestParts<S> for Hijack {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let conn = parts.extensions.get::<Arc<Conn>>().cloned();
        match (upgrade, conn) {
            (Some(upgrade), Some(conn)) => Ok(Self { upgrade, conn }),
            _ => Err(ApiError::bad_request(
                "this connection cannot be taken over: want HTTP/1.1",
            )),
        }
    }
}

impl Hijack {
    /// Answers 101 and hands the connection to `run`.
    pub(crate) fn accept<F, R>(self, content_type: &'static str, run: F) -> Response
    where
        F: FnOnce(Taken) -> R + Send + 'static,
        R: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (UPGRADE, HeaderValue::from_static("tcp")),
        ];
        self.switch(headers, run)
    }

    fn switch<F, R>(self, named: [(HeaderName, HeaderValue); 2], run: F) -> Response
    where
        F: FnOnce(Taken) -> R + Send + 'static,
        R: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        tokio::spawn(async move {
            match self.take().await {
                Ok(taken) => {
                    if let Err(error) = run(taken).await {
                        tracing::debug!(%error, "attached connection ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "connection was not taken over"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .extensions_mut()
            .insert(ReasonPhrase::from_static(b"UPGRADED"));
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.extend(named);
        response
    }

    async fn take(self) -> Result<Taken, hyper::Error> {
        let upgraded = self.upgrade.await?;
        let parts = downcast::<TokioIo<Transport>>(upgraded)
            .unwrap_or_else(|_| unreachable!("connections are made over `Transport` only"));
        let (stream, rest) = parts.io.into_inner().into_stream();
        Ok(Taken {
            conn: self.conn,
            early: [parts.read_buf, rest].concat().into(),
            stream,
        })
    }
}

/// Waits until the peer has taken the head. Some clients read the head with whatever follows it and lose the latter, so
/// nothing may follow at once; those that never read are not waited for.
async fn head_was_read(socket: &Socket) {
    let is_waiting = || socket.unsent().is_some_and(|bytes| bytes > 0);
    for _ in 0..LOOKS {
        if !is_waiting() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let poll = async {
        let mut pause = Duration::from_millis(1);
        while is_waiting() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(4));
        }
    };
    // Out of time: the client takes what comes.
    let _ = tokio::time::timeout(HEAD_READ, poll).await;
}

/// A connection that was taken over.
pub(crate) struct Taken {
    pub(crate) conn: Arc<Conn>,
    /// What the client sent behind its request.
    early: Bytes,
    stream: Stream,
}

impl Taken {
    /// Resolves once output may follow the head. Input need not wait for it: who writes all before reading anything is
    /// not kept waiting.
    fn head_read(&self) -> impl Future<Output = ()> + Send + use<> {
        let conn = self.conn.clone();
        async move { head_was_read(&conn.socket).await }
    }

    /// The client's bytes, and where output goes.
    fn split(self) -> (impl AsyncRead + Send + Unpin, WriteHalf<Stream>) {
        let early = std::io::Cursor::new(self.early);
        let (reader, writer) = tokio::io::split(self.stream);
        (early.chain(reader), writer)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn output_waits_until_the_head_was_read() {
        use tokio::io::AsyncWriteExt;
        let (here, mut client) = UnixStream::pair().unwrap();
        let mut socket = Socket::Unix(here);
        if let Socket::Unix(here) = &mut socket {
            here.write_all(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
                .await
                .unwrap();
        }
        let mut waiting = Box::pin(head_was_read(&socket));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        client.read_exact(&mut [0; 25]).await.unwrap();
        waiting.await;
        assert_eq!(socket.unsent(), Some(0));
    }
}
