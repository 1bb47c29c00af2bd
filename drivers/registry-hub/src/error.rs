//! Failures, classified, in the words of Docker's client.

use std::error::Error as StdError;
use std::io;

use gantry_plugin_sdk::{DriverError, ErrorCode};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;

use crate::challenge::challenges;

/// An error body of more bytes is not read.
pub(crate) const MAX_ERROR: usize = 64 << 10;

/// What Go says of a certificate that it does not trust, and of a server that does not trust its own.
const UNTRUSTED: &str = "tls: failed to verify certificate: x509: ";
const REFUSED: &str = "remote error: tls: ";

/// A request that got no answer.
pub(crate) fn unsent(method: &Method, uri: &Uri, error: &(dyn StdError + 'static)) -> DriverError {
    let cause = cause(uri, error);
    // A server that is not trusted, or does not trust us, does not come round by being asked again.
    let code = match cause.starts_with(UNTRUSTED) || cause.starts_with(REFUSED) {
        true => ErrorCode::Internal,
        false => ErrorCode::Unavailable,
    };
    DriverError::new(code, format!("{} \"{uri}\": {cause}", verb(method)))
}

/// As Go's HTTP client writes methods.
pub(crate) fn verb(method: &Method) -> String {
    let (first, rest) = method.as_str().split_at(1);
    format!("{first}{}", rest.to_lowercase())
}

/// What went wrong with TLS, if that is what went wrong.
fn tls_error<'e>(mut error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let within = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        error = match within {
            Some(within) => within,
            None => error.source()?,
        };
    }
}

/// The innermost reason, in Go's words where they are well known.
fn cause(uri: &Uri, error: &(dyn StdError + 'static)) -> String {
    let host = uri.host().unwrap_or_default();
    let default = if uri.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(default));
    if let Some(error) = tls_error(error) {
        return tls(host, error);
    }
    let mut at = Some(error);
    let mut last = error.to_string();
    let mut looking_up = false;
    while let Some(error) = at {
        last = error.to_string();
        looking_up |= last == "dns error";
        // An I/O error's `source` passes over what it wraps.
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(inner) = io.get_ref() {
                at = Some(inner);
                continue;
            }
            if let Some(known) = in_go(&address, io.kind()) {
                return known;
            }
        }
        at = error.source();
    }
    if looking_up {
        return format!("dial tcp: lookup {host}: no such host");
    }
    // HTTP/2 keeps only the words of what happened below it.
    if let Some((_, alert)) = last.split_once("received fatal alert: ") {
        return refusal(alert);
    }
    if last.contains("deadline has elapsed") || last.contains("timed out") {
        return format!("dial tcp {address}: i/o timeout");
    }
    last
}

/// What Go says of a failed system call.
fn in_go(address: &str, kind: io::ErrorKind) -> Option<String> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {address}: connect: connection refused")
        }
        io::ErrorKind::HostUnreachable => format!("dial tcp {address}: connect: no route to host"),
        io::ErrorKind::NetworkUnreachable => {
            format!("dial tcp {address}: connect: network is unreachable")
        }
        io::ErrorKind::TimedOut => format!("dial tcp {address}: i/o timeout"),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::UnexpectedEof => "EOF".into(),
        _ => return None,
    })
}

fn tls(host: &str, error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let x509 = |text: &str| format!("{UNTRUSTED}{text}");
    match error {
        rustls::Error::InvalidMessage(_) => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            x509("certificate signed by unknown authority")
        }
        rustls::Error::InvalidCertificate(
            Certificate::Expired | Certificate::ExpiredContext { .. },
        ) => x509("certificate has expired or is not yet valid"),
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => x509(&format!("certificate is not valid for {host}")),
        // How webpki refuses a self-signed certificate that nobody has configured.
        rustls::Error::InvalidCertificate(Certificate::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            x509("certificate signed by unknown authority")
        }
        rustls::Error::AlertReceived(alert) => refusal(&format!("{alert:?}")),
        other => format!("tls: {other}"),
    }
}

/// A server's last word before it closed, by its name in the specification (RFC 8446, 6).
fn refusal(alert: &str) -> String {
    let mut words = String::new();
    for c in alert.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    format!("{REFUSED}{words}")
}

/// An answer that is no success.
pub(crate) fn refused(
    method: &Method,
    uri: &Uri,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> DriverError {
    let mut code = match status.as_u16() {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::PermissionDenied,
        404 => ErrorCode::NotFound,
        429 => ErrorCode::ResourceExhausted,
        408 | 500..=599 => ErrorCode::Unavailable,
        _ => ErrorCode::InvalidArgument,
    };
    // RFC 6750: the token is good, and not for this.
    let scope = challenges(headers)
        .iter()
        .any(|challenge| challenge.parameter("error") == Some("insufficient_scope"));
    let message = if status == StatusCode::UNAUTHORIZED && scope {
        code = ErrorCode::PermissionDenied;
        "denied: requested access to the resource is denied".into()
    } else {
        registry_message(status, body).unwrap_or_else(|| match status {
            StatusCode::UNAUTHORIZED => "unauthorized: authentication required".into(),
            StatusCode::TOO_MANY_REQUESTS => "toomanyrequests: too many requests".into(),
            _ => format!("unexpected status from {method} request to {uri}: {status}"),
        })
    };
    if message.starts_with("denied:") {
        code = ErrorCode::PermissionDenied;
    }
    let mut error = DriverError::new(code, message);
    if matches!(code, ErrorCode::ResourceExhausted | ErrorCode::Unavailable) {
        error.retry_after = headers
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    }
    error
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    /// Token servers.
    #[serde(default)]
    details: Option<String>,
    /// OAuth2 (RFC 6749).
    #[serde(default)]
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the registry says of itself: `code in words: message`.
fn registry_message(status: StatusCode, body: &[u8]) -> Option<String> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let items: Vec<String> = body
        .errors
        .iter()
        .map(|item| {
            let code = item.code.to_lowercase().replace('_', " ");
            let message = if item.message.is_empty() {
                &code
            } else {
                &item.message
            };
            format!("{code}: {message}")
        })
        .collect();
    match items.as_slice() {
        [] => body
            .details
            .or(body.error_description)
            .map(|text| match status {
                StatusCode::TOO_MANY_REQUESTS => format!("toomanyrequests: {text}"),
                _ => format!("unauthorized: {text}"),
            }),
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n{}\n", many.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> DriverError {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect();
        refused(
            &Method::GET,
            &Uri::from_static("https://r/v2/x/manifests/y"),
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn answers_are_classified() {
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let error = answer(404, &[], unknown);
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(error.message, "manifest unknown: manifest unknown");
        let error = answer(
            401,
            &[(
                "www-authenticate",
                r#"Bearer realm="https://a/t",error="insufficient_scope""#,
            )],
            "",
        );
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        let error = answer(429, &[("retry-after", "7")], "slow down");
        assert_eq!(
            (error.code, error.retry_after),
            (ErrorCode::ResourceExhausted, Some(7))
        );
        assert_eq!(error.message, "toomanyrequests: too many requests");
        let limit =
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#;
        assert_eq!(
            answer(429, &[], limit).message,
            "toomanyrequests: You have reached your limit"
        );
        let error = answer(503, &[], "<html>");
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(
            error.message.ends_with("503 Service Unavailable"),
            "{error}"
        );
        let error = answer(401, &[], r#"{"details":"incorrect username or password"}"#);
        assert_eq!(
            error.message,
            "unauthorized: incorrect username or password"
        );
        assert_eq!(answer(400, &[], "").code, ErrorCode::InvalidArgument);
    }
}
