//! A small client of etcd's JSON gateway (`/v3/...`): one request at a time, at the endpoint that answered last, then at
//! the others.

mod error;
mod login;
mod tls;
pub(crate) mod wire;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_plugin_sdk::DriverResult;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::options::Options;
pub(crate) use error::EtcdError;
use error::{Result, reason, refusal};
use login::Login;
use wire::{
    GrantRequest, KeepAliveRequest, KeyValue, Lease, RangeReply, Streamed, Txn, TxnReply,
    WatchCreate, WatchReply, WatchRequest,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take: longer than etcd needs to choose a new leader.
const ANSWER: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);
/// The largest answer; a hundred thousand endpoints are smaller.
const LARGEST: usize = 256 << 20;
/// The client. Connections are served by the runtime that its methods are called in.
pub(crate) struct Etcd {
    endpoints: Vec<String>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    login: Option<Login>,
}

impl Etcd {
    /// A client that has connected to nothing yet.
    ///
    /// # Errors
    /// When the files of TLS cannot be used.
    pub(crate) fn new(options: &Options) -> DriverResult<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let secure = options.etcd.iter().any(|e| e.starts_with("https:"));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(secure.then_some(&options.tls))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self {
            endpoints: options.etcd.clone(),
            preferred: AtomicUsize::new(0),
            client,
            login: options.login().map(|(name, file)| Login::new(name, file)),
        })
    }

    /// Everything below a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<RangeReply> {
        self.ask("kv/range", &wire::below(prefix)).await
    }

    /// One key, if it is there.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let reply: RangeReply = self.ask("kv/range", &wire::one(key)).await?;
        Ok(reply.kvs.into_iter().next())
    }

    /// One key as it was at a revision, with what is told of the store; 0: as it is.
    pub(crate) async fn get_at(&self, key: &str, revision: i64) -> Result<RangeReply> {
        self.ask("kv/range", &wire::one_at(key, revision)).await
    }

    /// Makes a transaction. One that was made and whose answer was lost is made again, so that it must be one that then
    /// fails or changes nothing.
    pub(crate) async fn txn(&self, txn: &Txn) -> Result<TxnReply> {
        self.ask("kv/txn", txn).await
    }

    /// A new lease.
    pub(crate) async fn grant(&self, time: Duration) -> Result<Lease> {
        let ttl = time.as_secs().to_string();
        self.ask("lease/grant", &GrantRequest { ttl }).await
    }

    /// Whether the lease is still there; it begins anew then.
    pub(crate) async fn keep_alive(&self, lease: i64) -> Result<bool> {
        let id = lease.to_string();
        let answer: Streamed<Lease> = self
            .ask("lease/keepalive", &KeepAliveRequest { id })
            .await?;
        match (answer.result, answer.error) {
            (Some(lease), None) => Ok(lease.ttl > 0),
            (_, error) => Err(EtcdError::Away(
                error.map_or_else(|| "an empty answer".into(), |e| e.message),
            )),
        }
    }

    /// Changes below a prefix from a revision on, as they are made.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<Changes> {
        let request = WatchRequest {
            create_request: WatchCreate {
                range: wire::below(prefix),
                start_revision: from.to_string(),
            },
        };
        let body = encode(&request)?;
        let body = &body;
        let open = |endpoint| async move {
            let begun = async {
                let response = self.send(endpoint, "watch", body.clone()).await?;
                let mut changes = Changes {
                    body: response,
                    buffer: Vec::new(),
                    searched: 0,
                    revision: 0,
                };
                let first = changes.next().await?;
                changes.revision = first.header.revision;
                match first.created {
                    true => Ok(changes),
                    false => Err(EtcdError::Away("the watch was not begun".into())),
                }
            };
            in_time(endpoint, begun).await
        };
        match self.at_any(&open).await {
            Err(EtcdError::Unauthenticated(_)) if self.login.is_some() => {
                // The token ended since the last question; the next one renews it.
                self.get(prefix).await?;
                self.at_any(&open).await
            }
            answer => answer,
        }
    }

    async fn ask<R: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<R> {
        let body = encode(request)?;
        let body = &body;
        let once = |endpoint| async move {
            let answered = async {
                let response = self.send(endpoint, path, body.clone()).await?;
                let bytes = collect(response).await?;
                decode(&bytes)
            };
            in_time(endpoint, answered).await
        };
        self.at_any(once).await
    }

    /// Tries each endpoint, and all of them twice: a connection that was kept may turn out to be closed.
    async fn at_any<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        attempt: impl Fn(&'a str) -> F,
    ) -> Result<T> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = EtcdError::Away("no endpoint is configured".into());
        for turn in 0..2 * self.endpoints.len() {
            let at = (first + turn) % self.endpoints.len();
            match attempt(&self.endpoints[at]).await {
                Err(error @ EtcdError::Away(_)) => failure = error,
                answer => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        // What hangs should not be the first to be asked again.
        self.preferred.fetch_add(1, Ordering::Relaxed);
        Err(failure)
    }

    /// Asks with a token, where there are users, and once more with a new one when that is not valid any more.
    async fn send(&self, endpoint: &str, path: &str, body: Bytes) -> Result<Incoming> {
        let token = self.token(endpoint, None).await?;
        match self.post(endpoint, path, body.clone(), token.clone()).await {
            Err(EtcdError::Unauthenticated(_)) if self.login.is_some() => {
                let token = self.token(endpoint, Some(token)).await?;
                self.post(endpoint, path, body, token).await
            }
            answer => answer,
        }
    }

    async fn post(
        &self,
        endpoint: &str,
        path: &str,
        body: Bytes,
        token: Option<HeaderValue>,
    ) -> Result<Incoming> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{endpoint}/v3/{path}"))
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )
            // A member that has lost the others must not keep a watch that tells nothing.
            .header("Grpc-Metadata-Hasleader", HeaderValue::from_static("true"))
            .body(Full::new(body))
            .map_err(|e| EtcdError::Refused(e.to_string()))?;
        if let Some(token) = token {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let response = self.client.request(request).await;
        let response = response.map_err(|e| EtcdError::Away(reason(&e)))?;
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response.into_body()),
            _ => Err(refusal(status, &collect(response.into_body()).await?)),
        }
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

