//! The smallest HTTP client that an engine's API needs, so that what is measured is the engine: one kept connection,
//! bodies of known length or in chunks, and the taking over of a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A kept connection to an engine.
pub(crate) struct Api(BufReader<UnixStream>);

/// The head of an answer.
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Api {
    /// Connects to `unix://...`.
    pub(crate) fn connect(host: &str) -> Result<Self> {
        let path = host.strip_prefix("unix://").context("want a unix socket")?;
        Ok(Self(BufReader::new(UnixStream::connect(path)?)))
    }

    /// A request and its whole answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Vec<u8>)> {
        self.send(method, path, body, "")?;
        let head = self.head()?;
        let mut body = Vec::new();
        if let Some(length) = head.length {
            body.resize(length, 0);
            self.0.read_exact(&mut body)?;
        } else if head.chunked {
            while self.chunk(&mut body)? {}
        }
        Ok((head.status, body))
    }

    /// As [`Self::request`], with an answer in JSON that must be a success.
    pub(crate) fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.request(method, path, body)?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Sends a request whose head comes at once and whose body later; returns when the head is there.
    pub(crate) fn begin(&mut self, method: &str, path: &str) -> Result<()> {
        self.send(method, path, &Value::Null, "")?;
        let head = self.head()?;
        ensure!(
            head.status == 200 && head.chunked,
            "{path}: {}",
            head.status
        );
        Ok(())
    }

    /// The body of what [`Self::begin`] began.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while self.chunk(&mut body)? {}
        Ok(body)
    }

    /// Takes the connection over for a stream.
    pub(crate) fn hijack(mut self, path: &str, body: &Value) -> Result<BufReader<UnixStream>> {
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        self.send("POST", path, body, upgrade)?;
        let head = self.head()?;
        ensure!(head.status == 101, "{path}: {}", head.status);
        Ok(self.0)
    }

    fn send(&mut self, method: &str, path: &str, body: &Value, headers: &str) -> Result<()> {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        let request = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: perf\r\n{kind}{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the engine closed the connection");
        }
        Ok(line.trim_end().to_ascii_lowercase())
    }

    fn head(&mut self) -> Result<Head> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).context("no status")?.parse()?;
        let mut head = Head {
            status,
            length: None,
            chunked: false,
        };
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None => break,
                Some(("content-length", length)) => head.length = Some(length.parse()?),
                Some(("transfer-encoding", "chunked")) => head.chunked = true,
                Some(_) => {}
            }
        }
        Ok(head)
    }

    fn chunk(&mut self, body: &mut Vec<u8>) -> Result<bool> {
        let length = usize::from_str_radix(&self.line()?, 16)?;
        let begin = body.len();
        body.resize(begin + length, 0);
        self.0.read_exact(&mut body[begin..])?;
        self.line()?;
        Ok(length > 0)
    }
}
