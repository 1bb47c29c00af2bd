//! Building, sending and reading one request.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use hyper::client::conn::http1::SendRequest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Client, Reply, version};
use crate::error::ApiError;

type Upload = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>;
pub(super) type HttpBody = Either<Full<Bytes>, StreamBody<Upload>>;

/// What stays as it is in a path segment or a query value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// An error body larger than this is not read on.
const MAX_ERROR_BODY: usize = 1 << 20;

/// Escapes a name for use as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

/// Escapes an image's name for use in a path, where its slashes and colons stand as they are.
pub(crate) fn name_path(name: &str) -> String {
    const NAME: &AsciiSet = &PLAIN.remove(b'/').remove(b':').remove(b'@');
    utf8_percent_encode(name, NAME).to_string()
}

/// What a request carries.
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// Sent in chunks; cannot be sent again.
    Stream(Upload),
}

/// A request in the making.
pub(crate) struct Request<'c> {
    client: &'c Client,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
    versioned: bool,
    upgrade: bool,
}

impl<'c> Request<'c> {
    pub(super) fn new(client: &'c Client, method: Method, path: String) -> Self {
        Self {
            client,
            method,
            path,
            query: String::new(),
            headers: Vec::new(),
            body: Body::Empty,
            versioned: true,
            upgrade: false,
        }
    }

    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query
            .push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query
            .extend(utf8_percent_encode(value.as_ref(), PLAIN));
        self
    }

    /// Adds `name=1` if `flag` is set.
    pub(crate) fn flag(self, name: &str, flag: bool) -> Self {
        if flag { self.query(name, "1") } else { self }
    }

    /// Adds the parameter if there is a value that is not empty.
    pub(crate) fn maybe(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) if !value.as_ref().is_empty() => self.query(name, value),
            _ => self,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, ApiError> {
        let bytes = serde_json::to_vec(body).map_err(|error| ApiError::Reply(error.to_string()))?;
        self.body = Body::Bytes(bytes.into());
        Ok(self.header(CONTENT_TYPE.as_str(), "application/json"))
    }

    pub(crate) fn body(mut self, body: Body, content_type: &str) -> Self {
        self.body = body;
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    /// Leaves out the version, as `/_ping` wants it.
    pub(super) fn unversioned(mut self) -> Self {
        self.versioned = false;
        self
    }

    /// Sends and hands out the reply once its headers are there.
    pub(crate) async fn send(self) -> Result<Reply, ApiError> {
        Ok(self.exchange().await?.0)
    }

    /// Sends and reads the reply's JSON; no content reads as null.
    pub(crate) async fn fetch<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let client = self.client;
        let (reply, sender) = self.exchange().await?;
        let bytes = collect(reply).await?;
        client.give_back(sender);
        let bytes = if bytes.is_empty() {
            Bytes::from_static(b"null")
        } else {
            bytes
        };
        serde_json::from_slice(&bytes).map_err(|error| ApiError::Reply(error.to_string()))
    }

    /// [`fetch`](Self::fetch) of anything.
    pub(crate) async fn value(self) -> Result<Value, ApiError> {
        self.fetch().await
    }

    /// Sends and reads the reply's bytes.
    pub(crate) async fn bytes(self) -> Result<Bytes, ApiError> {
        let client = self.client;
        let (reply, sender) = self.exchange().await?;
        let bytes = collect(reply).await?;
        client.give_back(sender);
        Ok(bytes)
    }

    /// Sends; the reply has nothing to say.
    pub(crate) async fn done(self) -> Result<(), ApiError> {
        self.bytes().await.map(drop)
    }

    /// Sends and takes the connection over.
    pub(crate) async fn hijack(mut self) -> Result<super::hijack::Hijacked, ApiError> {
        self.upgrade = true;
        super::hijack::Hijacked::from_reply(self.send().await?).await
    }

    async fn exchange(mut self) -> Result<(Reply, SendRequest<HttpBody>), ApiError> {
        if self.versioned && matches!(self.body, Body::Stream(_)) {
            Box::pin(self.client.negotiate()).await?;
        }
        loop {
            let replay = match &self.body {
                Body::Empty => Some(Body::Empty),
                Body::Bytes(bytes) => Some(Body::Bytes(bytes.clone())),
                Body::Stream(_) => None,
            };
            let body = std::mem::replace(&mut self.body, Body::Empty);
            let mut sender = self.client.sender().await?;
            let reply = sender.send_request(self.http(body)?).await?;
            if reply.status().as_u16() < 400 {
                self.client.settled.set(true);
                return Ok((reply, sender));
            }
            let error = refusal(reply, &self.path).await;
            self.client.give_back(sender);
            let tried = self.client.version();
            match (&error, replay) {
                (
                    ApiError::Daemon {
                        status: 400,
                        message,
                    },
                    Some(body),
                ) if !self.client.settled.get() => {
                    let Some(older) = version::after_refusal(tried, message) else {
                        return Err(error);
                    };
                    self.client.version.set(older);
                    self.client.settled.set(true);
                    self.body = body;
                }
                _ => return Err(error),
            }
        }
    }

    fn http(&self, body: Body) -> Result<http::Request<HttpBody>, ApiError> {
        let prefix = if self.versioned {
            format!("/v{}", self.client.version())
        } else {
            String::new()
        };
        let mut request = http::Request::builder()
            .method(self.method.clone())
            .uri(format!("{prefix}{}{}", self.path, self.query))
            .header(HOST, "api.moby.localhost")
            .header(
                USER_AGENT,
                concat!("Gantry-Client/", env!("CARGO_PKG_VERSION"), " (linux)"),
            );
        for (name, value) in &self.client.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if self.upgrade {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let body = match body {
            Body::Empty => {
                if self.method == Method::POST {
                    request = request.header(CONTENT_LENGTH, "0");
                }
                Either::Left(Full::default())
            }
            Body::Bytes(bytes) => Either::Left(Full::new(bytes)),
            Body::Stream(stream) => Either::Right(StreamBody::new(stream)),
        };
        request
            .body(body)
            .map_err(|error| ApiError::Reply(error.to_string()))
    }
}

async fn collect(reply: Reply) -> Result<Bytes, ApiError> {
    Ok(reply.into_body().collect().await?.to_bytes())
}

/// Reads a reply of which only the headers matter.
pub(super) async fn drain(reply: Reply) -> Result<(), ApiError> {
    collect(reply).await.map(drop)
}

/// The error that a reply with a status of 400 or more stands for.
async fn refusal(reply: Reply, path: &str) -> ApiError {
    let status = reply.status();
    let mut body = reply.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ERROR_BODY && !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => {
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]))
            }
            _ => break,
        }
    }
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|value| Some(value.get("message")?.as_str()?.trim().to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
    let message = if message.is_empty() {
        unexplained(status, path)
    } else {
        message
    };
    ApiError::Daemon {
        status: status.as_u16(),
        message,
    }
}

fn unexplained(status: StatusCode, path: &str) -> String {
    let reason = status.canonical_reason().unwrap_or("an error");
    format!(
        "request returned {reason} for API route and version {path}, check if the server supports the requested API version"
    )
}
