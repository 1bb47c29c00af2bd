//! A small HTTP/1.1 server for fixtures, with or without TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::authority::Pair;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; empty without it.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers; the length of the body is added.
    pub headers: Vec<(String, String)>,
    /// The body; not sent to HEAD.
    pub body: Vec<u8>,
}

impl Response {
    /// One without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
    /// With one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// The server; it listens until the test process ends.
pub struct HttpServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl HttpServer {
    /// Answers what comes to `listener` with what `handler` says, by TLS where there is a certificate.
    pub fn start(
        listener: TcpListener,
        tls: Option<&Pair>,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let server = Self {
            address: listener.local_addr().expect("it is bound"),
            seen: Arc::default(),
        };
        let tls = tls.map(config);
        let (seen, handler): (_, Arc<Handler>) = (server.seen.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, handler, tls) = (seen.clone(), handler.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &seen, &*handler),
                    Some(config) => {
                        let connection =
                            ServerConnection::new(config).expect("the configuration is good");
                        serve(StreamOwned::new(connection, stream), &seen, &*handler);
                    }
                });
            }
        });
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn config(pair: &Pair) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .expect("openssl made it");
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("openssl made it");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    Arc::new(config)
}

fn serve(stream: impl Read + Write, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        let response = handler(&request);
        let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
        let has = |name: &str| {
            let mut names = response.headers.iter().map(|(known, _)| known);
            names.any(|known| known.eq_ignore_ascii_case(name))
        };
        if !has("content-length") {
            head += &format!("Content-Length: {}\r\n", response.body.len());
        }
        for (name, value) in &response.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let stream = reader.get_mut();
        let mut sent = stream.write_all(head.as_bytes());
        if request.method != "HEAD" {
            sent = sent.and_then(|()| stream.write_all(&response.body));
        }
        if sent.and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// The next request; `None` at the end, and for what is none.
fn read(reader: &mut impl BufRead) -> Option<Request> {
    let (first, headers) = read_head(reader)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// First line and headers of a request or an answer.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None if first.trim().is_empty() => return None,
            None => return Some((first.trim_end().to_owned(), headers)),
        }
    }
}

/// Asks a server on this machine, with the headers given and no others.
pub fn ask(address: SocketAddr, request: &Request) -> Response {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let mut head = format!(
        "{} {} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        request.method,
        request.target,
        request.body.len()
    );
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "connection" | "content-length") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += "\r\n";
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&request.body))
        .expect("the server reads");
    let mut reader = BufReader::new(stream);
    let (first, headers) = read_head(&mut reader).expect("the server answers");
    let mut body = Vec::new();
    reader
        .read_to_end(&mut body)
        .expect("the server answers to the end");
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    Response {
        status: status.expect("a status"),
        headers: headers
            .into_iter()
            .filter(|(name, _)| name != "transfer-encoding" && name != "connection")
            .collect(),
        body: if chunked { unchunked(&body) } else { body },
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let mut line = String::new();
        body.read_line(&mut line).expect("memory can be read");
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}
