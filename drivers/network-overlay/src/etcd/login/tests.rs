//! Against a store that answers as a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::options::Options;

/// What a question was: its path below `/v3/`, and the token that came with it.
type Question = (String, String);

/// Serves answers; what was asked is kept.
fn store(
    answer: impl Fn(&[Question]) -> (u16, String) + Send + 'static,
) -> (String, Arc<Mutex<Vec<Question>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::io::Result::ok) {
            let mut asked = kept.lock();
            asked.push(question(&stream));
            let (status, body) = answer(&asked);
            let length = body.len();
            let head = "connection: close\r\ncontent-length:";
            write!(
                &stream,
                "HTTP/1.1 {status} -\r\n{head} {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    (url, asked)
}

fn question(stream: &TcpStream) -> Question {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    let first = line();
    let path = first.split(' ').nth(1).unwrap();
    let path = path.strip_prefix("/v3/").unwrap().to_owned();
    let (mut length, mut token) = (0, String::new());
    loop {
        let header = line();
        match header.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                token = value.to_owned();
            }
            Some(_) => {}
            None => break,
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    (path, token)
}

/// A client of a store, with a password that is in a directory.
fn client(url: &str, dir: &Path) -> Etcd {
    let file = dir.join("password");
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let options = json!({"etcd": [url], "user": "u", "password_file": file});
    Etcd::new(&Options::parse(options).unwrap()).unwrap()
}

#[test]
fn a_refusal_is_not_asked_for_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = r#"{"code": 3, "message": "etcdserver: authentication failed"}"#;
    let (url, asked) = store(|_| (400, refusal.into()));
    let etcd = client(&url, dir.path());
    let runtime = crate::cluster::runtime().unwrap();
    for _ in 0..3 {
        let refused = runtime.block_on(etcd.get("k")).unwrap_err();
        assert!(matches!(refused, EtcdError::Denied(_)), "{refused:?}");
    }
    let asked = asked.lock().clone();
    assert_eq!(asked, [("auth/authenticate".into(), String::new())]);
}

/// A store whose first token ends before the watch that it is used for. It tells so as etcd does: in the answer's first
/// message, where questions are refused.
fn ending(asked: &[Question]) -> (u16, String) {
    let (path, token) = asked.last().unwrap();
    let is_watched = asked.iter().any(|(path, _)| path == "watch");
    let is_valid = match token.as_str() {
        "token1" => !is_watched,
        token => token == "token2",
    };
    let why = "etcdserver: invalid auth token";
    match (path.as_str(), is_valid) {
        ("auth/authenticate", _) => {
            let tokens = asked.iter().filter(|(path, _)| path == "auth/authenticate");
            let token = format!("token{}", tokens.count());
            (200, json!({"token": token}).to_string())
        }
        ("watch", true) => {
            let begun = json!({"result": {"header": {"revision": "7"}, "created": true}});
            (200, format!("{begun}\n"))
        }
        ("watch", false) => {
            let ended = json!({"created": true, "canceled": true, "cancel_reason": why});
            (200, format!("{}\n", json!({"result": ended})))
        }
        (_, true) => (200, json!({"header": {"revision": "7"}}).to_string()),
        (_, false) => (401, json!({"code": 16, "message": why}).to_string()),
    }
}

#[test]
fn a_token_that_ends_before_the_watch_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = store(ending);
    let etcd = client(&url, dir.path());
    let runtime = crate::cluster::runtime().unwrap();
    runtime.block_on(etcd.get("k")).unwrap();
    let changes = runtime.block_on(etcd.watch("k/", 7)).unwrap();
    assert_eq!(changes.revision, 7);
    let asked = asked.lock().clone();
    let watches: Vec<_> = asked.iter().filter(|(path, _)| path == "watch").collect();
    let tokens: Vec<_> = watches.iter().map(|(_, token)| token.as_str()).collect();
    assert_eq!(tokens, ["token1", "token2"], "{asked:?}");
}
