//! Uploads to a scripted registry: gone on with after a cut, begun anew where nothing was kept, so many at once.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Layout, Recorder, RegistryServer, Service};
use gantry_content::Hasher;
use gantry_image::{PullOptions, PushOptions, Settings, Silent};
use gantry_model::Reference;

/// What the registry has and has seen.
#[derive(Default)]
struct State {
    uploads: BTreeMap<String, Vec<u8>>,
    /// Bytes after which the coming bodies are cut off.
    cuts: Vec<usize>,
    /// Nothing is kept of a cut upload.
    forgetful: bool,
    requests: Vec<String>,
    blobs: usize,
    /// Bodies that are being received, the most at once, and how many are waited for.
    receiving: usize,
    most: usize,
    awaited: usize,
}

/// An upload-only registry.
#[derive(Clone, Default)]
struct Sink {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

impl Sink {
    /// Starts it on a loopback port, which is returned.
    fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let sink = sink.clone();
                std::thread::spawn(move || sink.serve(&client));
            }
        });
        port
    }

    fn serve(&self, client: &TcpStream) {
        let mut input = BufReader::new(client);
        let mut head = Vec::new();
        while !matches!(head.last().map(String::as_str), Some("")) {
            let mut line = String::new();
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let found = head.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then_some(value)
            });
            found.unwrap_or_default().to_owned()
        };
        let length: usize = header("content-length").parse().unwrap_or(0);
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let note = format!("{method} {}", header("content-range"));
        self.state.lock().unwrap().requests.push(note);
        let is_upload = |part: &&str| part.starts_with("up") && *part != "uploads";
        let upload = path.split(['?', '/']).find(is_upload).unwrap_or_default();
        let answer = match method {
            "POST" => self.begin(),
            "PATCH" => self.receive(upload, &header("content-range"), &mut input, length),
            "GET" => self.status(upload),
            "PUT" if path.contains("/blobs/") => self.finish(upload, path),
            "PUT" => {
                std::io::copy(&mut input.take(length as u64), &mut std::io::sink()).unwrap();
                Some("201 Created\r\n".into())
            }
            _ => Some("404 Not Found\r\n".into()),
        };
        if let Some(answer) = answer {
            let text = format!("HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = (&*client).write_all(text.as_bytes());
        }
    }

    fn begin(&self) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        let name = format!("up{}", state.uploads.len());
        state.uploads.insert(name.clone(), Vec::new());
        Some(format!(
            "202 Accepted\r\nLocation: /v2/x/blobs/uploads/{name}\r\n"
        ))
    }

    fn receive(
        &self,
        upload: &str,
        range: &str,
        input: &mut impl Read,
        length: usize,
    ) -> Option<String> {
        let cut = {
            let mut state = self.state.lock().unwrap();
            let first = range.split('-').next().unwrap();
            assert_eq!(first, state.uploads[upload].len().to_string(), "{range}");
            state.receiving += 1;
            state.most = state.most.max(state.receiving);
            self.changed.notify_all();
            let wait = |state: &mut State| state.most < state.awaited;
            let limit = Duration::from_secs(60);
            let mut state = self
                .changed
                .wait_timeout_while(state, limit, wait)
                .unwrap()
                .0;
            state.cuts.pop().map(|cut| cut.min(length))
        };
        let mut body = vec![0; cut.unwrap_or(length)];
        input.read_exact(&mut body).unwrap();
        let mut state = self.state.lock().unwrap();
        state.receiving -= 1;
        if cut.is_some() && state.forgetful {
            return None;
        }
        state.uploads.get_mut(upload).unwrap().extend(body);
        drop(state);
        cut.is_none()
            .then(|| self.status(upload).unwrap().replace("204 No", "202 No"))
    }

    fn status(&self, upload: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        if state.forgetful && state.uploads[upload].is_empty() {
            return Some("404 Not Found\r\n".into());
        }
        let last = state.uploads[upload].len().saturating_sub(1);
        Some(format!(
            "204 No Content\r\nLocation: /v2/x/blobs/uploads/{upload}\r\nRange: 0-{last}\r\n"
        ))
    }

    fn finish(&self, upload: &str, path: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        let mut hasher = Hasher::sha256();
        hasher.update(&state.uploads[upload]);
        let digest = hasher.finish().to_string().replace(':', "%3A");
        assert!(path.ends_with(&digest), "{path}");
        state.blobs += 1;
        Some("201 Created\r\n".into())
    }

    /// How often a method was asked for.
    fn count(&self, method: &str) -> usize {
        let state = self.state.lock().unwrap();
        let of = |request: &&String| request.starts_with(method);
        state.requests.iter().filter(of).count()
    }
}

