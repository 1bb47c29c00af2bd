//! What most tests do with the docker CLI.

use serde_json::Value;

use crate::{Done, Engine};

/// Runs the docker CLI with the words of a line.
pub fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split(' ').collect::<Vec<_>>())
}

/// What `docker inspect` tells of an object.
#[track_caller]
pub fn inspect(engine: &Engine, name: &str) -> Value {
    let all = engine.docker(&["inspect", name]).ok();
    let mut all: Value = serde_json::from_str(&all).expect("docker prints JSON");
    all[0].take()
}
