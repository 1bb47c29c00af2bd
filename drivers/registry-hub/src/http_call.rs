//! One request: its URL, its authorisation, its redirects, its answer.

use bytes::Bytes;
use gantry_plugin_sdk::registry::{Endpoint, Repository};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use url::Url;

use crate::Hub;
use crate::client::{Body, PATIENCE, Purpose};
use crate::error::{MAX_ERROR, refused, unsent};

const MAX_REDIRECTS: usize = 10;
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
    pub(crate) purpose: Purpose,
}

impl Wanted {
    /// A request that reads from `repository`.
    pub(crate) fn pull(method: Method, repository: &str) -> Self {
        Self {
            method,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scope: format!("repository:{repository}:pull"),
            purpose: Purpose::Talk,
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

/// A request that can be sent again: to another server, or with another authorisation.
#[derive(Clone)]
pub(crate) struct Repeatable {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) purpose: Purpose,
}

impl Repeatable {
    /// A question without a body.
    pub(crate) fn get(headers: HeaderMap) -> Self {
        Self {
            method: Method::GET,
            headers,
            body: Bytes::new(),
            purpose: Purpose::Talk,
        }
    }

    fn whole(&self) -> Request<Body> {
        let body = Full::new(self.body.clone());
        let mut request = Request::new(body.map_err(|never| match never {}).boxed());
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// The endpoint's own headers; they replace nothing but what a client says of itself.
fn add_headers(endpoint: &Endpoint, headers: &mut HeaderMap) -> DriverResult<()> {
    for (name, value) in &endpoint.headers.0 {
        let invalid = |_| DriverError::invalid(format!("invalid header {name:?} for a registry"));
        let parsed = HeaderName::try_from(name.as_str()).map_err(|_| invalid(()))?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| invalid(()))?;
        value.set_sensitive(true);
        if parsed == USER_AGENT {
            headers.insert(parsed, value);
        } else if !matches!(parsed, AUTHORIZATION) || !headers.contains_key(AUTHORIZATION) {
            headers.append(parsed, value);
        }
    }
    Ok(())
}

/// What a token for changes of a repository must permit.
pub(crate) fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

/// The root of an endpoint's API, without a slash at its end.
pub(crate) fn root_of(endpoint: &Endpoint) -> String {
    let base = endpoint.url.trim_end_matches('/');
    let version = if endpoint.override_path { "" } else { "/v2" };
    format!("{base}{version}")
}

/// The URL of something in a repository.
pub(crate) fn url_of(at: &Repository, path: &str) -> DriverResult<Url> {
    let endpoint = &at.endpoint;
    let mut url = parse(&format!("{}/{}/{path}", root_of(endpoint), at.repository))?;
    if endpoint.namespaced {
        url.query_pairs_mut().append_pair("ns", &endpoint.domain);
    }
    Ok(url)
}

/// Whether a URL is on the endpoint's own server: the one that gets its headers and password.
pub(crate) fn is_own(endpoint: &Endpoint, url: &Url) -> bool {
    Url::parse(&endpoint.url).is_ok_and(|own| own.origin() == url.origin())
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
            purpose,
        } = wanted;
        if let Some(known) = self.tokens.known(endpoint, &scope) {
            headers.insert(AUTHORIZATION, known);
        }
        let mut request = Repeatable {
            method,
            headers,
            body,
            purpose,
        };
        let answer = self.send(endpoint, url, request.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.tokens.forget(endpoint, &scope);
        let authorization = self
            .answer_challenge(endpoint, &answer, &scope, false)
            .await?
            .authorization;
        request.headers.insert(AUTHORIZATION, authorization);
        self.send(endpoint, url, request).await
    }

    /// Sends one request and returns whatever comes back within the purpose's patience.
    pub(crate) async fn once(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        mut request: Request<Body>,
        purpose: Purpose,
    ) -> DriverResult<Answer> {
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|e| DriverError::invalid(format!("invalid URL {url}: {e}")))?;
        let method = request.method().clone();
        let pool = self.clients.get(&uri, endpoint)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if is_own(endpoint, url) {
            add_headers(endpoint, headers)?;
        }
        if let Some(authorization) = pool.routes.authorization(&uri) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        *request.uri_mut() = uri.clone();
        let asked = pool.client(purpose).request(request);
        let response = tokio::time::timeout(purpose.patience(), asked)
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
        url: &Url,
        mut request: Repeatable,
    ) -> DriverResult<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self
                .once(endpoint, &url, request.whole(), request.purpose)
                .await?;
            let Some(next) = answer.redirect(&url)? else {
                return Ok(answer);
            };
            if next.origin() != url.origin() {
                request.headers.remove(AUTHORIZATION);
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
