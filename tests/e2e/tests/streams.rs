//! Attach and exec as byte streams: many clients, replay, detaching, half-closing, websockets, much output.

use std::time::Duration;

use gantry_e2e::raw::{ask, upgrade};
use gantry_e2e::{Engine, eventually};
use serde_json::{Value, json};

/// Creates a container and returns its name.
#[track_caller]
fn create(engine: &Engine, name: &str, script: &str, more: Value) -> String {
    let mut body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script]});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        body[key] = value;
    }
    let path = format!("/containers/create?name={name}");
    let (status, text) = engine.api("POST", &path, Some(&body.to_string()));
    assert_eq!(status, 201, "{text}");
    name.to_owned()
}

#[track_caller]
fn start(engine: &Engine, name: &str) {
    let (status, text) = engine.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(status, 204, "{text}");
}

#[track_caller]
fn get(engine: &Engine, path: &str) -> Value {
    let (status, text) = engine.api("GET", path, None);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Makes an exec in a container; its identifier.
#[track_caller]
fn exec(engine: &Engine, container: &str, body: Value) -> String {
    let path = format!("/containers/{container}/exec");
    let (status, text) = engine.api("POST", &path, Some(&body.to_string()));
    assert_eq!(status, 201, "{text}");
    let reply: Value = serde_json::from_str(&text).expect("JSON");
    reply["Id"].as_str().expect("an identifier").to_owned()
}

/// Whether something was told of a container since the engine started.
fn told(engine: &Engine, action: &str) -> bool {
    let (_, text) = engine.api("GET", "/events?since=0&until=0s", None);
    text.contains(&format!("\"Action\":\"{action}\""))
}

fn lines(count: u32) -> Vec<u8> {
    (1..=count)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

/// Whoever joins at whatever moment with the log sees every line once.
#[test]
fn replay_and_stream_meet_without_gap_or_duplicate() {
    let engine = Engine::start();
    let script = "for part in 1 2 3 4 5 6; do seq 1 4000; sleep 0.05; done; read go; echo last";
    let name = create(
        &engine,
        "count",
        script,
        json!({"OpenStdin": true, "AttachStdin": true}),
    );
    let all = "stream=1&stdout=1&stderr=1";
    let mut first = upgrade(
        &engine,
        &format!("/containers/{name}/attach?{all}&stdin=1"),
        &Value::Null,
    );
    start(&engine, &name);
    let mut joined = Vec::new();
    for _ in 0..8 {
        let path = format!("/containers/{name}/attach?{all}&logs=1");
        joined.push(upgrade(&engine, &path, &Value::Null));
        std::thread::sleep(Duration::from_millis(30));
    }
    first.send(b"go\n");
    let mut want = lines(4000).repeat(6);
    want.extend(b"last\n");
    assert!(
        first.frames() == (want.clone(), Vec::new()),
        "the first client"
    );
    for (at, mut client) in joined.into_iter().enumerate() {
        let (out, err) = client.frames();
        assert!(
            out == want && err.is_empty(),
            "client {at}: {} of {}",
            out.len(),
            want.len()
        );
    }
    // The log alone, of a container that has ended.
    let path = format!("/containers/{name}/attach?logs=1&stdout=1");
    assert!(upgrade(&engine, &path, &Value::Null).frames().0 == want);
    engine.finish();
}

#[test]
fn input_ends_once_and_output_goes_on() {
    let engine = Engine::start();
    let script = "cat; echo out; echo err >&2";
    let more = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    let name = create(&engine, "once", script, more);
    let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    let mut client = upgrade(&engine, &path, &Value::Null);
    start(&engine, &name);
    // Everything is written before anything is read.
    let input = lines(200_000);
    client.send(&input);
    client.half_close();
    let (out, err) = client.frames();
    assert!(
        out == [&input[..], b"out\n"].concat(),
        "{} bytes",
        out.len()
    );
    assert_eq!(err, b"err\n");
    engine.finish();
}

#[test]
fn a_client_that_does_not_read_costs_the_others_nothing_but_time() {
    let engine = Engine::start();
    let name = create(
        &engine,
        "slow",
        "read go; seq 1 600000",
        json!({"OpenStdin": true}),
    );
    start(&engine, &name);
    let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1");
    let slow = upgrade(&engine, &path, &Value::Null);
    let mut quick = upgrade(&engine, &path, &Value::Null);
    quick.send(b"go\n");
    let mut got = quick.frame().expect("output").1;
    // It leaves with megabytes on the way to it.
    std::thread::sleep(Duration::from_millis(300));
    drop(slow);
    got.extend(quick.frames().0);
    assert!(got == lines(600_000), "{} bytes", got.len());
    engine.finish();
}

#[test]
fn keys_detach_from_containers_and_execs() {
    let engine = Engine::start();
    let more = json!({"OpenStdin": true, "Tty": true});
    let name = create(
        &engine,
        "tty",
        "while read line; do echo got-$line; done",
        more,
    );
    start(&engine, &name);
    let all = "stream=1&stdin=1&stdout=1";
    for (keys, typed) in [("", &b"\x10\x11"[..]), ("&detachKeys=ctrl-a,b", b"\x01b")] {
        let path = format!("/containers/{name}/attach?{all}{keys}");
        let mut client = upgrade(&engine, &path, &Value::Null);
        client.send(b"x\n");
        client.read_until("got-x\r\n");
        client.send(typed);
        client.rest();
    }
    eventually("the detaching is told", 30, || {
        told(&engine, "detach").then_some(())
    });
    let (status, text) = engine.api(
        "POST",
        "/containers/tty/attach?stream=1&detachKeys=zz",
        None,
    );
    assert!(
        status == 400 && text.contains("etach keys (zz) provided"),
        "{status} {text}"
    );
    let keys = json!({"Cmd": ["cat"], "Tty": true, "AttachStdin": true, "AttachStdout": true, "DetachKeys": "ctrl-a,b"});
    let id = exec(&engine, &name, keys);
    assert_eq!(
        get(&engine, &format!("/exec/{id}/json"))["DetachKeys"],
        "AWI="
    );
    let mut client = upgrade(&engine, &format!("/exec/{id}/start"), &json!({"Tty": true}));
    client.send(b"\x01b");
    client.rest();
    eventually("the detaching is told", 30, || {
        told(&engine, "exec_detach").then_some(())
    });
    let seen = get(&engine, &format!("/exec/{id}/json"));
    assert_eq!(
        (&seen["Running"], &seen["ExitCode"]),
        (&json!(true), &Value::Null)
    );
    engine.finish();
}

#[test]
fn exec_takes_every_option() {
    let engine = Engine::start();
    let more = json!({"User": "www", "WorkingDir": "/tmp"});
    let name = create(&engine, "options", "sleep 1000", more);
    start(&engine, &name);
    let run = |body: Value, start: Value| {
        let id = exec(&engine, &name, body);
        let output = upgrade(&engine, &format!("/exec/{id}/start"), &start).frames();
        let seen = get(&engine, &format!("/exec/{id}/json"));
        (
            String::from_utf8(output.0).unwrap(),
            seen["ExitCode"].as_i64(),
            seen,
        )
    };
    let out = |mut body: Value| {
        body["AttachStdout"] = json!(true);
        body["AttachStderr"] = json!(true);
        run(body, json!({})).0
    };
    assert_eq!(out(json!({"Cmd": ["pwd"]})), "/tmp\n");
    assert_eq!(out(json!({"Cmd": ["pwd"], "WorkingDir": "/etc"})), "/etc\n");
    assert_eq!(out(json!({"Cmd": ["id", "-un"]})), "www\n");
    assert_eq!(
        out(json!({"Cmd": ["id"], "User": "0:33"})),
        "uid=0(root) gid=33(www) groups=33(www)\n"
    );
    assert_eq!(
        out(json!({"Cmd": ["sh", "-c", "echo $A"], "Env": ["A=b", ""]})),
        "b\n"
    );
    let caps = |privileged| {
        let body = json!({"Cmd": ["grep", "CapEff", "/proc/self/status"], "User": "root", "Privileged": privileged});
        let text = out(body);
        u64::from_str_radix(text.trim_start_matches("CapEff:").trim(), 16).expect("a mask")
    };
    assert!(caps(true) > caps(false));
    // Nothing is joined that was not asked for.
    let (text, code, _) = run(
        json!({"Cmd": ["sh", "-c", "sleep 0.3; echo x; exit 4"]}),
        json!({}),
    );
    assert_eq!((text.as_str(), code), ("", Some(4)));
    for (command, words, code) in [
        (
            json!(["nope"]),
            "exec: \"nope\": executable file not found in $PATH",
            127,
        ),
        (json!(["/etc/passwd"]), "permission denied", 126),
        (json!(["sh", "-c", "exit 3"]), "", 3),
        (json!(["sh", "-c", "kill -9 $$"]), "", 137),
    ] {
        let (text, got, _) = run(json!({"Cmd": command, "AttachStdout": true}), json!({}));
        assert!(
            text.contains(words) && got == Some(code),
            "{command}: {text} {got:?}"
        );
    }
    let (text, code, _) = run(json!({"Cmd": ["true"], "WorkingDir": "/nope"}), json!({}));
    let words = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
    assert!(text.contains(words) && code == Some(126), "{text} {code:?}");
    let (_, _, seen) = run(
        json!({"Cmd": ["sh", "-c", "exit 5"], "AttachStderr": true}),
        json!({}),
    );
    let container = get(&engine, "/containers/options/json");
    let want = json!({
        "ID": seen["ID"], "Running": false, "ExitCode": 5, "OpenStdin": false, "OpenStderr": true,
        "OpenStdout": false, "CanRemove": false, "ContainerID": container["Id"], "DetachKeys": "", "Pid": 0,
        "ProcessConfig": {"tty": false, "entrypoint": "sh", "arguments": ["-c", "exit 5"], "privileged": false,
            "user": "www"}
    });
    assert_eq!(seen, want);
    engine.finish();
}

#[test]
fn exec_sizes_detaches_and_is_refused_when_it_cannot_run() {
    let engine = Engine::start();
    let name = create(&engine, "states", "sleep 1000", json!({}));
    let refused = |words: &str| {
        let path = format!("/containers/{name}/exec");
        let (status, text) = engine.api("POST", &path, Some("{\"Cmd\":[\"true\"]}"));
        assert!(status == 409 && text.contains(words), "{status} {text}");
    };
    refused("is not running");
    start(&engine, &name);
    let tty = json!({"Cmd": ["sh", "-c", "stty size; read x; stty size"], "Tty": true, "AttachStdin": true,
        "AttachStdout": true});
    let id = exec(&engine, &name, tty);
    let begin = json!({"Tty": true, "ConsoleSize": [33, 44]});
    let mut client = upgrade(&engine, &format!("/exec/{id}/start"), &begin);
    client.read_until("33 44\r\n");
    let (status, _) = engine.api("POST", &format!("/exec/{id}/resize?h=10&w=20"), None);
    assert_eq!(status, 200);
    client.send(b"\n");
    assert!(client.read_until("10 20\r\n").ends_with("10 20\r\n"));
    let id = exec(&engine, &name, json!({"Cmd": ["sleep", "1000"]}));
    let path = format!("/exec/{id}/start");
    let (status, _) = engine.api("POST", &path, Some("{\"Detach\":true}"));
    assert_eq!(status, 200);
    assert_eq!(get(&engine, &format!("/exec/{id}/json"))["Running"], true);
    let (status, text) = engine.api("POST", &path, Some("{\"Detach\":true}"));
    assert!(
        status == 409 && text.contains("has already run"),
        "{status} {text}"
    );
    let waiting = exec(&engine, &name, json!({"Cmd": ["true"]}));
    engine.docker(&["pause", &name]).ok();
    refused(&format!(
        "ontainer {name} is paused, unpause the container before exec"
    ));
    let path = format!("/exec/{waiting}/start");
    let headers = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    let reply = ask(&engine, "POST", &path, headers, &json!({}));
    assert!(reply.head.starts_with("http/1.1 409"), "{}", reply.head);
    engine.docker(&["unpause", &name]).ok();
    engine.docker(&["kill", &name]).ok();
    refused("is not running");
    eventually("the exec ends with its container", 30, || {
        (get(&engine, &format!("/exec/{id}/json"))["ExitCode"] == 137).then_some(())
    });
    let (status, text) = engine.api("GET", "/exec/nope/json", None);
    assert!(
        status == 404 && text.contains("No such exec instance: nope"),
        "{text}"
    );
    engine.finish();
}

#[test]
fn websockets() {
    let engine = Engine::start();
    create(
        &engine,
        "plain",
        "echo before; while read x; do echo got-$x; done",
        json!({"OpenStdin": true}),
    );
    create(
        &engine,
        "tty",
        "while read x; do echo got-$x; done",
        json!({"OpenStdin": true, "Tty": true}),
    );
    for name in ["plain", "tty"] {
        start(&engine, name);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/websocket_attach.py");
    let python = std::env::var("GANTRY_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let socket = engine.socket().display().to_string();
    let done = engine.client(python, &[script, &socket]);
    assert!(
        done.code == 0 && done.out.contains("all messages came"),
        "{}\n{}",
        done.out,
        done.err
    );
    eventually("the detaching is told", 30, || {
        told(&engine, "detach").then_some(())
    });
    let (status, text) = engine.api("GET", "/containers/plain/attach/ws?stream=1", None);
    assert!(
        status == 400 && text.contains("not websocket protocol"),
        "{status} {text}"
    );
    engine.finish();
}

/// Private memory of a process in bytes.
fn private(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes
        .expect("a figure")
        .parse::<u64>()
        .expect("a number")
        << 10
}

/// `seq 1 last` to a client and to the log: nothing is lost, nothing grows.
fn output_without_loss(last: u32) {
    let engine = Engine::start();
    let log = json!({"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10g"}}}, "OpenStdin": true});
    let name = create(&engine, "much", &format!("seq 1 {last}; read go"), log);
    let path = format!("/containers/{name}/attach?stream=1&stdout=1&stdin=1");
    let mut client = upgrade(&engine, &path, &Value::Null);
    start(&engine, &name);
    let pid = get(&engine, &format!("/containers/{name}/json"))["State"]["Pid"].to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let monitor = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("a parent")
        .trim();
    let daemon = engine.pid().to_string();
    let size: u64 = (1..=last).map(|n| u64::from(n.ilog10()) + 2).sum();
    let mut expected = Expected::default();
    let mut warm = None;
    while expected.seen < size {
        expected.take(&client.frame().expect("output").1);
        if warm.is_none() && expected.seen > size / 10 {
            warm = Some((private(monitor), private(&daemon)));
        }
    }
    let (before, after) = (warm.expect("output"), (private(monitor), private(&daemon)));
    assert!(
        after.0 < before.0 + (1 << 20),
        "the monitor grew: {before:?} {after:?}"
    );
    assert!(
        after.1 < before.1 + (32 << 20),
        "the daemon grew: {before:?} {after:?}"
    );
    client.send(b"go\n");
    assert!(client.frame().is_none());
    let path = format!("/containers/{name}/logs?stdout=1&follow=1");
    let mut log = ask(&engine, "GET", &path, "", &Value::Null);
    let (mut expected, mut frames) = (Expected::default(), Frames::default());
    while let Some(chunk) = log.chunk() {
        frames.take(&chunk, |payload| expected.take(payload));
    }
    assert_eq!(expected.seen, size, "the log");
    engine.finish();
}

/// Checks the output of `seq 1 ...` as it comes.
#[derive(Default)]
struct Expected {
    seen: u64,
    number: u32,
    /// Of the next number, what has not come yet.
    rest: Vec<u8>,
}

impl Expected {
    fn take(&mut self, mut bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.rest.is_empty() {
                self.number += 1;
                self.rest = format!("{}\n", self.number).into_bytes();
            }
            let count = self.rest.len().min(bytes.len());
            assert!(
                self.rest[..count] == bytes[..count],
                "output differs at {}",
                self.number
            );
            self.rest.drain(..count);
            bytes = &bytes[count..];
        }
    }
}

/// Takes frames apart that come in chunks.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    rest: usize,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8], mut payload: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.rest == 0 {
                let count = bytes.len().min(8 - self.header.len());
                self.header.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let count = self.rest.min(bytes.len());
            payload(&bytes[..count]);
            self.rest -= count;
            bytes = &bytes[count..];
        }
    }
}

#[test]
fn much_output_is_lost_nowhere() {
    output_without_loss(3_000_000);
}

#[test]
#[ignore = "moves a gigabyte"]
fn a_gigabyte_of_output_is_lost_nowhere() {
    output_without_loss(112_000_000);
}
