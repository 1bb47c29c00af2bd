//! What behaves like Docker Hub: names, token server, `library/`, search, limits, blobs on another host.
//!
//! It serves the real names on port 443 of a loopback address of its own; an engine finds it there by [`Hub::hosts`] and
//! trusts it by [`Hub::config_dir`]. Manifests and blobs are those of a docker-registry behind it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::authority::Authority;
use crate::fixture::free_port;
use crate::http::{HttpServer, Request, Response, ask};
use crate::registry::Registry;
use crate::token;

const REGISTRY: &str = "registry-1.docker.io";
const TOKENS: &str = "auth.docker.io";
const INDEX: &str = "index.docker.io";
const CDN: &str = "production.cloudflare.docker.com";
/// Pulls in six hours.
const LIMIT: u64 = 100;

/// The fixture.
pub struct Hub {
    registry: Registry,
    server: HttpServer,
    dir: tempfile::TempDir,
    left: Arc<AtomicU64>,
}

impl Hub {
    /// Starts it, empty.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::new(&dir.path().join("authority"));
        let names = [REGISTRY, TOKENS, INDEX, CDN].map(|name| format!("DNS:{name}"));
        let pair = authority.sign("hub", &names.each_ref().map(String::as_str));
        let trusted = dir.path().join("certs.d/docker.io");
        std::fs::create_dir_all(&trusted)
            .and_then(|()| std::fs::copy(authority.certificate(), trusted.join("ca.crt")))
            .expect("a temporary directory is writable");
        let registry = Registry::start();
        let left = Arc::new(AtomicU64::new(LIMIT));
        let behind = SocketAddr::from(([127, 0, 0, 1], registry.port()));
        let counter = left.clone();
        let server = HttpServer::start(own_address(), Some(&pair), move |request| {
            match request.header("host") {
                REGISTRY => registry_answer(request, behind, &counter),
                TOKENS => token_answer(request),
                INDEX => search_answer(request),
                CDN => cdn_answer(request, behind),
                _ => Response::new(421, ""),
            }
        });
        Self {
            registry,
            server,
            dir,
            left,
        }
    }

    /// The docker-registry behind it, to put images into.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
    /// Contents of `/etc/hosts` that lead here.
    pub fn hosts(&self) -> String {
        let address = self.server.address().ip();
        format!("127.0.0.1 localhost\n{address} {REGISTRY} {TOKENS} {INDEX} {CDN}\n")
    }
    /// A `registry-config-dirs` that trusts it.
    pub fn config_dir(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }
    /// All requests so far to one of its hosts.
    pub fn seen(&self, host: &str) -> Vec<Request> {
        let all = self.server.seen().into_iter();
        all.filter(|request| request.header("host") == host)
            .collect()
    }
    /// Sets how many pulls are left.
    pub fn allow(&self, pulls: u64) {
        self.left.store(pulls, Ordering::SeqCst);
    }
}

/// Port 443 of a loopback address that no other test uses.
fn own_address() -> TcpListener {
    loop {
        let [high, low] = free_port().to_be_bytes();
        let address = Ipv4Addr::new(127, 77, high, low);
        if let Ok(listener) = TcpListener::bind((address, 443)) {
            return listener;
        }
    }
}

