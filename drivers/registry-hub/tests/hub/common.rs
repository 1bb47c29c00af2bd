//! A scripted HTTP server, and a driver to point at it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gantry_plugin_sdk::registry::{Credentials, Endpoint, GetManifest, Repository};
use gantry_plugin_sdk::{DriverConfig, Log};
use gantry_registry_hub::Hub;

/// What a request was.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `GET /path?query`.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to answer: status, headers, body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers every request with what `script` says.
    pub(crate) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
        };
        let (seen, script) = (server.seen.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(&stream, &seen, &*script));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn endpoint(&self, credentials: Credentials) -> Endpoint {
        Endpoint {
            domain: format!("127.0.0.1:{}", self.port),
            url: self.url(),
            credentials,
            ..Endpoint::default()
        }
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Seen>>, script: &dyn Fn(&Seen) -> Answer) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {}
            // TLS, most likely.
            Err(_) => {
                let mut stream = stream;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                return;
            }
        }
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = Seen {
            line: line.trim_end_matches(" HTTP/1.1\r\n").to_owned(),
            headers,
            body: String::from_utf8(body).unwrap(),
        };
        seen.lock().unwrap().push(request.clone());
        let (status, headers, body) = script(&request);
        let mut text = format!("HTTP/1.1 {status} Status\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut stream = stream;
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
        if !request.line.starts_with("HEAD") && stream.write_all(&body).is_err() {
            return;
        }
    }
}

pub(crate) fn hub() -> Hub {
    let config = DriverConfig {
        name: "hub".into(),
        root: "/nonexistent".into(),
        run: "/nonexistent".into(),
        tag: "00000000".into(),
        options: gantry_plugin_sdk::serde_json::json!({}),
    };
    Hub::new(config, Log::none()).unwrap()
}

pub(crate) fn manifest(endpoint: Endpoint, repository: &str) -> GetManifest {
    GetManifest {
        at: Repository {
            endpoint,
            repository: repository.into(),
        },
        reference: "latest".into(),
    }
}

pub(crate) fn user(name: &str, password: &str) -> Credentials {
    Credentials {
        username: name.into(),
        password: password.into(),
        ..Credentials::default()
    }
}
