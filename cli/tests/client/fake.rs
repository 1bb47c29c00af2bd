//! A daemon that follows a script: it notes what it is asked and answers what the test says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the version.
    pub(crate) path: String,
    pub(crate) version: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `POST /containers/create`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What the script has to answer with.
pub(crate) struct Peer<'a> {
    pub(crate) stream: &'a mut UnixStream,
    pub(crate) daemon: &'a Seen,
}

impl Peer<'_> {
    pub(crate) fn reply(&mut self, status: u16, body: &str) {
        let head = format!(
            "HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.write(format!("{head}{body}").as_bytes());
    }

    /// Takes the connection over, as for attach and exec.
    pub(crate) fn upgrade(&mut self) {
        self.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
    }

    pub(crate) fn chunked(&mut self, content_type: &str) {
        self.write(
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
        );
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8]) {
        self.write(format!("{:x}\r\n", bytes.len()).as_bytes());
        self.write(bytes);
        self.write(b"\r\n");
    }

    pub(crate) fn end_chunks(&mut self) {
        self.write(b"0\r\n\r\n");
    }

    /// A whole chunked reply of lines.
    pub(crate) fn lines(&mut self, lines: &[&str]) {
        self.chunked("application/json");
        for line in lines {
            self.chunk(format!("{line}\r\n").as_bytes());
        }
        self.end_chunks();
    }

    /// A frame of multiplexed output.
    pub(crate) fn frame(&mut self, stream: u8, payload: &[u8]) {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        self.write(&frame);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // A client that has gone away is for the test to notice.
        let _ = self.stream.write_all(bytes);
    }

    /// Breaks the connection off.
    pub(crate) fn hang_up(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Everything until the client closes its side.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }
}

type Script = dyn Fn(&Request, &mut Peer<'_>) + Send + Sync;

#[derive(Default)]
struct State {
    seen: Vec<Request>,
    connections: usize,
}

/// What the daemon was asked so far. Threads that serve have no more of it: they outlive the test.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<(Mutex<State>, Condvar)>);

/// The daemon; gone when dropped, but for threads that still serve.
pub(crate) struct Daemon {
    home: tempfile::TempDir,
    seen: Seen,
}

/// Ample for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(20);

impl Daemon {
    pub(crate) fn start(script: impl Fn(&Request, &mut Peer<'_>) + Send + Sync + 'static) -> Self {
        let daemon = Self {
            home: tempfile::tempdir().unwrap(),
            seen: Seen::default(),
        };
        let listener = UnixListener::bind(daemon.socket()).unwrap();
        let (served, script): (_, Arc<Script>) = (daemon.seen.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, script) = (served.clone(), script.clone());
                std::thread::spawn(move || seen.serve(stream.unwrap(), &*script));
            }
        });
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("sock")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// The client under test, with an empty home and this daemon.
    pub(crate) fn client(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command.args(line.split_whitespace());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", self.home())
            .env("TZ", "UTC")
            .env("TERM", "xterm");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Done {
        Done::from(self.client(line).output().unwrap())
    }
}

impl Seen {
    fn serve(&self, mut stream: UnixStream, script: &Script) {
        self.0.0.lock().unwrap().connections += 1;
        while let Some(request) = read_request(&mut stream) {
            self.0.0.lock().unwrap().seen.push(request.clone());
            self.0.1.notify_all();
            script(
                &request,
                &mut Peer {
                    stream: &mut stream,
                    daemon: self,
                },
            );
            if request.header("upgrade").is_some() {
                return;
            }
        }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.0.0.lock().unwrap().seen.clone()
    }

    pub(crate) fn seen_lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.0.lock().unwrap().connections
    }

    /// Waits for a request whose path ends like this.
    pub(crate) fn wait_for(&self, path_end: &str) -> Request {
        let found = |state: &mut State| {
            !state
                .seen
                .iter()
                .any(|request| request.path.ends_with(path_end))
        };
        let guard = self.0.0.lock().unwrap();
        let (state, timeout) = self.0.1.wait_timeout_while(guard, PATIENCE, found).unwrap();
        assert!(!timeout.timed_out(), "no request for {path_end}");
        state
            .seen
            .iter()
            .find(|request| request.path.ends_with(path_end))
            .unwrap()
            .clone()
    }
}

impl std::ops::Deref for Daemon {
    type Target = Seen;

    fn deref(&self) -> &Seen {
        &self.seen
    }
}

/// What a client left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let mut reader = BufReader::with_capacity(1, &mut *stream);
    let mut lines = VecDeque::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push_back(line.to_owned()),
        }
    }
    let first = lines.pop_front()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (version, path) = match path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((version, rest)) if version.starts_with('1') => {
            (version.to_owned(), format!("/{rest}"))
        }
        _ => (String::new(), path.to_owned()),
    };
    let headers: Vec<(String, String)> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                break;
            }
        }
    } else {
        body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
    }
    let query = query.to_owned();
    Some(Request {
        method,
        path,
        version,
        query,
        headers,
        body,
    })
}

/// A script for the life of one container: attach shows `output`, wait ends with `code`.
pub(crate) fn container(
    output: fn(&mut Peer<'_>),
    code: i32,
) -> impl Fn(&Request, &mut Peer<'_>) + Send + Sync {
    move |request, peer| match request.path.rsplit('/').next() {
        Some("create") => peer.reply(201, r#"{"Id":"abc123","Warnings":[]}"#),
        Some("attach") => {
            peer.upgrade();
            peer.daemon.wait_for("/start");
            output(peer);
        }
        Some("wait") => {
            peer.chunked("application/json");
            peer.daemon.wait_for("/start");
            peer.chunk(format!("{{\"StatusCode\":{code}}}").as_bytes());
            peer.end_chunks();
        }
        Some("start" | "resize" | "kill") => peer.reply(204, ""),
        _ => peer.reply(404, r#"{"message":"page not found"}"#),
    }
}

#[test]
fn nothing_is_left_of_a_daemon() {
    let daemon = Daemon::start(|_, peer| peer.reply(404, r#"{"message":"page not found"}"#));
    let home = daemon.home();
    daemon.run("ps");
    assert!(!daemon.seen().is_empty());
    drop(daemon);
    assert!(!home.exists());
}
