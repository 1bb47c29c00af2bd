//! Accepting connections and ending them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_engine::Engine;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::service::Service;
use crate::socket::{Conn, Shared, Socket};
use crate::transport::{Stream, Transport};

/// How long requests that are being answered when the server stops may take.
const GRACE: Duration = Duration::from_secs(10);
/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A listening socket, non-blocking, made or inherited by the caller.
#[derive(Debug)]
pub enum Listener {
    /// `unix://`, `fd://`.
    Unix(UnixListener),
    /// `tcp://` without TLS.
    Tcp(TcpListener),
    /// `tcp://` with TLS; see [`crate::server_config`].
    Tls(TcpListener, Arc<rustls::ServerConfig>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Socket::tcp(stream)
            }
        }
    }
}

/// Answers requests on all listeners until `shutdown` resolves, then finishes what is being answered: streams end at
/// once, other requests get ten seconds.
pub async fn serve(listeners: Vec<Listener>, engine: Engine, shutdown: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let service = Service::new(crate::routes::all(engine));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, service.clone(), stop.clone()));
    }
    shutdown.await;
    stop.cancel();
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: Listener, service: Service, stop: CancellationToken) {
    let tls = match &listener {
        Listener::Tls(_, config) => Some(TlsAcceptor::from(Arc::clone(config))),
        Listener::Unix(_) | Listener::Tcp(_) => None,
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(socket) => {
                let connection = connection(socket, tls.clone(), service.clone(), stop.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                // Out of descriptors, mostly: the client stays in the queue until some are free again.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!("requests were cut off by the shutdown");
    }
}

pub(crate) async fn connection(
    socket: Socket,
    tls: Option<TlsAcceptor>,
    service: Service,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let conn = Arc::new(Conn::new(Arc::clone(&socket), stop.clone()));
    let stream = match tls {
        None => Stream::Plain(Shared(socket)),
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(Shared(socket))).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        },
    };
    let io = TokioIo::new(Transport::new(stream, Arc::clone(&conn)));
    let mut builder = auto::Builder::new(TokioExecutor::new()).title_case_headers(true);
    builder.http1().half_close(true);
    let mut http = pin!(builder.serve_connection_with_upgrades(io, service.on(conn)));
    let result = tokio::select! {
        result = http.as_mut() => result,
        () = stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
