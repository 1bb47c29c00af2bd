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
mod tests;