/// A service with an image of three layers and a configuration, and its name at `sink`.
fn service(sink: &Sink, settings: Settings) -> (Service, Reference) {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let service = Service::with(settings, true);
    let from = Reference::parse(&name).unwrap();
    let options = PullOptions::default();
    service.images.pull(&from, &options, &Silent).unwrap();
    let to = Reference::parse(&format!("127.0.0.1:{}/x:1", sink.start())).unwrap();
    service.images.tag(&name, &to).unwrap();
    (service, to)
}

#[test]
fn a_cut_upload_goes_on_from_what_the_server_has() {
    let sink = Sink::default();
    sink.state.lock().unwrap().cuts = vec![700_000, 200_000, 100_000];
    let settings = Settings {
        max_uploads: 1,
        ..Settings::default()
    };
    let (service, name) = service(&sink, settings);
    let recorder = Recorder::default();
    let options = PushOptions::default();
    service.images.push(&name, &options, &recorder).unwrap();
    assert!(
        recorder.has("Retrying in 1 second"),
        "{:?}",
        recorder.lines()
    );
    let state = sink.state.lock().unwrap();
    assert!(state.cuts.is_empty());
    assert_eq!(
        (state.blobs, state.uploads.len()),
        (4, 4),
        "none was begun anew"
    );
    let ranges: Vec<&String> = state
        .requests
        .iter()
        .filter(|r| r.starts_with("PATCH"))
        .collect();
    assert_eq!(ranges.len(), 7, "{ranges:?}");
    assert!(ranges[1].starts_with("PATCH 100000-"), "{ranges:?}");
    assert!(ranges[2].starts_with("PATCH 300000-"), "{ranges:?}");
    assert!(ranges[3].starts_with("PATCH 1000000-"), "{ranges:?}");
}

#[test]
fn what_the_server_has_not_kept_is_sent_again() {
    let sink = Sink::default();
    {
        let mut state = sink.state.lock().unwrap();
        state.cuts = vec![700_000, 200_000];
        state.forgetful = true;
    }
    let (service, name) = service(&sink, Settings::default());
    let options = PushOptions::default();
    service.images.push(&name, &options, &Silent).unwrap();
    let state = sink.state.lock().unwrap();
    assert_eq!((state.blobs, state.uploads.len()), (4, 6));
}

#[test]
fn so_many_attempts_and_so_many_at_once() {
    let sink = Sink::default();
    sink.state.lock().unwrap().awaited = 2;
    let settings = Settings {
        max_uploads: 2,
        ..Settings::default()
    };
    let (service, name) = service(&sink, settings.clone());
    let options = PushOptions::default();
    service.images.push(&name, &options, &Silent).unwrap();
    assert_eq!(sink.state.lock().unwrap().most, 2);

    // Other settings count from the next operation on.
    let settings = Settings {
        max_uploads: 1,
        max_attempts: 3,
        ..settings
    };
    service.images.reconfigure(Settings {
        retry_base: Duration::from_millis(5),
        ..settings
    });
    let before = sink.count("PATCH");
    {
        let mut state = sink.state.lock().unwrap();
        (state.most, state.awaited) = (0, 0);
        state.forgetful = true;
        state.cuts = vec![1; 9];
    }
    let error = service.images.push(&name, &options, &Silent).unwrap_err();
    assert_eq!(sink.count("PATCH") - before, 3, "{error}");
    assert_eq!(sink.state.lock().unwrap().most, 1);
}
