//! Swarm's endpoints and those of managed plugins, as an engine outside a swarm and without plugins answers them.

use gantry_e2e::{Engine, Options};

const NOT_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                           connect this node to swarm and try again.";

/// What dockerd 20.10 says, except where noted: method, path, body, status, words (all of `NOT_MANAGER` for `-`).
const ANSWERS: &[(&str, &str, Option<&str>, u16, &str)] = &[
    ("GET", "/swarm", None, 503, "-"),
    ("GET", "/swarm/unlockkey", None, 503, "-"),
    (
        "POST",
        "/swarm/unlock",
        None,
        400,
        "got EOF while reading request body",
    ),
    ("POST", "/swarm/unlock", Some("{}"), 503, "-"),
    (
        "POST",
        "/swarm/update?version=1",
        None,
        400,
        "got EOF while reading request body",
    ),
    (
        "POST",
        "/swarm/update",
        Some("{}"),
        400,
        "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax",
    ),
    ("POST", "/swarm/update?version=1", Some("{}"), 503, "-"),
    (
        "POST",
        "/swarm/leave",
        None,
        503,
        "This node is not part of a swarm",
    ),
    (
        "POST",
        "/swarm/leave?force=1",
        None,
        503,
        "This node is not part of a swarm",
    ),
    (
        "POST",
        "/swarm/join",
        Some("{}"),
        400,
        "invalid ListenAddr \"\": invalid empty address",
    ),
    (
        "POST",
        "/swarm/init",
        Some("{\"ListenAddr\":1}"),
        400,
        "json: cannot unmarshal number into Go struct field",
    ),
    // Here Docker would make a swarm.
    (
        "POST",
        "/swarm/init",
        Some("{\"ListenAddr\":\"0.0.0.0:2377\"}"),
        501,
        "this engine does not take part in swarms",
    ),
    ("GET", "/swarm/xyz", None, 404, "page not found"),
    ("GET", "/nodes", None, 503, "-"),
    ("PUT", "/nodes", None, 404, "page not found"),
    ("GET", "/nodes/abc", None, 503, "-"),
    ("DELETE", "/nodes/abc", None, 503, "-"),
    (
        "POST",
        "/nodes/abc/update?version=x",
        Some("{}"),
        400,
        "invalid node version 'x': strconv.ParseUint",
    ),
    ("POST", "/nodes/abc/update?version=1", Some("{}"), 503, "-"),
    ("GET", "/services", None, 503, "-"),
    (
        "POST",
        "/services/create",
        None,
        400,
        "got EOF while reading request body",
    ),
    ("POST", "/services/create", Some("{}"), 503, "-"),
    ("GET", "/services/abc", None, 503, "-"),
    ("DELETE", "/services/abc", None, 503, "-"),
    (
        "POST",
        "/services/abc/update",
        Some("{}"),
        400,
        "invalid service version ''",
    ),
    (
        "POST",
        "/services/abc/update?version=1",
        Some("{}"),
        503,
        "-",
    ),
    (
        "GET",
        "/services/abc/logs",
        None,
        500,
        "Bad parameters: you must choose at least one stream",
    ),
    ("GET", "/services/abc/logs?stdout=1", None, 503, "-"),
    ("GET", "/tasks", None, 503, "-"),
    ("GET", "/tasks/abc", None, 503, "-"),
    (
        "GET",
        "/tasks/abc/logs",
        None,
        500,
        "Bad parameters: you must choose at least one stream",
    ),
    ("GET", "/tasks/abc/logs?stderr=1", None, 503, "-"),
    ("GET", "/secrets", None, 503, "-"),
    ("POST", "/secrets/create", Some("{}"), 503, "-"),
    ("GET", "/secrets/abc", None, 503, "-"),
    ("DELETE", "/secrets/abc", None, 503, "-"),
    (
        "POST",
        "/secrets/abc/update?version=x",
        Some("{}"),
        400,
        "invalid secret version",
    ),
    (
        "POST",
        "/secrets/abc/update?version=1",
        Some("{}"),
        503,
        "-",
    ),
    ("GET", "/configs", None, 503, "-"),
    ("POST", "/configs/create", Some("{}"), 503, "-"),
    ("GET", "/configs/abc", None, 503, "-"),
    ("DELETE", "/configs/abc", None, 503, "-"),
    (
        "POST",
        "/configs/abc/update",
        Some("{}"),
        400,
        "invalid config version",
    ),
    (
        "POST",
        "/configs/abc/update?version=1",
        Some("{}"),
        503,
        "-",
    ),
    ("GET", "/v1.24/secrets", None, 503, "-"),
    ("GET", "/plugins", None, 200, "[]"),
    (
        "GET",
        "/plugins?filters=%7B%22capability%22%3A%5B%22x%22%5D%7D",
        None,
        200,
        "[]",
    ),
    (
        "GET",
        "/plugins?filters=%7B%22x%22%3A%5B%22y%22%5D%7D",
        None,
        400,
        "nvalid filter 'x'",
    ),
    ("GET", "/plugins/abc", None, 404, "page not found"),
    (
        "GET",
        "/plugins/abc/json",
        None,
        404,
        "plugin \"abc\" not found",
    ),
    (
        "GET",
        "/plugins/a/b:c/json",
        None,
        404,
        "plugin \"a/b:c\" not found",
    ),
    (
        "DELETE",
        "/plugins/a/b?force=1",
        None,
        404,
        "plugin \"a/b\" not found",
    ),
    (
        "POST",
        "/plugins/abc/enable",
        None,
        500,
        "strconv.Atoi: parsing \"\": invalid syntax",
    ),
    (
        "POST",
        "/plugins/a/b/enable?timeout=1",
        None,
        404,
        "plugin \"a/b\" not found",
    ),
    (
        "POST",
        "/plugins/abc/disable",
        None,
        404,
        "plugin \"abc\" not found",
    ),
    (
        "POST",
        "/plugins/abc/push",
        None,
        404,
        "plugin \"abc\" not found",
    ),
    (
        "POST",
        "/plugins/abc/set",
        None,
        400,
        "got EOF while reading request body",
    ),
    (
        "POST",
        "/plugins/abc/set",
        Some("{}"),
        400,
        "cannot unmarshal object into Go value of type",
    ),
    (
        "POST",
        "/plugins/abc/set",
        Some("[\"a=b\"]"),
        404,
        "plugin \"abc\" not found",
    ),
    (
        "POST",
        "/plugins/abc/upgrade",
        None,
        500,
        "failed to parse privileges: EOF",
    ),
    (
        "POST",
        "/plugins/pull",
        None,
        500,
        "failed to parse privileges: EOF",
    ),
    (
        "POST",
        "/plugins/pull",
        Some("[]"),
        500,
        "invalid reference format",
    ),
    (
        "POST",
        "/plugins/create",
        None,
        500,
        "failed to parse reference : invalid reference format",
    ),
    (
        "GET",
        "/plugins/privileges",
        None,
        500,
        "invalid reference format",
    ),
    // Here Docker would install one.
    (
        "GET",
        "/plugins/privileges?remote=a:b",
        None,
        501,
        "this engine is extended by drivers, not by managed plugins",
    ),
    (
        "POST",
        "/plugins/pull?remote=a:b",
        Some("[]"),
        501,
        "this engine is extended by drivers, not by managed plugins",
    ),
];

