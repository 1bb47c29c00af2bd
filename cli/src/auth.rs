//! Registry credentials: where the user keeps them, and how they travel to the daemon.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use gantry_wire::Reference;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::Request;
use crate::config::Config;

/// The key of Docker Hub's credentials.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The key under which credentials for an image's registry are kept.
pub(crate) fn key_of(image: &Reference) -> &str {
    match image.domain() {
        "docker.io" => HUB_KEY,
        domain => domain,
    }
}

/// Credentials as the API takes them.
pub(crate) fn lookup(config: &Config, key: &str) -> Value {
    let Ok(file) = std::fs::File::open(config.path()) else {
        return json!({});
    };
    match get_credential_from_reader(std::io::BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            json!({"username": username, "password": password, "serveraddress": key})
        }
        Ok(DockerCredential::IdentityToken(token)) => {
            json!({"identitytoken": token, "serveraddress": key})
        }
        Err(CredentialRetrievalError::HelperFailure { stderr, stdout, .. })
            if ![&stdout, &stderr]
                .iter()
                .any(|said| said.contains("credentials not found")) =>
        {
            eprintln!(
                "WARNING: failed to get credentials for {key}: {}",
                stderr.trim()
            );
            json!({})
        }
        Err(_) => json!({}),
    }
}

/// The value of `X-Registry-Auth`.
pub(crate) fn header(credentials: &Value) -> String {
    URL_SAFE.encode(credentials.to_string())
}

/// Adds the credentials that the user keeps for an image's registry.
pub(crate) fn with_credentials<'c>(
    app: &App,
    name: &Reference,
    request: Request<'c>,
) -> Request<'c> {
    let credentials = lookup(app.config(), key_of(name));
    request.header("X-Registry-Auth", header(&credentials))
}

/// The credential helper that keeps `key`, if the configuration names one.
fn helper<'c>(config: &'c Config, key: &str) -> Option<&'c str> {
    let own = config
        .member("credHelpers")
        .and_then(|helpers| helpers.get(key)?.as_str());
    own.or_else(|| config.text("credsStore"))
        .filter(|name| !name.is_empty())
}

/// Whether credentials for `key` would be written as plain text.
pub(crate) fn stored_in_plain(config: &Config, key: &str) -> bool {
    helper(config, key).is_none()
}

/// Keeps credentials, in the helper if there is one.
pub(crate) fn store(
    config: &Config,
    key: &str,
    username: &str,
    secret: &str,
    token: bool,
) -> Result<()> {
    if let Some(name) = helper(config, key) {
        let username = if token { "<token>" } else { username };
        run_helper(
            name,
            "store",
            &json!({"ServerURL": key, "Username": username, "Secret": secret}).to_string(),
        )?;
        return config.update(|values| {
            with_auths(values, |auths| drop(auths.insert(key.into(), json!({}))))
        });
    }
    let value = if token {
        json!({"auth": STANDARD.encode(format!("{username}:")), "identitytoken": secret})
    } else {
        json!({"auth": STANDARD.encode(format!("{username}:{secret}"))})
    };
    config.update(|values| with_auths(values, |auths| drop(auths.insert(key.into(), value))))
}

/// Forgets credentials. Says whether there were any.
pub(crate) fn erase(config: &Config, key: &str) -> Result<bool> {
    let known = config
        .member("auths")
        .is_some_and(|auths| auths.contains_key(key));
    if let Some(name) = helper(config, key) {
        run_helper(name, "erase", key)?;
    }
    if known {
        config.update(|values| with_auths(values, |auths| drop(auths.shift_remove(key))))?;
    }
    Ok(known)
}

/// Edits the plainly kept credentials of `values`.
fn with_auths(values: &mut Map<String, Value>, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut auths = match values.remove("auths") {
        Some(Value::Object(auths)) => auths,
        _ => Map::new(),
    };
    edit(&mut auths);
    values.insert("auths".into(), auths.into());
}

fn run_helper(name: &str, action: &str, input: &str) -> Result<()> {
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow::anyhow!("error saving credentials: error {action} credentials - err: exec: {program:?}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        bail!(
            "error {action} credentials - err: {}, out: `{said}`",
            output.status
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_found_and_can_be_erased() {
        let directory = tempfile::tempdir().unwrap();
        let config = || Config::load(Some(directory.path()));
        store(&config(), "reg.example:5000", "me", "pass:word", false).unwrap();
        store(&config(), HUB_KEY, "hub", "token", true).unwrap();
        let found = lookup(&config(), "reg.example:5000");
        assert_eq!(
            found,
            json!({"username": "me", "password": "pass:word", "serveraddress": "reg.example:5000"})
        );
        assert_eq!(lookup(&config(), HUB_KEY)["identitytoken"], "token");
        assert!(erase(&config(), "reg.example:5000").unwrap());
        assert!(!erase(&config(), "reg.example:5000").unwrap());
        assert_eq!(lookup(&config(), "reg.example:5000"), json!({}));
    }

    #[test]
    fn the_header_is_base64_for_urls() {
        assert_eq!(
            header(&json!({"username": "a?>"})),
            "eyJ1c2VybmFtZSI6ImE_PiJ9"
        );
    }
}
