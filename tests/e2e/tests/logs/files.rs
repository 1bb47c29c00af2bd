//! What is kept on the disk, and how it is read: rotated, compressed, bounded, cleared.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;

use gantry_e2e::{Engine, eventually};

use crate::{spans, start};

/// Where a container's log files are.
fn log_file(engine: &Engine, name: &str, suffix: &str) -> PathBuf {
    let id = engine.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    let file = format!("data/containers/{id}/{id}-json.log{suffix}");
    engine.dir().join(file)
}

#[test]
fn rotated_and_compressed_logs_are_read_as_one() {
    let engine = Engine::start();
    let options = ["--log-driver", "local", "--log-opt", "max-size=60k"];
    let script = "seq 1 3000; while ! [ -e /go ]; do sleep 0.05; done; seq 3001 4000";
    start(&engine, "cc", &options, script);
    let packed = log_file(&engine, "cc", ".3.gz");
    eventually("rotated files are compressed", 20, || {
        packed.exists().then_some(())
    });
    assert_eq!(spans(&engine.docker(&["logs", "cc"]).out), [(1, 3000)]);
    let tail = engine.docker(&["logs", "-n", "2500", "cc"]).out;
    assert_eq!(spans(&tail), [(501, 3000)]);
    let mut follow = engine.docker_command();
    let follow = follow.args(["logs", "-f", "-n", "5", "cc"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert_eq!(first, "2996\n");
    engine.docker(&["exec", "cc", "touch", "/go"]).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(spans(&rest), [(2997, 4000)], "followed over rotations");
    assert!(follow.wait().unwrap().success());
    engine.finish();
}

#[test]
fn a_frame_is_a_line_except_for_dockers_own_client() {
    let engine = Engine::start();
    start(&engine, "cc", &[], "seq 1 1000");
    engine.docker(&["wait", "cc"]).ok();
    let frames = |agent: &str| {
        let path = "/containers/cc/logs?stdout=1&stderr=1";
        let headers = format!("User-Agent: {agent}\r\n");
        let none = serde_json::Value::Null;
        let mut taken = gantry_e2e::raw::ask(&engine, "GET", path, &headers, &none);
        let mut body = Vec::new();
        while let Some(chunk) = taken.chunk() {
            body.extend(chunk);
        }
        let (mut count, mut rest, mut text) = (0, body.as_slice(), Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            assert_eq!(head[..4], [1, 0, 0, 0]);
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            text.extend_from_slice(&after[..length]);
            rest = &after[length..];
            count += 1;
        }
        (count, spans(&String::from_utf8(text).unwrap()))
    };
    assert_eq!(frames("python-docker/7"), (1000, vec![(1, 1000)]));
    let (count, text) = frames("Docker-Client/28.2.2 (linux)");
    assert!(count < 10 && text == [(1, 1000)], "{count} {text:?}");
    engine.finish();
}

#[test]
fn a_limit_bounds_what_is_kept_and_non_blocking_mode_loses_nothing_on_an_idle_disk() {
    let engine = Engine::start();
    let options = [
        "--log-opt",
        "max-size=50k",
        "--log-opt",
        "max-file=2",
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=8m",
    ];
    start(&engine, "cc", &options, "seq 1 2000");
    engine.docker(&["wait", "cc"]).ok();
    let kept = engine.docker(&["logs", "cc"]).out;
    let kept = spans(&kept);
    let begin = kept[0].0;
    assert!((200..1900).contains(&begin), "the oldest are gone: {begin}");
    assert_eq!(kept, [(begin, 2000)], "the newest are complete");
    assert!(!log_file(&engine, "cc", ".2").exists());
    engine.finish();
}

#[test]
fn a_log_is_cleared_while_it_is_followed() {
    let engine = Engine::start();
    let script = "echo one; while ! [ -e /go ]; do sleep 0.05; done; echo two";
    start(&engine, "cc", &[], script);
    let mut follow = engine.docker_command();
    let follow = follow.args(["logs", "-f", "cc"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    engine.gantry(&["logs", "--clear", "cc"]).ok();
    assert_eq!(engine.docker(&["logs", "cc"]).out, "");
    engine.docker(&["exec", "cc", "touch", "/go"]).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\n");
    assert!(follow.wait().unwrap().success());
    assert_eq!(engine.docker(&["logs", "cc"]).out, "two\n");
    let (code, _) = engine.api("DELETE", "/containers/cc/logs", None);
    assert_eq!(code, 204, "an ended container's log too");
    assert_eq!(engine.docker(&["logs", "cc"]).out, "");
    assert_eq!(engine.api("DELETE", "/containers/nope/logs", None).0, 404);
    engine.finish();
}
