//! Standard streams: attach, standard input, terminals, the log.

use std::io::{Read, Write};
use std::net::Shutdown;

use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use crate::common::*;

#[test]
fn attach_gets_all_output_with_standard_input_through_it() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("cat; echo done >&2; exit 5"));
    spec.launch.stdio = Stdio {
        open_stdin: true,
        stdin_once: true,
        ..Stdio::default()
    };
    let mut c = m.create(spec);
    let (mut stream, reply) = c.attach(true);
    assert_eq!((reply.errno, reply.log_offset), (0, 0));
    c.start();
    stream.write_all(b"hello\nwor").unwrap();
    stream.write_all(b"ld").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (out, err) = demultiplex(&mut stream);
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"hello\nworld"[..], &b"done\n"[..])
    );
    assert_eq!(c.exited().code, 5);
    assert_eq!(c.output().len(), "hello\nworlddone\n".len());
}

#[test]
fn standard_input_is_null_open_or_open_for_ever() {
    let m = Machine::new();
    assert_eq!(
        m.run(m.spec(&sh("cat; readlink /proc/self/fd/0"))).1,
        "/dev/null\n"
    );
    let mut spec = m.spec(&sh("read a; echo got $a; read b; echo got $b"));
    spec.launch.stdio.open_stdin = true;
    let mut c = m.start(spec);
    for word in ["one", "two"] {
        let (mut stream, _) = c.attach(true);
        writeln!(stream, "{word}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        c.logs(&format!("got {word}"));
    }
    c.exited();
}

#[test]
fn a_large_output_is_whole_everywhere() {
    let m = Machine::new();
    let mut expected: String = (0..1 << 20).map(|n| format!("{n:049}\n")).collect();
    expected.push_str("and a tail");
    std::fs::write(m.lower().join("data"), &expected).unwrap();
    let mut c = m.create(m.spec(&["cat", "/data"]));
    let (mut fast, _) = c.attach(false);
    let (mut slow, _) = c.attach(false);
    c.start();
    let slow = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        demultiplex(&mut slow).0
    });
    let (out, _) = demultiplex(&mut fast);
    let slow = slow.join().unwrap();
    assert_eq!(c.exited().code, 0);
    assert!(out == expected.as_bytes(), "{} bytes", out.len());
    assert!(slow == out);
    assert!(c.output() == expected);
}

#[test]
fn a_client_that_vanishes_or_never_reads_loses_only_itself() {
    let m = Machine::new();
    let mut c = m.create(m.spec(&sh(
        "head -c 8000000 /dev/zero | tr '\\0' x; echo; echo end >&2",
    )));
    let (gone, _) = c.attach(true);
    let (stuck, _) = c.attach(false);
    drop(gone);
    c.start();
    // The one who does not read stalls the container, as with Docker; going away frees it.
    eventually("output began", || {
        std::fs::metadata(c.spec.dir.join("json.log"))
            .unwrap()
            .len()
            > 0
    });
    drop(stuck);
    assert_eq!(c.exited().code, 0);
    assert_eq!(c.output().len(), 8_000_001 + 4);
}

#[test]
fn a_terminal() {
    let m = Machine::new();
    let mut spec = m.spec(&sh(
        "tty; stty size; ls -l /dev/console | cut -c1; [ -t 1 ] && echo is; read a; stty size; echo got $a; exit 6",
    ));
    std::os::unix::fs::symlink("busybox", m.lower().join("bin/cut")).unwrap();
    spec.launch.stdio = Stdio {
        tty: true,
        open_stdin: true,
        size: Some((33, 99)),
        ..Stdio::default()
    };
    let mut c = m.create(spec);
    let (mut stream, _) = c.attach(true);
    c.start();
    c.logs("is\r\n");
    let resize = Request::Resize {
        height: 44,
        width: 111,
        exec: None,
    };
    assert_eq!(c.control.ask(resize), Message::Done);
    stream.write_all(b"words\n").unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).unwrap();
    assert_eq!(
        out,
        "/dev/pts/0\r\n33 99\r\nc\r\nis\r\nwords\r\n44 111\r\ngot words\r\n"
    );
    assert_eq!(c.exited().code, 6);
    assert_eq!(c.output(), out);
    let resize = Request::Resize {
        height: 1,
        width: 1,
        exec: None,
    };
    let mut plain = m.start(m.spec(&["sleep", "1000"]));
    assert!(matches!(
        plain.control.ask(resize),
        Message::Error {
            errno: libc::ENOTTY,
            ..
        }
    ));
    plain.kill();
}

