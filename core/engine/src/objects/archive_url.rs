//! Archives that are imported from a URL.

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyDataStream, BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_util::io::StreamReader;

use crate::{ByteReader, EngineError, Result};

/// Redirections that are followed, as in Go.
const REDIRECTS: usize = 10;
/// Of what a server says to an error, this much is told.
const EXPLANATION: usize = 4 << 10;

/// An archive on its way.
pub(super) struct Remote {
    pub(super) url: String,
    /// Bytes to come, when the server tells.
    pub(super) length: Option<u64>,
    pub(super) body: ByteReader,
}

/// Asks for the archive at `source`, `http://` where it has no scheme. Directly: proxies are not asked.
///
/// # Errors
/// What is no URL; what the server or the way to it says.
pub(super) async fn open(source: &str) -> Result<Remote> {
    let url = match source.contains("://") {
        true => source.to_owned(),
        false => format!("http://{source}"),
    };
    let mut at = url::Url::parse(&url)
        .map_err(|error| EngineError::bad_request(format!("parse {url:?}: {error}")))?;
    let client = client()?;
    for _ in 0..=REDIRECTS {
        let reply = get(&client, &at).await?;
        let status = reply.status();
        let location = reply
            .headers()
            .get(LOCATION)
            .filter(|_| status.is_redirection());
        if let Some(location) = location.and_then(|value| value.to_str().ok()) {
            at = at.join(location).map_err(|error| failed(&at, &error))?;
            continue;
        }
        if status.is_client_error() || status.is_server_error() {
            let said = Limited::new(reply.into_body(), EXPLANATION).collect().await;
            let said = said.map(|said| said.to_bytes()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            return Err(EngineError::internal(format!(
                "failed to GET {url} with status {status}: {}",
                said.trim()
            )));
        }
        let length = reply.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = BodyDataStream::new(reply.into_body()).map_err(std::io::Error::other);
        return Ok(Remote {
            url,
            length,
            body: Box::pin(StreamReader::new(body)),
        });
    }
    Err(failed(&at, &format!("stopped after {REDIRECTS} redirects")))
}

type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

fn client() -> Result<Http> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| EngineError::internal(format!("reading authorities: {error}")))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

async fn get(client: &Http, at: &url::Url) -> Result<http::Response<Incoming>> {
    if !matches!(at.scheme(), "http" | "https") {
        let scheme = at.scheme();
        return Err(failed(
            at,
            &format!("unsupported protocol scheme {scheme:?}"),
        ));
    }
    let uri: Uri = at
        .as_str()
        .parse()
        .map_err(|error: http::uri::InvalidUri| {
            EngineError::bad_request(format!("parse {:?}: {error}", at.as_str()))
        })?;
    let request = Request::get(uri)
        .header(USER_AGENT, "gantry")
        .body(Empty::new())
        .map_err(|error| failed(at, &error))?;
    client.request(request).await.map_err(|error| {
        // What it says itself is only that it failed.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        failed(at, cause)
    })
}

fn failed(at: &url::Url, error: &(impl std::fmt::Display + ?Sized)) -> EngineError {
    EngineError::internal(format!("Get \"{at}\": {error}"))
}
