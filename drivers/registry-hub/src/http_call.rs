//! One request: its URL, its authorisation, its redirects, its answer.

use std::time::Duration;

use bytes::Bytes;
use gantry_plugin_sdk::registry::{Endpoint, Repository};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use url::Url;

use crate::Hub;
use crate::client::Body;
use crate::error::{MAX_ERROR, refused, unsent};

const MAX_REDIRECTS: usize = 10;
/// How long a server may think before it answers, and between two pieces of a body.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"));

/// An answer, its body not read yet.
pub(crate) struct Answer {
    method: Method,
    uri: Uri,
    pub(crate) response: http::Response<Incoming>,
}

/// A request to be made, whose body can be sent more than once.
pub(crate) struct Wanted {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the token must permit, as token servers write it.
    pub(crate) scope: String,
}

impl Wanted {
    /// A request that reads from `repository`.
    pub(crate) fn pull(method: Method, repository: &str) -> Self {
        Self {
            method,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scope: format!("repository:{repository}:pull"),
        }
    }

    /// A request that changes `repository`.
    pub(crate) fn push(method: Method, repository: &str) -> Self {
        Self {
            scope: push_scope(repository),
            ..Self::pull(method, repository)
        }
    }
}

/// What a token for changes of a repository must permit.
pub(crate) fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

/// The URL of something in a repository.
pub(crate) fn url_of(at: &Repository, path: &str) -> DriverResult<Url> {
    let base = at.endpoint.url.trim_end_matches('/');
    parse(&format!("{base}/v2/{}/{path}", at.repository))
}

impl Hub {
    /// Sends a request about a repository, answering the endpoint's challenge if it makes one.
    pub(crate) async fn request(
        &self,
        at: &Repository,
        path: &str,
        wanted: Wanted,
    ) -> DriverResult<Answer> {
        self.authorized(&at.endpoint, &url_of(at, path)?, wanted)
            .await
    }

    /// Sends a request with what is known to authorise it, and once more after a challenge.
    pub(crate) async fn authorized(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        wanted: Wanted,
    ) -> DriverResult<Answer> {
        let Wanted {
            method,
            mut headers,
            body,
            scope,
        } = wanted;
        if let Some(known) = self.tokens.known(endpoint, &scope) {
            headers.insert(AUTHORIZATION, known);
        }
        let answer = self
            .send(endpoint, method.clone(), url, headers.clone(), body.clone())
            .await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.tokens.forget(endpoint, &scope);
        let authorization = self
            .answer_challenge(endpoint, &answer, &scope, false)
            .await?
            .authorization;
        headers.insert(AUTHORIZATION, authorization);
        self.send(endpoint, method, url, headers, body).await
    }

    /// Sends one request and returns whatever comes back within `patience`.
    pub(crate) async fn once(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Body,
        patience: Duration,
    ) -> DriverResult<Answer> {
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|e| DriverError::invalid(format!("invalid URL {url}: {e}")))?;
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let pool = self.clients.get(&uri, endpoint)?;
        if let Some(authorization) = pool.routes.authorization(&uri) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        let response = tokio::time::timeout(patience, pool.client.request(request))
            .await
            .map_err(|elapsed| unsent(&method, &uri, &elapsed))?
            .map_err(|error| unsent(&method, &uri, &error))?;
        Ok(Answer {
            method,
            uri,
            response,
        })
    }

    /// Sends one request and follows redirects; authorisation stays with the server it was meant for.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> DriverResult<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let whole = Full::new(body.clone())
                .map_err(|never| match never {})
                .boxed();
            let answer = self
                .once(
                    endpoint,
                    method.clone(),
                    &url,
                    headers.clone(),
                    whole,
                    PATIENCE,
                )
                .await?;
            let Some(next) = answer.redirect(&url)? else {
                return Ok(answer);
            };
            if next.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
            }
            self.log.debug(format!(
                "redirected to {}",
                next.host_str().unwrap_or_default()
            ));
            url = next;
        }
        Err(DriverError::new(
            ErrorCode::InvalidArgument,
            format!("Get \"{url}\": stopped after {MAX_REDIRECTS} redirects"),
        ))
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Where the server sends us, if it does. Only GET and HEAD are sent on.
    fn redirect(&self, from: &Url) -> DriverResult<Option<Url>> {
        let moved = matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        if !moved || !matches!(self.method, Method::GET | Method::HEAD) {
            return Ok(None);
        }
        let Some(location) = self.header(LOCATION.as_str()) else {
            return Ok(None);
        };
        let next = from
            .join(location)
            .map_err(|e| DriverError::invalid(format!("invalid redirect to {location:?}: {e}")))?;
        match next.scheme() {
            "http" | "https" => Ok(Some(next)),
            other => Err(DriverError::invalid(format!(
                "redirect to the unsupported scheme {other:?}"
            ))),
        }
    }

    /// The answer itself when it is a success, else what it says.
    pub(crate) async fn succeeded(self) -> DriverResult<Self> {
        if self.status().is_success() {
            return Ok(self);
        }
        Err(self.failure().await)
    }

    /// What an answer that is no success says.
    pub(crate) async fn failure(self) -> DriverError {
        let (method, uri) = (self.method.clone(), self.uri.clone());
        let (parts, body) = self.response.into_parts();
        // Whether the explanation can be read changes nothing about the failure.
        let text = collect(body, MAX_ERROR, &method, &uri)
            .await
            .unwrap_or_default();
        refused(&method, &uri, parts.status, &parts.headers, &text)
    }

    /// The whole body, at most `limit` bytes.
    pub(crate) async fn body(self, limit: usize) -> DriverResult<Vec<u8>> {
        collect(self.response.into_body(), limit, &self.method, &self.uri).await
    }
}

async fn collect(
    mut body: Incoming,
    limit: usize,
    method: &Method,
    uri: &Uri,
) -> DriverResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame())
        .await
        .map_err(|elapsed| unsent(method, uri, &elapsed))?
    {
        let frame = frame.map_err(|error| unsent(method, uri, &error))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(DriverError::invalid(format!(
                    "the answer from {uri} is larger than {limit} bytes"
                )));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

pub(crate) fn parse(text: &str) -> DriverResult<Url> {
    let url =
        Url::parse(text).map_err(|e| DriverError::invalid(format!("invalid URL {text:?}: {e}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(DriverError::invalid(format!(
            "unsupported scheme {other:?} in {text:?}"
        ))),
    }
}
