//! Connections: one pool for each way of trusting a server.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::registry::{Endpoint, Proxies};
use http::Uri;
use http_body_util::combinators::BoxBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::proxy::{Connector, Routes};

/// What a request carries: bytes at hand, or those of a descriptor as they are read.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// One pool, and the proxies on its ways.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) client: Client<HttpsConnector<Connector>, Body>,
    pub(crate) routes: Routes,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pools are made again rather than kept in any number.
const MAX_CLIENTS: usize = 16;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// Plain HTTP: no authorities need to be loaded.
    Plain,
    Tls {
        skip_verify: bool,
        ca_files: Vec<PathBuf>,
    },
}

/// The pools.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<(Trust, Proxies), Pool>>);

impl Clients {
    /// The pool for a request to `uri` on behalf of `endpoint`.
    pub(crate) fn get(&self, uri: &Uri, endpoint: &Endpoint) -> DriverResult<Pool> {
        let trust = match uri.scheme_str() {
            Some("http") => Trust::Plain,
            _ => Trust::Tls {
                skip_verify: endpoint.skip_verify,
                ca_files: endpoint.ca_files.clone(),
            },
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

/// HTTP/1.1 only: layers are large and few, so a connection each is faster than streams that share one window.
fn make(trust: &Trust, proxies: &Proxies) -> DriverResult<Pool> {
    let config = match trust {
        Trust::Plain => crate::tls::config(true, &[])?,
        Trust::Tls {
            skip_verify,
            ca_files,
        } => crate::tls::config(*skip_verify, ca_files)?,
    };
    let routes = Routes::new(proxies);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector {
            tcp,
            routes: routes.clone(),
        });
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(4)
        .build(connector);
    Ok(Pool { client, routes })
}
