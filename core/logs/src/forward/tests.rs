//! Each driver against a receiver that speaks the real protocol.

mod fluentd;
mod gelf;
mod journald;
mod syslog;

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::attrs::tests::{options, subject};

fn message(text: &str, stderr: bool) -> Message {
    Message {
        nanos: 1_500_000_000,
        stderr,
        text: text.into(),
        partial: None,
    }
}

fn driver(name: &str, pairs: &[(&str, &str)]) -> Box<dyn Forwarder> {
    crate::check(name, &options(pairs)).unwrap();
    open(name, &options(pairs), &subject()).unwrap().unwrap()
}

async fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads until `enough` says so.
async fn read_until(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    enough: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !enough(&bytes) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "ended after {}", bytes.escape_ascii());
        bytes.extend_from_slice(&buffer[..read]);
    }
    bytes
}
