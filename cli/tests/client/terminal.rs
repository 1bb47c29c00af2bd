//! Sessions on a terminal against a scripted daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use crate::fake::{Daemon, Peer, container};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Our end of a terminal, and the end that the client is given.
struct Pty {
    ours: File,
    theirs: OwnedFd,
}

impl Pty {
    fn open(rows: u16, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).unwrap();
        Self {
            ours: File::from(ours),
            theirs,
        }
    }

    fn run(&self, daemon: &Daemon, line: &str) -> Child {
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        daemon
            .client(line)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap()
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.theirs)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    }

    /// Reads until `end` has been shown.
    fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.ours.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }
}

/// Echoes what is typed until a `q`.
fn shell(peer: &mut Peer<'_>) {
    peer.write(b"$ ");
    let mut byte = [0];
    while peer.stream.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'q' {
        peer.write(&[b'<', byte[0], b'>']);
    }
}

#[test]
fn the_terminal_is_raw_while_the_session_lasts() {
    let daemon = Daemon::start(container(shell, 5));
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "run -it busybox sh");
    assert_eq!(pty.read_until("$ "), "$ ");
    assert!(!pty.echoes());
    pty.ours.write_all(b"a\x03").unwrap();
    assert_eq!(pty.read_until("<\x03>"), "<a><\x03>");
    assert_eq!(daemon.wait_for("/resize").query, "h=30&w=100");
    pty.ours.write_all(b"q").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(pty.echoes());
    assert_eq!(
        daemon.seen()[0].json()["HostConfig"]["ConsoleSize"],
        serde_json::json!([30, 100])
    );
    assert_eq!(
        daemon.wait_for("/attach").query,
        "stream=1&stdin=1&stdout=1&stderr=1"
    );
}

#[test]
fn a_change_of_size_is_passed_on() {
    let daemon = Daemon::start(container(shell, 0));
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "run -it busybox sh");
    pty.read_until("$ ");
    daemon.wait_for("/resize");
    let size = Winsize {
        ws_row: 31,
        ws_col: 101,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&pty.theirs, size).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    while !daemon
        .seen()
        .iter()
        .any(|request| request.query == "h=31&w=101")
    {
        std::thread::yield_now();
    }
    pty.ours.write_all(b"q").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn detach_keys_let_go_of_the_container() {
    let daemon = Daemon::start(container(shell, 1));
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "run -it --detach-keys ctrl-x,y busybox sh");
    pty.read_until("$ ");
    pty.ours.write_all(b"\x18a").unwrap();
    assert_eq!(pty.read_until("<a>"), "<\x18><a>");
    pty.ours.write_all(b"\x18y").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(pty.echoes());
    assert_eq!(
        daemon.wait_for("/attach").query,
        "stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x%2Cy"
    );
}

#[test]
fn a_container_that_does_not_start_leaves_the_terminal_alone() {
    let daemon = Daemon::start(|request, peer| match request.path.rsplit('/').next() {
        Some("start") => peer.reply(500, r#"{"message":"no"}"#),
        Some("attach") => {
            peer.upgrade();
            peer.read_to_end();
        }
        _ => container(shell, 0)(request, peer),
    });
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "run -it busybox sh");
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert!(pty.echoes());
    assert!(
        pty.read_until("--help' for more information")
            .contains("Error response from daemon: no")
    );
}

#[test]
fn a_signal_that_ends_exec_restores_the_terminal() {
    let daemon = Daemon::start(|request, peer| match request.path.rsplit('/').next() {
        Some("exec") => peer.reply(201, r#"{"Id":"e1"}"#),
        Some("start") => {
            peer.upgrade();
            shell(peer);
        }
        _ => peer.reply(200, "{}"),
    });
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "exec -it web sh");
    pty.read_until("$ ");
    assert!(!pty.echoes());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(pty.echoes());
}

#[test]
fn without_a_terminal_there_is_no_terminal_session() {
    let daemon = Daemon::start(container(shell, 0));
    let ended = daemon.run("run -it busybox sh");
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (Some(1), "the input device is not a TTY\n")
    );
    assert!(daemon.seen().is_empty());
}

#[test]
fn a_pull_draws_one_bar_a_layer() {
    let daemon = Daemon::start(|_, peer| {
        peer.lines(&[
            r#"{"status":"Downloading","progressDetail":{"current":1048576,"total":2097152},"id":"layer1"}"#,
            r#"{"status":"Pull complete","progressDetail":{},"id":"layer1"}"#,
            r#"{"status":"Digest: sha256:x"}"#,
        ]);
    });
    let mut pty = Pty::open(30, 100);
    let mut child = pty.run(&daemon, "pull app:1");
    let shown = pty.read_until("docker.io/library/app:1\r\n");
    assert!(
        shown.contains("layer1: Downloading [") && shown.contains("1.00 MiB/2.00 MiB"),
        "{shown:?}"
    );
    assert!(shown.contains("layer1: Pull complete"), "{shown:?}");
    assert!(child.wait().unwrap().success());
}
