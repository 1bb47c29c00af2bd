//! Connections: one pool for each way of trusting a server and of using it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::registry::{ClientCertificate, Endpoint, Proxies};
use http::Uri;
use http_body_util::combinators::BoxBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::proxy::{Connector, Routes};

/// What a request carries: bytes at hand, or those of a descriptor as they are read.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Connections that are kept for further requests.
type Connections = Client<HttpsConnector<Connector>, Body>;

/// One way of trusting a server: its connections for each use, and the proxies on their ways.
#[derive(Clone)]
pub(crate) struct Pool {
    talk: Connections,
    blobs: Connections,
    pub(crate) routes: Routes,
}

impl Pool {
    /// The connections for what a request is for.
    pub(crate) fn client(&self, purpose: Purpose) -> &Connections {
        match purpose.shares() {
            true => &self.talk,
            false => &self.blobs,
        }
    }
}

/// How long a server may think before it answers, and between two pieces of a body.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take in an upload: it stores and hashes the blob before it answers.
const STORING: Duration = Duration::from_secs(30 * 60);

/// What a request is for, which decides how it is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Questions and documents.
    Talk,
    /// A blob, to here.
    Fetch,
    /// A blob, to there.
    Store,
}

impl Purpose {
    /// How long an answer may take.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Talk | Self::Fetch => PATIENCE,
            Self::Store => STORING,
        }
    }

    /// Whether requests may share a connection as streams of HTTP/2, where the server offers that. Blobs are large and
    /// few: a connection each is faster than streams behind one window.
    fn shares(self) -> bool {
        self == Self::Talk
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection with streams that is silent for so long is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Pools are made again rather than kept in any number. Each holds connections of up to two kinds.
const MAX_CLIENTS: usize = 16;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// Plain HTTP: no authorities need to be loaded.
    Plain,
    Tls {
        skip_verify: bool,
        ca_files: Vec<PathBuf>,
        client_certificates: Vec<ClientCertificate>,
        /// Of all those files: they may be replaced, as certificates expire.
        stamps: Vec<Option<Stamp>>,
    },
}

/// What tells one content of a file from the next: device, inode, length, time of change.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        data.ctime(),
        data.ctime_nsec(),
    ))
}

/// The pools.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<(Trust, Proxies), Pool>>);

impl Clients {
    /// The pool for a request to `uri` on behalf of `endpoint`.
    pub(crate) fn get(&self, uri: &Uri, endpoint: &Endpoint) -> DriverResult<Pool> {
        let trust = match uri.scheme_str() {
            Some("http") => Trust::Plain,
            _ => tls(endpoint),
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (trust, endpoint.proxies.clone());
        if let Some(pool) = clients.get(&key) {
            return Ok(pool.clone());
        }
        let pool = make(&key.0, &key.1)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, pool.clone());
        Ok(pool)
    }
}

fn tls(endpoint: &Endpoint) -> Trust {
    let ca_files = endpoint.ca_files.iter();
    let pairs = endpoint.client_certificates.iter();
    let stamps = ca_files
        .chain(pairs.flat_map(|pair| [&pair.certificate, &pair.key]))
        .map(|path| stamp(path))
        .collect();
    Trust::Tls {
        skip_verify: endpoint.skip_verify,
        ca_files: endpoint.ca_files.clone(),
        client_certificates: endpoint.client_certificates.clone(),
        stamps,
    }
}

fn make(trust: &Trust, proxies: &Proxies) -> DriverResult<Pool> {
    let routes = Routes::new(proxies);
    let (talk, blobs) = match trust {
        // Nothing offers HTTP/2 there: all requests share the same connections.
        Trust::Plain => {
            let all = connections(crate::tls::config(true, &[], &[])?, &routes, false);
            (all.clone(), all)
        }
        Trust::Tls {
            skip_verify,
            ca_files,
            client_certificates,
            ..
        } => {
            let config = crate::tls::config(*skip_verify, ca_files, client_certificates)?;
            let talk = connections(config.clone(), &routes, true);
            (talk, connections(config, &routes, false))
        }
    };
    Ok(Pool {
        talk,
        blobs,
        routes,
    })
}

/// Connections that are made as they are needed; with `http2`, that is offered.
fn connections(config: ClientConfig, routes: &Routes, http2: bool) -> Connections {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1();
    let way = Connector {
        tcp,
        routes: routes.clone(),
    };
    let connector = match http2 {
        true => connector.enable_http2().wrap_connector(way),
        false => connector.wrap_connector(way),
    };
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(4)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_INTERVAL)
        .build(connector)
}
