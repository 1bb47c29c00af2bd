//! Events: what is told, filters, times, forms, and the resume that loses nothing.

use gantry_e2e::{Engine, raw};
use serde_json::{Value, json};

/// Everything that happened, as `type action` with the container's name where there is one.
fn told(engine: &Engine, filters: &Value) -> Vec<String> {
    let filters = percent(&filters.to_string());
    let path = format!("/events?since=0&until=0s&filters={filters}");
    let (status, text) = engine.api("GET", &path, None);
    assert_eq!(status, 200, "{text}");
    let events = text.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("an event is JSON");
        format!(
            "{} {}",
            event["Type"].as_str().unwrap(),
            event["Action"].as_str().unwrap()
        )
    });
    events.collect()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a_container_is_told_of_from_its_creation_to_its_end() {
    let engine = Engine::start();
    engine
        .docker(&[
            "create", "--name", "told", "-v", "told:/v", "-l", "a=b", "busybox", "sleep", "60",
        ])
        .ok();
    engine.docker(&["start", "told"]).ok();
    engine.docker(&["exec", "told", "true"]).ok();
    engine.docker(&["pause", "told"]).ok();
    engine.docker(&["unpause", "told"]).ok();
    engine.docker(&["rename", "told", "untold"]).ok();
    engine.docker(&["rm", "-f", "-v", "untold"]).ok();
    let all = told(
        &engine,
        &json!({"type": ["container", "volume", "network"]}),
    );
    let want = [
        "volume create",
        "container create",
        "network connect",
        "volume mount",
        "container start",
        "container exec_create: true ",
        "container exec_start: true ",
        "container exec_die",
        "container pause",
        "container unpause",
        "container rename",
        "container kill",
        "container die",
        "network disconnect",
        "volume unmount",
        "container destroy",
    ];
    // Networks and volumes are joined and left side by side.
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    assert_eq!(sorted(&all), sorted(&want.map(str::to_owned)), "{all:#?}");
    let containers: Vec<&String> = all.iter().filter(|e| e.starts_with("container")).collect();
    let in_order: Vec<&&str> = want.iter().filter(|e| e.starts_with("container")).collect();
    assert_eq!(containers, in_order);
    for (filters, count) in [
        (json!({"label": ["a=b"]}), 11),
        (json!({"event": ["exec_create"]}), 1),
        (json!({"container": ["untol"]}), 4),
        (json!({"volume": ["told"], "type": ["volume"]}), 3),
        (json!({"image": ["busybox"], "type": ["container"]}), 11),
        (json!({"node": ["x"]}), 0),
        (json!({"scope": ["swarm"]}), 0),
    ] {
        assert_eq!(told(&engine, &filters).len(), count, "{filters}");
    }
    let (status, text) = engine.api("GET", "/events?since=100&until=50", None);
    let words = "`since` time (100) cannot be after `until` time (50)";
    assert!(status == 400 && text.contains(words), "{status} {text}");
    engine.finish();
}

fn volume(engine: &Engine, name: &str) {
    engine.docker(&["volume", "create", name]).ok();
}

/// The next event's number, action and object.
fn next(stream: &mut raw::Taken) -> (u64, String) {
    let line = stream.line().expect("an event");
    let event: Value = serde_json::from_slice(&line).expect("an event is JSON");
    let id = event["Actor"]["ID"].as_str().unwrap();
    let seq = event["seq"].as_u64().expect("it was asked for");
    (seq, format!("{} {id}", event["Action"].as_str().unwrap()))
}

#[test]
fn a_client_resumes_after_the_daemon_was_killed() {
    let mut engine = Engine::start();
    let mut stream = raw::ask(&engine, "GET", "/events?since_seq=now", "", &Value::Null);
    volume(&engine, "first");
    let (seq, what) = next(&mut stream);
    assert_eq!(what, "create first");
    drop(stream);
    // Told and not in the log yet when the daemon dies.
    for name in ["second", "third"] {
        volume(&engine, name);
    }
    engine.kill9();
    engine.boot();
    let header = format!("Last-Event-ID: {seq}\r\n");
    let mut stream = raw::ask(&engine, "GET", "/events", &header, &Value::Null);
    volume(&engine, "fourth");
    let resumed: Vec<_> = (0..3).map(|_| next(&mut stream)).collect();
    let want = ["second", "third", "fourth"];
    let want: Vec<_> = (seq + 1..)
        .zip(want.map(|v| format!("create {v}")))
        .collect();
    assert_eq!(resumed, want);
    let (status, text) = engine.api("GET", "/events?since_seq=100000", None);
    assert!(
        status == 410 && text.contains("there is no event 100000"),
        "{text}"
    );
    let (status, _) = engine.api("GET", "/events?since_seq=x", None);
    assert_eq!(status, 400);
    // Without being asked for, a number is not shown.
    let (_, text) = engine.api("GET", "/events?since=0&until=0s", None);
    assert!(!text.contains("seq"), "{text}");
    for name in ["first", "second", "third", "fourth"] {
        engine.docker(&["volume", "rm", name]).ok();
    }
    engine.finish();
}

#[test]
fn the_form_is_what_the_client_accepts() {
    let engine = Engine::start();
    volume(&engine, "forms");
    for (accept, kind, first) in [
        ("*/*", "application/json", b'{'),
        ("application/x-ndjson", "application/x-ndjson", b'{'),
        ("application/json-seq", "application/json-seq", 0x1e),
    ] {
        let header = format!("Accept: {accept}\r\n");
        let mut reply = raw::ask(
            &engine,
            "GET",
            "/events?since=0&until=0s",
            &header,
            &Value::Null,
        );
        let head = &reply.head;
        assert!(
            head.contains(&format!("content-type: {kind}\r\n")),
            "{accept}: {head}"
        );
        assert_eq!(reply.line().expect("an event")[0], first, "{accept}");
    }
    // An end that is to come is waited for.
    let mut reply = raw::ask(&engine, "GET", "/events?until=9999999999", "", &Value::Null);
    assert!(reply.line().is_some());
    engine.docker(&["volume", "rm", "forms"]).ok();
    engine.finish();
}
