//! What keeps containers from each other and from the host, looked at from inside.

mod devices;
mod namespaces;
mod process;
mod userns;

use gantry_e2e::{Done, Engine};

/// Runs a script in a new container.
#[track_caller]
fn sh(engine: &Engine, options: &[&str], script: &str) -> Done {
    let mut line = vec!["run", "--rm", "--network", "none"];
    line.extend(options);
    line.extend(["busybox", "sh", "-c", script]);
    engine.docker(&line)
}

/// Creates and starts a container through the API, which knows more modes than the docker CLI lets through.
#[track_caller]
fn start(engine: &Engine, name: &str, host_config: &str) {
    let body =
        format!(r#"{{"Image":"busybox","Cmd":["sleep","600"],"HostConfig":{{{host_config}}}}}"#);
    let path = format!("/containers/create?name={name}");
    let (code, text) = engine.api("POST", &path, Some(&body));
    assert_eq!(code, 201, "{text}");
    let (code, text) = engine.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(code, 204, "{text}");
}

/// Creating such a container is refused with this status and these words.
#[track_caller]
fn refused(engine: &Engine, host_config: &str, status: u16, words: &str) {
    let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{{host_config}}}}}"#);
    let (code, text) = engine.api("POST", "/containers/create", Some(&body));
    assert!(code == status && text.contains(words), "{code} {text}");
}
