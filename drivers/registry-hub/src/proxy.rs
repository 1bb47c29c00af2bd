//! Connections that go through a proxy where the endpoint says so: tunnels for TLS, absolute requests for plain HTTP.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gantry_plugin_sdk::registry::Proxies;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Which requests go through which proxy.
#[derive(Clone, Debug)]
pub(crate) struct Routes(Arc<Matcher>);

impl Routes {
    pub(crate) fn new(proxies: &Proxies) -> Self {
        Self(Arc::new(
            Matcher::builder()
                .http(proxies.http.clone())
                .https(proxies.https.clone())
                .no(proxies.except.clone())
                .build(),
        ))
    }

    /// The proxy for a request; never one for this machine itself, as in Go.
    fn of(&self, uri: &Uri) -> Option<Intercept> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if here { None } else { self.0.intercept(uri) }
    }

    /// What a plain HTTP request tells its proxy; tunnels do so when they are made.
    pub(crate) fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        self.of(uri)?.basic_auth().cloned()
    }
}

/// Makes connections along the routes.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) tcp: HttpConnector,
    pub(crate) routes: Routes,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Boxed;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Boxed>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Boxed>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let Some(proxy) = self.routes.of(&uri) else {
            let connecting = tcp.call(uri);
            return Box::pin(async move {
                let inner = connecting.await?;
                Ok(Stream {
                    inner,
                    proxied: false,
                })
            });
        };
        if uri.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            let connecting = tunnel.call(uri);
            return Box::pin(async move {
                let inner = connecting.await.map_err(through)?;
                Ok(Stream {
                    inner,
                    proxied: false,
                })
            });
        }
        let connecting = tcp.call(proxy.uri().clone());
        Box::pin(async move {
            let inner = connecting.await.map_err(through)?;
            Ok(Stream {
                inner,
                proxied: true,
            })
        })
    }
}

/// Says that it was the proxy that failed, not the registry.
fn through(error: impl std::fmt::Display) -> Boxed {
    io::Error::other(format!("proxyconnect: {error}")).into()
}

/// A connection; `proxied` when requests on it must name the server they are for.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }
}