#[test]
fn every_endpoint_answers_as_outside_a_swarm() {
    let engine = Engine::with(Options::default());
    for (method, path, body, status, words) in ANSWERS {
        let (got, text) = engine.api(method, path, *body);
        let what = format!("{method} {path} {body:?}: {got} {text}");
        assert_eq!(got, *status, "{what}");
        let message = match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(serde_json::Value::Object(error)) => error["message"].as_str().unwrap().to_owned(),
            _ => text,
        };
        match *words {
            "-" => assert_eq!(message, NOT_MANAGER, "{what}"),
            words => assert!(message.contains(words), "{what}"),
        }
    }
    engine.finish();
}

#[test]
fn the_docker_cli_prints_what_it_prints_with_dockerd() {
    let engine = Engine::with(Options::default());
    for words in [
        "swarm ca",
        "swarm join-token worker",
        "swarm unlock-key",
        "node ls",
        "node ps",
        "node inspect self",
        "service ls",
        "service ps x",
        "service logs x",
        "stack ls",
        "stack ps x",
        "stack services x",
        "secret ls",
        "secret rm x",
        "config ls",
        "config inspect x",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let error = engine.docker(&words).fails(1, NOT_MANAGER);
        assert!(
            error.contains("Error response from daemon: "),
            "{words:?}: {error}"
        );
    }
    engine.docker(&["swarm", "leave"]).fails(
        1,
        "Error response from daemon: This node is not part of a swarm",
    );
    assert_eq!(
        engine.docker(&["plugin", "ls"]).ok(),
        "ID        NAME      DESCRIPTION   ENABLED"
    );
    for verb in ["inspect", "rm", "enable", "disable"] {
        engine
            .docker(&["plugin", verb, "x"])
            .fails(1, "plugin \"x\" not found");
    }
    engine.finish();
}
