//! `run` and its relatives against a scripted daemon.

use std::io::Write;
use std::process::Stdio;

use crate::fake::{Daemon, Done, Peer, Request, container};

fn hello(peer: &mut Peer<'_>) {
    peer.frame(1, b"to out\n");
    peer.frame(2, b"to err\n");
}

fn done(code: i32, out: &str, err: &str) -> Done {
    Done {
        code: Some(code),
        out: out.into(),
        err: err.into(),
    }
}

#[test]
fn run_attaches_and_waits_before_it_starts() {
    let daemon = Daemon::start(container(hello, 42));
    assert_eq!(
        daemon.run("run --rm busybox true"),
        done(42, "to out\n", "to err\n")
    );
    let lines = daemon.seen_lines();
    assert_eq!(lines[0], "POST /containers/create");
    assert_eq!(lines[3], "POST /containers/abc123/start");
    let attach = daemon.wait_for("/attach");
    assert_eq!(attach.query, "stream=1&stdout=1&stderr=1");
    assert_eq!(attach.header("upgrade"), Some("tcp"));
    assert_eq!(daemon.wait_for("/wait").query, "condition=removed");
    assert_eq!(daemon.seen()[0].json()["HostConfig"]["AutoRemove"], true);
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[test]
fn a_detached_container_costs_two_requests_on_one_connection() {
    let daemon = Daemon::start(container(hello, 0));
    assert_eq!(
        daemon.run("run -d --name web busybox"),
        done(0, "abc123\n", "")
    );
    assert_eq!(
        daemon.seen_lines(),
        ["POST /containers/create", "POST /containers/abc123/start"]
    );
    assert_eq!(
        (daemon.connections(), daemon.seen()[0].query.as_str()),
        (1, "name=web")
    );
}

#[test]
fn input_is_passed_on_and_its_end_too() {
    let daemon = Daemon::start(container(
        |peer| {
            let input = peer.read_to_end();
            peer.frame(1, &input);
        },
        0,
    ));
    let mut child = daemon
        .client("run -i busybox cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "line\n".repeat(50_000);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, text.as_bytes());
}

#[test]
fn output_larger_than_any_buffer_arrives_whole() {
    let daemon = Daemon::start(container(
        |peer| {
            for number in 0..400u32 {
                peer.frame(1, &number.to_be_bytes().repeat(16_384));
            }
        },
        0,
    ));
    let output = daemon.client("run busybox").output().unwrap();
    let wanted: Vec<u8> = (0..400u32)
        .flat_map(|number| number.to_be_bytes().repeat(16_384))
        .collect();
    assert!(output.stdout == wanted, "{} bytes", output.stdout.len());
}

#[test]
fn a_missing_image_is_pulled() {
    let script = |request: &Request, peer: &mut Peer<'_>| match request.path.as_str() {
        "/containers/create"
            if !peer
                .daemon
                .seen_lines()
                .contains(&"POST /images/create".into()) =>
        {
            peer.reply(404, r#"{"message":"No such image: app:latest"}"#);
        }
        "/images/create" => peer.lines(&[
            r#"{"status":"Pulling from library/app","id":"latest"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}"#,
            r#"{"status":"Pull complete","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Status: Downloaded newer image for app:latest"}"#,
        ]),
        _ => container(hello, 0)(request, peer),
    };
    let daemon = Daemon::start(script);
    let err = "Unable to find image 'app:latest' locally\nlatest: Pulling from library/app\na: Pull complete\nStatus: Downloaded newer image for app:latest\nto err\n";
    assert_eq!(daemon.run("run app"), done(0, "to out\n", err));
    let pull = daemon.wait_for("/images/create");
    assert_eq!(pull.query, "fromImage=docker.io%2Flibrary%2Fapp&tag=latest");
    assert_eq!(pull.header("x-registry-auth"), Some("e30="));
}

#[test]
fn the_shells_codes_tell_why_nothing_ran() {
    for (message, code) in [
        ("exec: \\\"foo\\\": executable file not found in $PATH", 127),
        ("stat /foo: no such file or directory", 127),
        ("exec /etc: permission denied", 126),
        ("exec /etc: is a directory", 126),
        ("cgroups gone", 125),
    ] {
        let daemon = Daemon::start(move |request, peer| match request.path.rsplit('/').next() {
            Some("start") => peer.reply(400, &format!("{{\"message\":\"{message}\"}}")),
            Some("attach") => {
                peer.upgrade();
                peer.read_to_end();
            }
            Some("wait") => peer.reply(200, r#"{"StatusCode":0}"#),
            _ => container(hello, 0)(request, peer),
        });
        let shown = message.replace('\\', "");
        let err = format!(
            "gantry: Error response from daemon: {shown}\n\nRun 'gantry run --help' for more information\n"
        );
        assert_eq!(daemon.run("run --rm busybox"), done(code, "", &err));
    }
}

#[test]
fn signals_are_passed_on() {
    let daemon = Daemon::start(container(
        |peer| {
            peer.frame(1, b"ready\n");
            peer.daemon.wait_for("/kill");
        },
        143,
    ));
    let child = daemon
        .client("run busybox")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait_for("/start");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(daemon.wait_for("/kill").query, "signal=TERM");
    let output = child.wait_with_output().unwrap();
    // The scripted wait ends at the start already; the streams end with the signal.
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(143), &b"ready\n"[..])
    );
}

#[test]
fn exec_ends_with_its_own_code() {
    let daemon = Daemon::start(|request, peer| match request.path.as_str() {
        "/containers/web/exec" => peer.reply(201, r#"{"Id":"e1"}"#),
        "/exec/e1/start" => {
            peer.upgrade();
            hello(peer);
        }
        "/exec/e1/json" => peer.reply(200, r#"{"ExitCode":7,"Running":false}"#),
        _ => peer.reply(404, "{}"),
    });
    assert_eq!(
        daemon.run("exec -e A=1 -w /x web ls -l"),
        done(7, "to out\n", "to err\n")
    );
    let body = daemon.seen()[0].json();
    assert_eq!(body["Cmd"], serde_json::json!(["ls", "-l"]));
    assert_eq!(
        (body["Env"][0].as_str(), body["WorkingDir"].as_str()),
        (Some("A=1"), Some("/x"))
    );
    assert_eq!(daemon.seen_lines().len(), 3);
}

#[test]
fn a_reader_that_has_had_enough_ends_the_client() {
    let daemon = Daemon::start(|request, peer| {
        assert!(request.path.ends_with("/logs"));
        peer.chunked("application/vnd.docker.multiplexed-stream");
        let mut frame = vec![1, 0, 0, 0, 0, 1, 0, 0];
        frame.resize(8 + 65_536, b'x');
        for _ in 0..1_000 {
            peer.chunk(&frame);
        }
        peer.end_chunks();
    });
    let mut child = daemon
        .client("logs -f web")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn a_third_interrupt_is_meant_for_the_client() {
    let daemon = Daemon::start(container(
        |peer| {
            peer.frame(1, b"ready\n");
            peer.read_to_end();
        },
        0,
    ));
    let child = daemon
        .client("run busybox")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait_for("/start");
    let pid = rustix::process::Pid::from_child(&child);
    for sent in 1..=3 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        while sent < 3
            && daemon
                .seen()
                .iter()
                .filter(|request| request.path.ends_with("/kill"))
                .count()
                < sent
        {
            std::thread::yield_now();
        }
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("got 3 SIGTERM/SIGINTs, forcefully exiting")
    );
}

#[test]
fn a_daemon_that_dies_is_told_of() {
    let daemon = Daemon::start(|request, peer| match request.path.rsplit('/').next() {
        Some("wait") => {
            peer.chunked("application/json");
            peer.daemon.wait_for("/start");
            peer.hang_up();
        }
        _ => container(hello, 0)(request, peer),
    });
    let ended = daemon.run("run busybox");
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), "to out\n"));
    assert!(
        ended
            .err
            .contains("Error waiting for container: error during connect: "),
        "{}",
        ended.err
    );
}