#[test]
fn a_terminal_belongs_to_its_user_and_signals_work() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("trap 'echo int; exit 2' INT; stat -c %u /proc/self/fd/0; stat -L -c %u /proc/self/fd/0; echo ready; while :; do sleep 0.01; done"));
    spec.plan.process.user = User::Ids {
        uid: 33,
        gid: 44,
        groups: vec![],
    };
    spec.launch.stdio.tty = true;
    let mut c = m.create(spec);
    let (mut stream, _) = c.attach(true);
    c.start();
    c.logs("ready");
    stream.write_all(b"\x03").unwrap();
    assert_eq!(c.exited().code, 2);
    assert!(c.output().contains("33\r\n"), "{}", c.output());
}

#[test]
fn the_log_has_partial_lines_bytes_that_are_no_text_and_markup() {
    let m = Machine::new();
    let script = r"printf 'a\377b<&>\n'; head -c 20000 /dev/zero | tr '\0' z; printf '\ntail'";
    let (_, _) = m.run(m.spec(&sh(script)));
    let raw = std::fs::read_to_string(m.dir.path().join("c0/json.log")).unwrap();
    let lines: Vec<&str> = raw.lines().collect();
    assert!(
        lines[0]
            .starts_with(r#"{"log":"a\ufffdb\u003c\u0026\u003e\n","stream":"stdout","time":"20"#),
        "{raw}"
    );
    assert!(lines[0].ends_with("Z\"}"));
    let entries = read_log(&m.dir.path().join("c0/json.log"));
    let lens: Vec<usize> = entries.iter().map(|(_, t)| t.len()).collect();
    assert_eq!(lens[1..], [16_384, 20_000 - 16_384 + 1, 4]);
    assert_eq!(entries[3].1, "tail");
}

#[test]
fn attach_can_begin_where_the_log_ends() {
    let m = Machine::new();
    let mut spec = m.spec(&sh(
        "echo first; printf 'Password: '; read a; echo; echo second",
    ));
    spec.launch.stdio.open_stdin = true;
    let mut c = m.start(spec);
    c.logs("first");
    // The prompt is no line yet, so it is in nobody's log.
    let request = || Request::Attach {
        stdin: true,
        stdout: true,
        stderr: true,
        partial: true,
    };
    let (mut stream, reply) = c.attach_with(request());
    let log = std::fs::read(c.spec.dir.join("json.log")).unwrap();
    assert_eq!(log.len() as u64, reply.log_offset);
    stream.write_all(b"x\n").unwrap();
    let (out, _) = demultiplex(&mut stream);
    c.exited();
    assert_eq!(String::from_utf8(out).unwrap(), "Password: \nsecond\n");
    assert_eq!(c.output(), "first\nPassword: \nsecond\n");
}

#[test]
fn the_log_rotates_and_may_be_absent() {
    let m = Machine::new();
    let mut spec = m.spec(&["seq", "1", "1000"]);
    let log = spec.launch.log.as_mut().unwrap();
    (log.max_size, log.max_files) = (20_000, 3);
    let (_, last) = m.run(spec);
    let dir = m.dir.path().join("c0");
    let all: String = ["json.log.2", "json.log.1"]
        .iter()
        .flat_map(|f| read_log(&dir.join(f)))
        .map(|(_, t)| t)
        .collect();
    let all = all + &last;
    assert!(all.ends_with("999\n1000\n") && !all.starts_with("1\n2\n"));
    assert!(!dir.join("json.log.3").exists());
    for file in ["json.log", "json.log.1", "json.log.2"] {
        assert!(std::fs::metadata(dir.join(file)).unwrap().len() < 20_100);
    }
    let mut spec = m.spec(&["echo", "hi"]);
    spec.launch.log = None;
    let (record, out) = m.run(spec);
    assert_eq!((record.code, out.as_str()), (0, ""));
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("seq 1 50000; exit 9"));
    spec.launch.log.as_mut().unwrap().path = "/dev/full".into();
    let mut c = m.start(spec);
    let record = c.exited();
    assert_eq!(record.code, 9);
    assert!(record.log_errors > 0);
}
