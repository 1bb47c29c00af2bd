//! Containers that runc and crun make. Needs Debian's packages of these names.

use std::io::{Read, Write};

use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;
use serde_json::json;

use crate::common::*;

const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// A machine for crun too: Debian's refuses to run where a unified hierarchy with a controller is mounted beside v1.
fn machine() -> Machine {
    let script = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec {} zygote'\n",
        env!("CARGO_BIN_EXE_gantry-monitor")
    );
    Machine::with_wrapper(Some(&script))
}

/// A launch through a runtime, with a bundle of its own.
fn foreign(m: &Machine, runtime: &str, argv: &[&str], tty: bool) -> Spec {
    let mut spec = m.spec(argv);
    std::fs::create_dir(spec.dir.join("rootfs")).unwrap();
    let kinds = ["pid", "network", "ipc", "uts", "mount"];
    let namespaces: Vec<_> = kinds.iter().map(|k| json!({"type": k})).collect();
    let caps = ["CAP_KILL", "CAP_CHOWN"];
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": tty, "user": {"uid": 0, "gid": 0}, "args": argv, "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "rootfs"},
        "hostname": "foreign",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        ],
        "linux": {
            "cgroupsPath": format!("/gantry-foreign-{}", &spec.launch.id[..8]),
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
        },
    });
    std::fs::write(spec.dir.join("config.json"), config.to_string()).unwrap();
    let state = m.dir.path().join("state").to_string_lossy().into_owned();
    spec.launch.foreign = Some(Foreign {
        runtime: runtime.into(),
        args: vec!["--root".into(), state],
        bundle: spec.dir.clone(),
    });
    spec.launch.namespaces = Namespaces::default();
    spec.launch.stdio.tty = tty;
    spec.plan = Plan {
        rootfs: spec.plan.rootfs,
        ..Plan::default()
    };
    spec
}

/// Nothing of a container is left with its runtime.
fn clean(m: &Machine) {
    let left: Vec<_> = std::fs::read_dir(m.dir.path().join("state"))
        .map(|d| d.map(|e| e.unwrap().file_name()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    for (_, root) in hierarchies() {
        let names = std::fs::read_dir(root).unwrap();
        let prefix = format!("gantry-foreign-{:04x}", std::process::id() & 0xffff);
        assert!(!names.into_iter().any(|n| {
            n.unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(&prefix)
        }));
    }
}

#[test]
fn run_exec_and_end() {
    for runtime in RUNTIMES {
        let m = machine();
        let (record, out) = m.run(foreign(
            &m,
            runtime,
            &sh("hostname; echo err >&2; exit 7"),
            false,
        ));
        assert_eq!(record.code, 7, "{runtime}: {out}");
        assert!(
            out.contains("foreign\n") && out.contains("err\n"),
            "{runtime}: {out}"
        );
        clean(&m);

        let mut c = m.start(foreign(&m, runtime, &["sleep", "1000"], false));
        let mut p = process(&sh("id -u; echo $HOME; echo e >&2; exit 3"));
        p.user = User::Name {
            spec: "web".into(),
            groups: vec![],
        };
        let (code, out, err) = c.exec(p).unwrap();
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (3, "33\n/srv\n", "e\n"),
            "{runtime}"
        );
        let failure = c.exec(process(&["no-such"])).unwrap_err();
        assert_eq!(
            failure.stage,
            Stage::NotFound,
            "{runtime}: {}",
            failure.message
        );
        c.kill();
        clean(&m);
    }
}

#[test]
fn failures() {
    for runtime in RUNTIMES {
        let m = machine();
        let failure = m.refused(foreign(&m, runtime, &["no-such"], false));
        assert_eq!(
            failure.stage,
            Stage::NotFound,
            "{runtime}: {}",
            failure.message
        );
        let mut spec = foreign(&m, runtime, &["true"], false);
        std::fs::write(spec.dir.join("config.json"), "{").unwrap();
        assert_eq!(m.refused(spec).stage, Stage::Runtime);
        spec = foreign(&m, "/no/such/runtime", &["true"], false);
        assert_eq!(m.refused(spec).stage, Stage::Runtime);
        clean(&m);
    }
}

#[test]
fn terminals() {
    for runtime in RUNTIMES {
        let m = machine();
        let mut spec = foreign(&m, runtime, &sh("tty; read a; echo got $a"), true);
        spec.launch.stdio.open_stdin = true;
        let mut c = m.create(spec);
        let (mut stream, _) = c.attach(true);
        c.start();
        c.logs("/dev/pts/0");
        let plan = ExecPlan {
            process: process(&sh("tty; exit 4")),
            ..ExecPlan::default()
        };
        let request = Request::Exec {
            id: "t".into(),
            tty: true,
            plan: to_bytes(&plan).unwrap(),
        };
        let answer = c.control.ask(request);
        assert!(
            matches!(answer, Message::ExecStarted { .. }),
            "{runtime}: {answer:?}"
        );
        let mut master = std::fs::File::from(c.control.fds.pop().expect("the master side"));
        let (mut out, mut buffer) = (String::new(), [0; 64]);
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            out += std::str::from_utf8(&buffer[..n]).unwrap();
        }
        assert_eq!(out, "/dev/pts/1\r\n", "{runtime}");
        assert!(matches!(
            c.control.next(),
            Message::ExecExited { code: 4, .. }
        ));
        stream.write_all(b"word\n").unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).unwrap();
        assert!(out.ends_with("got word\r\n"), "{runtime}: {out}");
        assert_eq!(c.exited().code, 0);
        clean(&m);
    }
}
