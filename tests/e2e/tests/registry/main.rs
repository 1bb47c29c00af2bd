//! Registries: how the engine gets in, whom it asks, what it makes of the answers.

mod auth;
mod hub;
mod look;
mod mirrors;
mod proxies;
mod tls;

use gantry_e2e::{Done, Engine, Options};
use serde_json::Value;

/// An engine with a configuration file and the image `box:1`.
fn engine(config: Value) -> Engine {
    let engine = Engine::with(Options {
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("box:1");
    engine
}

/// Gives the image `box:1` another name and pushes it; returns the digest that the client was told.
fn push(engine: &Engine, name: &str) -> String {
    engine.docker(&["tag", "box:1", name]).ok();
    digest_in(&engine.docker(&["push", name]).ok())
}

/// The digest in a client's last words about a pull or push.
fn digest_in(text: &str) -> String {
    let at = text
        .find("sha256:")
        .unwrap_or_else(|| panic!("no digest in {text}"));
    text[at..at + 71].to_owned()
}

/// Forgets an image with all its names.
fn forget(engine: &Engine, name: &str) -> Done {
    let id = engine.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    engine.docker(&["rmi", "-f", &id])
}
