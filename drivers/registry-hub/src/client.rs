//! Connections: one pool for each way of trusting a server.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::registry::Endpoint;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

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
pub(crate) struct Clients(Mutex<HashMap<Trust, HttpClient>>);

impl Clients {
    /// The pool for a request to `uri` on behalf of `endpoint`.
    pub(crate) fn get(&self, uri: &Uri, endpoint: &Endpoint) -> DriverResult<HttpClient> {
        let trust = match uri.scheme_str() {
            Some("http") => Trust::Plain,
            _ => Trust::Tls {
                skip_verify: endpoint.skip_verify,
                ca_files: endpoint.ca_files.clone(),
            },
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = make(&trust)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(trust, client.clone());
        Ok(client)
    }
}

/// HTTP/1.1 only: layers are large and few, so a connection each is faster than streams that share one window.
fn make(trust: &Trust) -> DriverResult<HttpClient> {
    let config = match trust {
        Trust::Plain => crate::tls::config(true, &[])?,
        Trust::Tls {
            skip_verify,
            ca_files,
        } => crate::tls::config(*skip_verify, ca_files)?,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(4)
        .build(connector))
}
