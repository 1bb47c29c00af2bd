//! A thin client of the Engine API on hyper.
//!
//! One connection is kept alive and used again; a request that finds it busy opens another. Requests name the newest
//! API version that this client knows, without asking first: a daemon that is older says so in its refusal, and the
//! request is sent again in the daemon's version. Only uploads, which cannot be sent twice, ask beforehand.

pub(crate) mod frames;
pub(crate) mod hijack;
pub(crate) mod host;
pub(crate) mod messages;
mod request;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod version;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use gantry_wire::ApiVersion;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use self::host::Host;
use self::request::HttpBody;
pub(crate) use self::request::{Body, Request, name_path, segment};
use crate::error::ApiError;

/// A reply whose body has not been read yet.
pub(crate) type Reply = http::Response<Incoming>;

/// A daemon to talk to.
pub(crate) struct Client {
    host: Host,
    tls: Option<Arc<ClientConfig>>,
    /// Sent with every request; the user's configuration may name some.
    headers: Vec<(String, String)>,
    version: Cell<ApiVersion>,
    /// The daemon is known to speak `version`.
    settled: Cell<bool>,
    idle: RefCell<Option<SendRequest<HttpBody>>>,
}

impl Client {
    /// A client of the daemon at `host`; `pinned` is a version that the user insists on.
    pub(crate) fn new(
        host: Host,
        tls: Option<Arc<ClientConfig>>,
        headers: Vec<(String, String)>,
        pinned: Option<ApiVersion>,
    ) -> Self {
        Self {
            host,
            tls,
            headers,
            version: Cell::new(pinned.unwrap_or(ApiVersion::MAX)),
            settled: Cell::new(pinned.is_some()),
            idle: RefCell::new(None),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn version(&self) -> ApiVersion {
        self.version.get()
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, http::Method::GET, path.into())
    }

    pub(crate) fn head(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, http::Method::HEAD, path.into())
    }

    pub(crate) fn post(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, http::Method::POST, path.into())
    }

    pub(crate) fn put(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, http::Method::PUT, path.into())
    }

    pub(crate) fn delete(&self, path: impl Into<String>) -> Request<'_> {
        Request::new(self, http::Method::DELETE, path.into())
    }

    /// Asks the daemon for its version and goes on in the older of its and ours.
    pub(crate) async fn negotiate(&self) -> Result<(), ApiError> {
        if self.settled.get() {
            return Ok(());
        }
        let reply = self.get("/_ping").unversioned().send().await?;
        let theirs = reply
            .headers()
            .get("Api-Version")
            .and_then(|value| value.to_str().ok());
        if let Some(theirs) = theirs.and_then(version::parse) {
            self.version.set(theirs.min(ApiVersion::MAX));
        }
        self.settled.set(true);
        request::drain(reply).await
    }

    async fn sender(&self) -> Result<SendRequest<HttpBody>, ApiError> {
        let idle = self.idle.borrow_mut().take();
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.dial().await
    }

    /// A connection on which nothing has been said yet.
    pub(crate) async fn connect(&self) -> Result<transport::Stream, ApiError> {
        transport::connect(&self.host, self.tls.clone()).await
    }

    async fn dial(&self) -> Result<SendRequest<HttpBody>, ApiError> {
        let stream = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What breaks the connection breaks the request on it too, which reports it.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Keeps a connection whose reply has been read to the end.
    fn give_back(&self, sender: SendRequest<HttpBody>) {
        *self.idle.borrow_mut() = Some(sender);
    }
}