/// Tokens say who asked and for what: nobody needs to check a signature here.
fn token_answer(request: &Request) -> Response {
    let Some(user) = token::who(request) else {
        return Response::new(401, r#"{"details":"incorrect username or password"}"#);
    };
    let parameters = token::parameters(request);
    let access: Vec<Value> = token::granted("alice", &parameters)
        .into_iter()
        .filter(|access| {
            user == "alice"
                || access["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("library/"))
        })
        .collect();
    let value = token::base64(
        json!({"user": user, "access": access})
            .to_string()
            .as_bytes(),
    );
    let mut reply = json!({"token": value, "expires_in": 300, "issued_at": "2026-01-01T00:00:00Z"});
    if user == "alice" && parameters.iter().any(|(name, _)| name == "offline_token") {
        reply["refresh_token"] = token::REFRESH.into();
    }
    Response::new(200, reply.to_string()).with("Content-Type", "application/json")
}

/// Path of a repository and what is asked of it.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/tags/"]
        .iter()
        .find_map(|what| {
            let at = rest.find(what)?;
            Some((&rest[..at], *what, &rest[at + what.len()..]))
        })
}

fn registry_answer(request: &Request, behind: SocketAddr, left: &AtomicU64) -> Response {
    let (name, what, which) = parts(request.path()).unwrap_or(("", "", ""));
    let writes = !matches!(request.method.as_str(), "GET" | "HEAD");
    let action = if writes { "push" } else { "pull" };
    let authorization = request.header("authorization");
    let known = authorization.strip_prefix("Bearer ");
    let allowed = known.is_some_and(|token| name.is_empty() || may(token, name, action));
    if !allowed {
        return challenge(name, action, known.is_some());
    }
    match (what, request.method.as_str()) {
        ("/manifests/", "GET" | "HEAD") => manifest(request, behind, left),
        ("/blobs/", "GET") => Response::new(307, "").with(
            "Location",
            format!("https://{CDN}/registry-v2/{name}/{which}?signature=1"),
        ),
        _ => own_words(ask(behind, request), behind),
    }
}

/// Redirects of the registry behind, as this one's own.
fn own_words(mut response: Response, behind: SocketAddr) -> Response {
    for (name, value) in &mut response.headers {
        if name == "location" {
            for own in [REGISTRY, &behind.to_string()] {
                *value = value.replace(&format!("http://{own}/"), &format!("https://{REGISTRY}/"));
            }
        }
    }
    response
}

/// Whether a token permits an action: it holds its claims as they are.
fn may(token: &str, name: &str, action: &str) -> bool {
    let Some(claims) = unbase64(token).and_then(|text| serde_json::from_slice::<Value>(&text).ok())
    else {
        return false;
    };
    let access = claims["access"].as_array().cloned().unwrap_or_default();
    access.iter().any(|access| {
        let actions = access["actions"].as_array().cloned().unwrap_or_default();
        access["name"] == name && actions.iter().any(|known| known == action)
    })
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let (mut out, mut word, mut bits) = (Vec::new(), 0u32, 0);
    for c in text.bytes() {
        word = word << 6 | u32::from(digit(c)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits & 0xff) as u8);
        }
    }
    Some(out)
}

fn challenge(name: &str, action: &str, insufficient: bool) -> Response {
    let actions = if action == "push" {
        "pull,push"
    } else {
        "pull"
    };
    let mut value =
        format!("Bearer realm=\"https://{TOKENS}/token\",service=\"registry.docker.io\"");
    if !name.is_empty() {
        value += &format!(",scope=\"repository:{name}:{actions}\"");
    }
    if insufficient {
        value += ",error=\"insufficient_scope\"";
    }
    let body =
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
    Response::new(401, body).with("WWW-Authenticate", value)
}

/// Only what fetches a manifest counts.
fn manifest(request: &Request, behind: SocketAddr, left: &AtomicU64) -> Response {
    if request.method == "GET" {
        let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        if spent.is_err() {
            let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
            return Response::new(429, body).with("Retry-After", "21600");
        }
    }
    ask(behind, request)
        .with("RateLimit-Limit", format!("{LIMIT};w=21600"))
        .with(
            "RateLimit-Remaining",
            format!("{};w=21600", left.load(Ordering::SeqCst)),
        )
        .with("Docker-RateLimit-Source", "192.0.2.1")
}

/// A signed URL is all that it takes; whoever brings a token along has leaked it.
fn cdn_answer(request: &Request, behind: SocketAddr) -> Response {
    if !request.header("authorization").is_empty() || !request.target.contains("signature=1") {
        return Response::new(400, "credentials have no business here");
    }
    let rest = request.path().trim_start_matches("/registry-v2/");
    let (name, digest) = rest.rsplit_once('/').unwrap_or_default();
    ask(
        behind,
        &Request {
            target: format!("/v2/{name}/blobs/{digest}"),
            ..request.clone()
        },
    )
}

fn search_answer(request: &Request) -> Response {
    let parameters = token::parameters(request);
    let value = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map_or("", |(_, value)| value.as_str())
    };
    if request.path() != "/v1/search" {
        return Response::new(404, "");
    }
    let results = [
        json!({"name": "busybox", "description": "Busybox base image.", "star_count": 3421, "is_official": true, "is_automated": false}),
        json!({"name": "someone/busybox", "description": "Another one", "star_count": 7, "is_official": false, "is_automated": false}),
    ];
    let most: usize = value("n").parse().unwrap_or(25);
    let found: Vec<&Value> = results
        .iter()
        .filter(|result| {
            result["name"]
                .as_str()
                .is_some_and(|name| name.contains(value("q")))
        })
        .take(most)
        .collect();
    let body = json!({"query": value("q"), "num_results": found.len(), "num_pages": 1, "page": 1, "page_size": most, "results": found});
    Response::new(200, body.to_string()).with("Content-Type", "application/json")
}
