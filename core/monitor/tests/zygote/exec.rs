//! Execs into a running container.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use gantry_monitor::client;
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use crate::common::*;

#[test]
fn an_exec_shares_everything_and_has_its_privileges_limited() {
    let m = Machine::new();
    let mut spec = m.spec(&["sleep", "1000"]);
    spec.launch.namespaces.cgroup = Namespace::New;
    m.with_cgroups(&mut spec);
    let mut c = m.start(spec);
    let (code, out, err) = c
        .exec(process(&sh(
            "hostname; cat /proc/1/comm; echo e >&2; ls /proc/self/fd; exit 4",
        )))
        .unwrap();
    assert_eq!((code, err.as_str()), (4, "e\n"));
    assert_eq!(out, "box\nsleep\n0\n1\n2\n3\n");
    for ns in ["mnt", "net", "ipc", "uts", "pid", "cgroup"] {
        let link = format!("/proc/self/ns/{ns}");
        let (_, mine, _) = c.exec(process(&["readlink", &link])).unwrap();
        let init = std::fs::read_link(format!("/proc/{}/ns/{ns}", c.pid)).unwrap();
        assert_eq!(mine.trim(), init.to_str().unwrap(), "{ns}");
    }
    let (_, out, _) = c.exec(process(&["cat", "/proc/self/cgroup"])).unwrap();
    assert!(out.lines().all(|l| l.ends_with(":/")), "{out}");

    let mut limited = process(&["cat", "/proc/self/status"]);
    limited.no_new_privileges = true;
    limited.user = User::Name {
        spec: "web".into(),
        groups: vec![],
    };
    let program: Vec<u8> = [6u16.to_ne_bytes(), [0, 0]].concat();
    limited.seccomp = Some(Seccomp {
        program: [program, 0x7fff_0000u32.to_ne_bytes().to_vec()].concat(),
        flags: 0,
    });
    let (_, out, _) = c.exec(limited).unwrap();
    assert!(
        out.contains("Seccomp:\t2") && out.contains("NoNewPrivs:\t1"),
        "{out}"
    );
    assert!(
        out.contains("Uid:\t33\t33\t33\t33") && out.contains("CapEff:\t0000000000000000"),
        "{out}"
    );
    assert!(out.contains("CapBnd:\t00000000a80425fb"), "{out}");
    let (_, out, _) = c.exec(process(&["cat", "/proc/self/status"])).unwrap();
    assert!(out.contains("CapEff:\t00000000a80425fb"), "{out}");
    c.kill();
}

#[test]
fn what_cannot_be_execed_leaves_the_container_running() {
    let m = Machine::new();
    let mut early = m.create(m.spec(&["sleep", "1000"]));
    let failure = early.exec(process(&["true"])).unwrap_err();
    assert_eq!(failure.stage, Stage::Gone);
    early.start();
    let failure = early.exec(process(&["no-such"])).unwrap_err();
    assert_eq!(failure.stage, Stage::NotFound);
    assert_eq!(
        failure.message,
        r#"exec: "no-such": executable file not found in $PATH"#
    );
    let failure = early.exec(process(&["/etc/passwd"])).unwrap_err();
    assert_eq!(failure.stage, Stage::NotExecutable);
    let mut nobody = process(&["true"]);
    nobody.user = User::Name {
        spec: "none".into(),
        groups: vec![],
    };
    assert_eq!(early.exec(nobody).unwrap_err().stage, Stage::User);
    assert_eq!(early.exec(process(&["false"])).unwrap().0, 1);
    let Message::Info(info) = early.control.ask(Request::Info) else {
        panic!("no info")
    };
    assert!(info.execs.is_empty() && info.started_at > 0);
    assert_eq!((info.pid, info.monitor), (early.pid, early.monitor));
    early.kill();
}

#[test]
fn an_exec_with_a_terminal() {
    let m = Machine::new();
    let mut c = m.start(m.spec(&["sleep", "1000"]));
    let plan = ExecPlan {
        process: process(&sh(
            "tty; stty size; read a; echo got $a; stty size; exit 8",
        )),
        size: Some((20, 60)),
        ..ExecPlan::default()
    };
    let request = Request::Exec {
        id: "t".into(),
        tty: true,
        plan: to_bytes(&plan).unwrap(),
    };
    assert!(matches!(
        c.control.ask(request),
        Message::ExecStarted { .. }
    ));
    let mut master = std::fs::File::from(c.control.fds.pop().expect("the master side"));
    let resize = Request::Resize {
        height: 21,
        width: 61,
        exec: Some("t".into()),
    };
    let mut out = String::new();
    let mut buffer = [0; 256];
    while !out.contains("20 60") {
        let n = master.read(&mut buffer).unwrap();
        out += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    assert_eq!(c.control.ask(resize), Message::Done);
    master.write_all(b"word\n").unwrap();
    while let Ok(n) = master.read(&mut buffer) {
        out += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    assert_eq!(out, "/dev/pts/0\r\n20 60\r\nword\r\ngot word\r\n21 61\r\n");
    assert_eq!(
        c.control.next(),
        Message::ExecExited {
            code: 8,
            signal: None
        }
    );
    c.kill();
}

#[test]
fn an_exec_outlives_its_connection_and_is_signalled_by_name() {
    let m = Machine::new();
    let mut c = m.start(m.spec(&["sleep", "1000"]));
    let mut other = Control::new(client::connect(&c.spec.dir).unwrap());
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let begin = |id: &str| Request::Exec {
        id: id.into(),
        tty: false,
        plan: to_bytes(&ExecPlan {
            process: process(&["sleep", "1000"]),
            ..ExecPlan::default()
        })
        .unwrap(),
    };
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    assert!(matches!(
        other.ask_with(begin("a"), &fds),
        Message::ExecStarted { .. }
    ));
    assert!(
        matches!(c.control.ask_with(begin("a"), &fds), Message::ExecFailed(_)),
        "the name is taken"
    );
    assert!(matches!(
        c.control.ask_with(begin("b"), &fds),
        Message::ExecStarted { .. }
    ));
    drop(other);
    let Message::Info(info) = c.control.ask(Request::Info) else {
        panic!("no info")
    };
    assert_eq!(info.execs.len(), 2);
    let signal = |id: &str| Request::Signal {
        signo: libc::SIGKILL,
        all: false,
        exec: Some(id.into()),
    };
    assert_eq!(c.control.ask(signal("b")), Message::Done);
    let killed = Message::ExecExited {
        code: 137,
        signal: Some(9),
    };
    assert_eq!(c.control.next(), killed);
    assert_eq!(c.control.ask(signal("a")), Message::Done);
    eventually(
        "the exec is reaped",
        || matches!(c.control.ask(Request::Info), Message::Info(i) if i.execs.is_empty()),
    );
    assert!(matches!(
        c.control.ask(signal("a")),
        Message::Error {
            errno: libc::ESRCH,
            ..
        }
    ));
    // Without descriptors there is no exec without a terminal.
    assert!(matches!(c.control.ask(begin("c")), Message::ExecFailed(_)));
    // Execs die with the container, and are told of before it.
    assert!(matches!(
        c.control.ask_with(begin("d"), &fds),
        Message::ExecStarted { .. }
    ));
    c.signal(libc::SIGKILL);
    assert_eq!(c.control.next(), killed);
    c.exited();
}
