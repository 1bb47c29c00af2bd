//! A token server as docker-registry's `token` access wants it. Source: distribution's *Token Authentication*.
//!
//! It knows the user `alice`, password `secret`, who may do everything, and the refresh token `refresh-alice` that she gets
//! when she asks for one. Everybody else may pull what is below `public/`.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::authority::{Authority, Pair};
use crate::http::{HttpServer, Request, Response};
use crate::run::run_stdin;

/// `alice:secret` for basic authentication.
pub(crate) const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
/// What she may use instead of her password.
pub(crate) const REFRESH: &str = "refresh-alice";

/// The token server.
pub struct Realm {
    server: HttpServer,
    authority: PathBuf,
}

impl Realm {
    /// Starts one whose key is signed by `authority`.
    pub fn start(authority: &Authority) -> Self {
        let pair = authority.sign("tokens", &[]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback works");
        Self {
            server: HttpServer::start(listener, None, move |request| answer(request, &pair)),
            authority: authority.certificate(),
        }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.server.seen()
    }

    /// docker-registry's configuration of it.
    pub(crate) fn configuration(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://{}/token\n    service: test\n    issuer: tests\n    rootcertbundle: {}\n",
            self.server.address(),
            self.authority.display()
        )
    }
}

/// The parameters of a request for a token, wherever they are.
pub(crate) fn parameters(request: &Request) -> Vec<(String, String)> {
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    let body = String::from_utf8_lossy(&request.body);
    let all = [query, body.as_ref()].join("&");
    let pairs = all.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Who asks: `None` for wrong credentials, an empty name for nobody.
pub(crate) fn who(request: &Request) -> Option<&'static str> {
    let refresh = parameters(request)
        .into_iter()
        .find(|(name, _)| name == "refresh_token");
    match (request.header("authorization"), refresh) {
        (_, Some((_, token))) => (token == REFRESH).then_some("alice"),
        ("", None) => Some(""),
        (ALICE, None) => Some("alice"),
        _ => None,
    }
}

/// What may be done with each repository that is asked for: type, name and actions.
pub(crate) fn granted(user: &str, parameters: &[(String, String)]) -> Vec<Value> {
    let scopes = parameters.iter().filter(|(name, _)| name == "scope");
    scopes
        .flat_map(|(_, scopes)| scopes.split(' '))
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let may =
                |action: &str| user == "alice" || (action == "pull" && name.starts_with("public/"));
            let actions: Vec<&str> = actions.split(',').filter(|action| may(action)).collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect()
}

fn answer(request: &Request, pair: &Pair) -> Response {
    let Some(user) = who(request) else {
        return Response::new(401, r#"{"details":"incorrect username or password"}"#);
    };
    let parameters = parameters(request);
    let token = signed(user, &granted(user, &parameters), pair);
    let mut reply = json!({"token": token, "access_token": token, "expires_in": 300});
    let wants = |wanted: &str| {
        parameters
            .iter()
            .any(|(name, value)| name == wanted && value == "true")
    };
    if user == "alice" && wants("offline_token") {
        reply["refresh_token"] = REFRESH.into();
    }
    Response::new(200, reply.to_string()).with("Content-Type", "application/json")
}

/// A JSON web token, signed as the registry's `rootcertbundle` can check it (RFC 7519, ES256).
fn signed(user: &str, access: &[Value], pair: &Pair) -> String {
    let pem = fs::read_to_string(&pair.certificate).expect("openssl made it");
    let certificate: String = pem.lines().filter(|line| !line.contains("---")).collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later")
        .as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
    let claims = json!({"iss": "tests", "sub": user, "aud": "test", "iat": now - 10, "nbf": now - 10, "exp": now + 300,
                        "jti": "1", "access": access});
    let unsigned = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.to_string().as_bytes())
    );
    let input = run_stdin(
        "sh",
        &[
            "-c",
            "openssl dgst -sha256 -sign \"$1\" | od -An -v -tx1",
            "sh",
            &pair.key.display().to_string(),
        ],
        &[],
        unsigned.as_bytes(),
    );
    let der: Vec<u8> = input
        .ok()
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("od prints hex"))
        .collect();
    format!("{unsigned}.{}", base64(&raw(&der)))
}

/// The two numbers of an ECDSA signature, 32 bytes each, from their DER sequence.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &der[2..];
    while let [2, length, tail @ ..] = rest {
        let (number, after) = tail.split_at(usize::from(*length));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        rest = after;
    }
    out
}

/// Base64 for URLs, without padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = 0u32;
        for at in 0..3 {
            word = word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..=chunk.len() {
            let index = word >> (18 - 6 * at) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}
