//! The API without a client in between: connections that are taken over, and streams of JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::Engine;

/// Longer than any answer of a working engine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection after its answer's head.
pub struct Taken {
    /// Status and headers, in lower case.
    pub head: String,
    stream: BufReader<UnixStream>,
}

/// Sends a request on a connection of its own and reads the head of the answer.
#[track_caller]
pub fn ask(engine: &Engine, method: &str, path: &str, headers: &str, body: &Value) -> Taken {
    let mut stream = UnixStream::connect(engine.socket()).expect("the engine listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has timeouts");
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let count = stream.read_line(&mut head).expect("a head");
        assert!(count > 0, "the engine hung up after {head:?}");
    }
    Taken {
        head: head.to_ascii_lowercase(),
        stream,
    }
}

/// Takes a connection over, as attach and exec do.
#[track_caller]
pub fn upgrade(engine: &Engine, path: &str, body: &Value) -> Taken {
    let headers = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    let taken = ask(engine, "POST", path, headers, body);
    assert!(taken.head.starts_with("http/1.1 101"), "{}", taken.head);
    taken
}

impl Taken {
    /// Sends input.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("it is taken");
    }

    /// Ends the input, not the output.
    pub fn half_close(&mut self) {
        let stream = self.stream.get_ref();
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("the engine is there");
    }

    /// Bare bytes, until there are `until` at the end.
    #[track_caller]
    pub fn read_until(&mut self, until: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(until.as_bytes()) {
            let mut byte = [0];
            let count = self.stream.read(&mut byte).expect("output");
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&got));
            got.push(byte[0]);
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Bare bytes to the end.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("output");
        rest
    }

    /// The next frame's stream (1, 2) and payload; `None` at the end.
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 8];
        if self.stream.read(&mut head[..1]).expect("output") == 0 {
            return None;
        }
        self.stream.read_exact(&mut head[1..]).expect("a header");
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).expect("a payload");
        Some((head[0], payload))
    }

    /// Everything that is framed as standard output and as standard error, to the end.
    #[track_caller]
    pub fn frames(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((stream, payload)) = self.frame() {
            if stream == 1 { &mut out } else { &mut err }.extend(payload);
        }
        (out, err)
    }

    /// The next piece of a chunked body; `None` at the end.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.stream.read_line(&mut size).expect("a chunk");
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).expect("a chunk");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// As [`Self::chunk`] where every piece is a line, without its end.
    #[track_caller]
    pub fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = self.chunk()?;
        assert_eq!(line.pop(), Some(b'\n'));
        Some(line)
    }
}
