//! What happens to every request before and after its handler: version, headers, end of answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gantry_wire::ApiVersion;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use hyper::body::{Frame, Incoming, SizeHint};
use tower_service::Service as _;

use crate::error::ApiError;
use crate::socket::Conn;

const HEADERS: [(&str, &str); 3] = [
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    (
        "server",
        concat!("Gantry/", env!("CARGO_PKG_VERSION"), " (linux)"),
    ),
];

/// All routes.
#[derive(Clone)]
pub(crate) struct Service {
    router: Router,
}

impl Service {
    pub(crate) fn new(router: Router) -> Self {
        Self { router }
    }

    /// The service of one connection.
    pub(crate) fn on(self, conn: Arc<Conn>) -> OnConnection {
        OnConnection {
            service: self,
            conn,
        }
    }

    async fn answer(mut self, conn: Arc<Conn>, mut request: Request<Incoming>) -> Response {
        tracing::debug!(method = %request.method(), uri = %request.uri(), "request");
        let version = match strip_version(request.uri_mut()) {
            Ok(version) => version,
            Err(error) => return error.into_response(),
        };
        request.extensions_mut().insert(version);
        request.extensions_mut().insert(conn);
        // A task of its own: a client that leaves does not cut a change in two, and a panic is one request's.
        let answer = tokio::spawn(async move { self.router.call(request.map(Body::new)).await });
        match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(error) => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
        }
    }
}

/// Takes `/v1.24` off the path and says which version is meant: the newest where none is named.
fn strip_version(uri: &mut Uri) -> Result<ApiVersion, ApiError> {
    let path = uri.path();
    let Some((text, rest)) = path
        .strip_prefix("/v")
        .and_then(|versioned| versioned.split_once('/'))
        .filter(|(text, _)| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        })
    else {
        return Ok(ApiVersion::MAX);
    };
    // `1` and `1.24.0` are versions to dockerd, which compares part by part.
    let mut parts = text.split('.');
    let mut part = || parts.next().map_or(Ok(0), str::parse).unwrap_or(u16::MAX);
    let version = ApiVersion::new(part(), part());
    if version > ApiVersion::MAX {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        )));
    }
    if version < ApiVersion::MIN && !(version >= OLDEST_OF_ARCHIVES && is_archive(rest)) {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            ApiVersion::MIN
        )));
    }
    let stripped = match uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    *uri = stripped.parse().map_err(|_| ApiError::no_such_page())?;
    Ok(version)
}

/// Tools of others (skopeo before 1.15) ask for this version, and only for archives of images, which are as they were.
const OLDEST_OF_ARCHIVES: ApiVersion = ApiVersion::new(1, 22);

/// Whether a path without its version is one of archives of images.
fn is_archive(path: &str) -> bool {
    matches!(path, "images/get" | "images/load")
}

fn add_headers(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if let Ok(version) = HeaderValue::from_str(&ApiVersion::MAX.to_string()) {
        headers.insert(HeaderName::from_static("api-version"), version);
    }
}

/// The service with what is known of the connection.
pub(crate) struct OnConnection {
    service: Service,
    conn: Arc<Conn>,
}

impl hyper::service::Service<Request<Incoming>> for OnConnection {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.conn.set_busy(true);
        let conn = Arc::clone(&self.conn);
        let service = self.service.clone();
        Box::pin(async move {
            let mut response = service.answer(Arc::clone(&conn), request).await;
            add_headers(&mut response);
            Ok(response.map(|body| Answer { body, conn }))
        })
    }
}

/// A body that frees its connection for the next request when it is done with.
pub(crate) struct Answer {
    body: Body,
    conn: Arc<Conn>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.conn.set_busy(false);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(path: &str) -> Result<(ApiVersion, String), String> {
        let mut uri: Uri = path.parse().unwrap();
        strip_version(&mut uri)
            .map(|version| (version, uri.to_string()))
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn versions_are_stripped() {
        let v = ApiVersion::new;
        for (path, version, rest) in [
            ("/v1.24/info", v(1, 24), "/info"),
            (
                "/v1.51/containers/a/json?size=1",
                v(1, 51),
                "/containers/a/json?size=1",
            ),
            ("/_ping", ApiVersion::MAX, "/_ping"),
            ("/volumes/x", ApiVersion::MAX, "/volumes/x"),
            ("/v1x/info", ApiVersion::MAX, "/v1x/info"),
            ("/vabc/info", ApiVersion::MAX, "/vabc/info"),
            ("/v1.40.1/info", v(1, 40), "/info"),
            ("/v1.22/images/load", v(1, 22), "/images/load"),
        ] {
            assert_eq!(strip(path).unwrap(), (version, rest.to_owned()), "{path}");
        }
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockerds_words() {
        let error = strip("/v1.99/info").unwrap_err();
        assert!(
            error.contains("client version 1.99 is too new. Maximum supported API version is 1.51")
        );
        let error = strip("/v1.10/info").unwrap_err();
        assert!(error.contains(
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        ));
        for path in ["/v99999999999.0/info", "/v1.22/info", "/v1.21/images/get"] {
            assert!(strip(path).is_err(), "{path}");
        }
    }
}
