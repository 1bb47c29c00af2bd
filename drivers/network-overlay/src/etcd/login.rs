//! Who this host is for an etcd that has users: a token, had for a name and a password, that goes with every request.
//!
//! The password is read anew each time, so that it can be changed in its file, and is neither kept nor told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{Etcd, EtcdError, Result, collect, decode, encode};

/// How long a refusal holds: etcd takes its time, and a processor, for every try.
const REFUSED: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct AuthenticateRequest {
    name: String,
    password: String,
}

#[derive(Deserialize)]
struct AuthenticateReply {
    token: String,
}

/// What came of the last try.
#[derive(Clone)]
enum Outcome {
    Token(HeaderValue),
    /// etcd has users no more, or not yet.
    Unneeded,
    Refused(Instant, String),
}

/// The user.
pub(super) struct Login {
    name: String,
    file: PathBuf,
    /// Held while a token is asked for, so that it is asked for once.
    last: tokio::sync::Mutex<Option<Outcome>>,
}

impl Login {
    pub(super) fn new(name: &str, file: &Path) -> Self {
        Self {
            name: name.to_owned(),
            file: file.to_owned(),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// The question for a token.
    fn request(&self) -> Result<AuthenticateRequest> {
        let unusable = |why: &dyn std::fmt::Display| {
            EtcdError::Denied(format!("the password file {}: {why}", self.file.display()))
        };
        let about = fs::metadata(&self.file).map_err(|e| unusable(&e))?;
        if about.permissions().mode() & 0o007 != 0 {
            return Err(unusable(
                &"everybody may use it: take the rights of others away",
            ));
        }
        let text = fs::read_to_string(&self.file).map_err(|e| unusable(&e))?;
        let password = text.trim_end_matches(['\n', '\r']);
        match password {
            "" => Err(unusable(&"it is empty")),
            password => Ok(AuthenticateRequest {
                name: self.name.clone(),
                password: password.to_owned(),
            }),
        }
    }
}

impl Outcome {
    /// The token to send, if any; none when another try is due.
    fn usable(&self) -> Option<Result<Option<HeaderValue>>> {
        match self {
            Self::Token(token) => Some(Ok(Some(token.clone()))),
            Self::Unneeded => Some(Ok(None)),
            Self::Refused(when, why) if when.elapsed() < REFUSED => {
                Some(Err(EtcdError::Denied(why.clone())))
            }
            Self::Refused(..) => None,
        }
    }
}

impl Etcd {
    /// The token of this host's user, another one than `stale`; none where there are no users.
    pub(super) async fn token(
        &self,
        endpoint: &str,
        stale: Option<Option<HeaderValue>>,
    ) -> Result<Option<HeaderValue>> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        let mut last = login.last.lock().await;
        match last.as_ref().and_then(Outcome::usable) {
            Some(Ok(token)) if stale.as_ref() != Some(&token) => return Ok(token),
            Some(Err(refused)) => return Err(refused),
            _ => {}
        }
        let asked = async {
            let body = encode(&login.request()?)?;
            let answer = self.post(endpoint, "auth/authenticate", body, None).await?;
            let reply: AuthenticateReply = decode(&collect(answer).await?)?;
            let token = HeaderValue::from_str(&reply.token);
            let mut token = token.map_err(|e| EtcdError::Away(e.to_string()))?;
            token.set_sensitive(true);
            Ok(token)
        };
        let outcome = match asked.await {
            Ok(token) => Outcome::Token(token),
            Err(EtcdError::NotEnabled) => Outcome::Unneeded,
            Err(EtcdError::Refused(why) | EtcdError::Denied(why)) => {
                Outcome::Refused(Instant::now(), why)
            }
            Err(error) => return Err(error),
        };
        let usable = outcome.usable();
        *last = Some(outcome);
        usable.unwrap_or(Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::options::Options;

    /// An etcd that knows nobody; counts who asks for a token.
    fn refusing() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let mut reader = BufReader::new(&stream);
                let (mut first, mut length) = (String::new(), 0);
                reader.read_line(&mut first).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    match line.to_lowercase().strip_prefix("content-length:") {
                        Some(text) => length = text.trim().parse().unwrap(),
                        None if line.trim().is_empty() => break,
                        None => {}
                    }
                }
                reader.read_exact(&mut vec![0; length]).unwrap();
                counted.fetch_add(
                    usize::from(first.contains("authenticate")),
                    Ordering::Relaxed,
                );
                let body = r#"{"code": 3, "message": "etcdserver: authentication failed"}"#;
                let length = body.len();
                let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length:";
                write!(&stream, "{head} {length}\r\n\r\n{body}").unwrap();
            }
        });
        (url, tries)
    }

    #[test]
    fn a_refusal_is_not_asked_for_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "wrong").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let (url, tries) = refusing();
        let options = json!({"etcd": [url], "user": "u", "password_file": file});
        let etcd = Etcd::new(&Options::parse(options).unwrap()).unwrap();
        let runtime = crate::cluster::runtime().unwrap();
        for _ in 0..3 {
            let refused = runtime.block_on(etcd.get("k")).unwrap_err();
            assert!(matches!(refused, EtcdError::Denied(_)), "{refused:?}");
        }
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }
}
