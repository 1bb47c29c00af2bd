//! Terminals, handed over or shown.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use gantry_e2e::eventually;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use crate::bundle::{Bundle, program};

/// The descriptor that came through a console socket.
fn terminal(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("the runtime connects");
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("a message");
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.expect("a descriptor")
}

#[test]
fn terminals_go_through_the_console_socket() {
    let mut b = Bundle::new("read line; tty; stty size; echo got $line");
    b.config["process"]["terminal"] = true.into();
    b.config["process"]["consoleSize"] = json!({"height": 33, "width": 101});
    let (code, said) = b.detached("create @x");
    assert!(code == 1 && said.contains("console socket"), "{said}");
    let listener = UnixListener::bind(b.path("console")).expect("a socket");
    let (code, said) = b.detached("create --console-socket console @x");
    assert_eq!(code, 0, "{said}");
    let mut master = File::from(terminal(&listener));
    b.oci("start @x").ok();
    master.write_all(b"hello\n").expect("a terminal takes it");
    let mut text = Vec::new();
    // It ends with an error once nobody has the other side.
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    assert_eq!(text, "hello\n/dev/pts/0\n33 101\ngot hello\n");
    b.await_status("x", "stopped");
    b.oci("delete @x").ok();
    // Or are shown on the caller's own.
    let (words, bundle) = (b.words("run @y").join(" "), b.dir.path().display());
    let command = format!(
        "stty rows 20 cols 60; {} {words} -b {bundle}",
        program().display()
    );
    let line = ["-qec", &command, "/dev/null"];
    let mut child = Command::new("script")
        .args(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is installed");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let mut seen = String::new();
    let mut until = |wanted: &str| {
        let mut byte = [0];
        while !seen.contains(wanted) && output.read(&mut byte).expect("it is open") > 0 {
            seen.push(byte[0].into());
        }
        seen.clone()
    };
    // Whatever is typed before the terminal is the container's may get lost.
    eventually("it runs", 30, || {
        let state = b.oci("state @y");
        (state.code == 0 && state.out.contains("running")).then_some(())
    });
    input.write_all(b"typed\n").expect("script reads");
    let seen = until("got typed").replace('\r', "");
    assert!(seen.contains("/dev/pts/0\n20 60\ngot typed"), "{seen}");
    drop(input);
    assert!(child.wait().expect("a child").success());
    b.config["process"]["terminal"] = false.into();
    let (code, said) = b.detached("create --console-socket console @x");
    assert!(
        code == 1 && said.contains("cannot use console socket"),
        "{said}"
    );
    b.finish();
}
