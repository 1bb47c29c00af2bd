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

impl Hub {
    /// Sends a request about a repository, answering the endpoint's challenge if it makes one.
    pub(crate) async fn request(
        &self,
        at: &Repository,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> DriverResult<Answer> {
        let base = at.endpoint.url.trim_end_matches('/');
        let url = parse(&format!("{base}/v2/{}/{path}", at.repository))?;
        let scope = format!("repository:{}:pull", at.repository);
        self.authorized(&at.endpoint, method, &url, headers, &scope)
            .await
    }

    /// Sends a request with what is known to authorise it, and once more after a challenge.
    pub(crate) async fn authorized(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        scope: &str,
    ) -> DriverResult<Answer> {
        if let Some(known) = self.tokens.known(endpoint, scope) {
            headers.insert(AUTHORIZATION, known);
        }
        let answer = self
            .send(endpoint, method.clone(), url, headers.clone(), Bytes::new())
            .await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.tokens.forget(endpoint, scope);
        let authorization = self
            .answer_challenge(endpoint, &answer, scope, false)
            .await?
            .authorization;
        headers.insert(AUTHORIZATION, authorization);
        self.send(endpoint, method, url, headers, Bytes::new())
            .await
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
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let uri: Uri = url
                .as_str()
                .parse()
                .map_err(|e| DriverError::invalid(format!("invalid URL {url}: {e}")))?;
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let pool = self.clients.get(&uri, endpoint)?;
            if let Some(authorization) = pool.routes.authorization(&uri) {
                request
                    .headers_mut()
                    .insert(PROXY_AUTHORIZATION, authorization);
            }
            let response = tokio::time::timeout(PATIENCE, pool.client.request(request))
                .await
                .map_err(|elapsed| unsent(&method, &uri, &elapsed))?
                .map_err(|error| unsent(&method, &uri, &error))?;
            let answer = Answer {
                method: method.clone(),
                uri,
                response,
            };
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
