//! A server that has its answers ready. Clients of it show what they need for themselves.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

/// The version that the benchmark's clients speak.
const VERSION: &str = "/v1.41";

/// Bodies by path, without version and query.
pub(crate) type Answers = HashMap<String, Vec<u8>>;

/// Serves answers as long as this program runs; where, for `DOCKER_HOST`.
pub(crate) fn serve(dir: &Path, answers: Answers) -> Result<String> {
    let path = dir.join("canned.sock");
    let listener = UnixListener::bind(&path)?;
    let answers = Arc::new(answers);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // A client that leaves early is no matter.
            std::thread::spawn(move || drop(converse(connection, &answers)));
        }
    });
    Ok(format!("unix://{}", path.display()))
}

fn converse(connection: UnixStream, answers: &Answers) -> Result<()> {
    let mut requests = BufReader::new(connection);
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        // Nobody asks with a body.
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            requests.read_line(&mut line)?;
        }
        answer(requests.get_mut(), &first, answers)?;
    }
}

fn answer(out: &mut UnixStream, first: &str, answers: &Answers) -> Result<()> {
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = path.split('?').next().unwrap_or("");
    let path = path.strip_prefix(VERSION).unwrap_or(path);
    let (status, body) = match answers.get(path) {
        Some(body) => ("200 OK", body.as_slice()),
        None if path == "/_ping" => ("200 OK", &b"OK"[..]),
        None => ("404 Not Found", &b"{}"[..]),
    };
    write!(
        out,
        "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        out.write_all(body)?;
    }
    Ok(())
}