async fn in_time<T>(endpoint: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let result = tokio::time::timeout(ANSWER, work).await;
    match result {
        Ok(Err(EtcdError::Away(why))) => Err(EtcdError::Away(format!("{endpoint}: {why}"))),
        Ok(result) => result,
        Err(_) => Err(EtcdError::Away(format!(
            "{endpoint}: no answer within {ANSWER:?}"
        ))),
    }
}

fn encode(request: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(request);
    bytes
        .map(Bytes::from)
        .map_err(|e| EtcdError::Refused(e.to_string()))
}

/// The first value: an answer, or the first message of a stream.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter();
    let unreadable = |why: &dyn fmt::Display| {
        EtcdError::Away(format!("an answer that is none of etcd's: {why}"))
    };
    values
        .next()
        .ok_or_else(|| unreadable(&"it is empty"))?
        .map_err(|e| unreadable(&e))
}

async fn collect(body: Incoming) -> Result<Vec<u8>> {
    let limited = http_body_util::Limited::new(body, LARGEST);
    match limited.collect().await {
        Ok(whole) => Ok(whole.to_bytes().to_vec()),
        Err(error) => Err(EtcdError::Away(reason(error.as_ref()))),
    }
}

/// A stream of changes.
#[derive(Debug)]
pub(crate) struct Changes {
    body: Incoming,
    buffer: Vec<u8>,
    /// So much of the buffer has no end of a message.
    searched: usize,
    /// The store's when the stream began.
    pub(crate) revision: i64,
}

impl Changes {
    /// The next message. Nothing of it is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<WatchReply> {
        loop {
            let rest = &self.buffer[self.searched..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                return read(&line);
            }
            self.searched = self.buffer.len();
            let frame = self.body.frame().await;
            let frame = frame.ok_or_else(|| EtcdError::Away("the watch has ended".into()))?;
            let frame = frame.map_err(|e| EtcdError::Away(reason(&e)))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
            if self.buffer.len() > LARGEST {
                return Err(EtcdError::Away("a message without end".into()));
            }
        }
    }
}

fn read(line: &[u8]) -> Result<WatchReply> {
    let message: Streamed<WatchReply> = decode(line)?;
    let reply = match (message.result, message.error) {
        (Some(reply), None) => reply,
        (_, error) => {
            let why = error.map_or_else(|| "the watch has ended".into(), |e| e.message);
            return Err(EtcdError::Away(why));
        }
    };
    match reply.canceled {
        // A watch from a revision that was compacted is cancelled with the oldest one that is kept.
        true if reply.compacted() => Err(EtcdError::Compacted),
        true if reply.cancel_reason.contains("invalid auth token") => {
            Err(EtcdError::Unauthenticated(reply.cancel_reason))
        }
        true => Err(EtcdError::Away(format!(
            "the watch was cancelled: {}",
            reply.cancel_reason
        ))),
        false => Ok(reply),
    }
}
