//! A forward proxy: tunnels for TLS, absolute requests for plain HTTP. It alone knows where the names lead.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::read_head;

/// The proxy; it listens until the test process ends.
pub struct Proxy {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that knows these `host:port`s and no others, for whoever says `authorization` (all of the header's value).
    pub fn start(names: &[(&str, SocketAddr)], authorization: &'static str) -> Self {
        let names: Vec<_> = names
            .iter()
            .map(|(name, to)| ((*name).to_owned(), *to))
            .collect();
        let names: Arc<[(String, SocketAddr)]> = names.into();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback works");
        let proxy = Self {
            port: listener.local_addr().expect("it is bound").port(),
            lines: Arc::default(),
        };
        let lines = proxy.lines.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (lines, names) = (lines.clone(), names.clone());
                std::thread::spawn(move || pass(client, &names, authorization, &lines));
            }
        });
        proxy
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The first lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One connection, which is for one request.
fn pass(
    client: TcpStream,
    names: &[(String, SocketAddr)],
    authorization: &str,
    lines: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(client);
    let Some((first, headers)) = read_head(&mut reader) else {
        return;
    };
    lines
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(first.clone());
    let shown = headers
        .iter()
        .find(|(name, _)| name == "proxy-authorization");
    if shown.map_or("", |(_, value)| value.as_str()) != authorization {
        return refuse(reader.get_mut(), "407 Proxy Authentication Required");
    }
    let target = first.split(' ').nth(1).unwrap_or_default();
    let target = target.strip_prefix("http://").unwrap_or(target);
    let target = target.split('/').next().unwrap_or_default();
    let known = names.iter().find(|(name, _)| name == target);
    let Some(mut server) = known.and_then(|(_, to)| TcpStream::connect(to).ok()) else {
        return refuse(reader.get_mut(), "502 Bad Gateway");
    };
    if first.starts_with("CONNECT ") {
        let _ = reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    } else {
        let head = rewritten(&first, &headers);
        if server.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
    relay(reader, server);
}

fn refuse(client: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = client.write_all(answer.as_bytes());
}

/// The request as its server expects it, and as the last one of the connection.
fn rewritten(first: &str, headers: &[(String, String)]) -> String {
    let mut words = first.split(' ');
    let (method, url) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        if name != "connection" && !name.starts_with("proxy-") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head + "\r\n"
}

fn relay(mut client: BufReader<TcpStream>, mut server: TcpStream) {
    let mut up = server.try_clone().expect("a descriptor is left");
    let mut down = client.get_ref().try_clone().expect("a descriptor is left");
    let forth = std::thread::spawn(move || {
        let _ = std::io::copy(&mut client, &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut down);
    let _ = down.shutdown(Shutdown::Both);
    let _ = forth.join();
}
