//! What must not break: failing set-ups, hostile images, dead daemons and zygotes; and what a monitor costs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount as Layer, MountPlan};
use gantry_monitor::client;
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use crate::common::*;

#[test]
fn a_failing_set_up_leaves_nothing() {
    let m = Machine::new();
    let mut spec = m.spec(&["true"]);
    spec.plan
        .mounts
        .push(Mount::parse("bind", "/no/such/path", "/mnt", ["rbind"]));
    m.with_cgroups(&mut spec);
    let f = m.refused(spec);
    assert_eq!((f.stage, f.errno), (Stage::Mount, libc::ENOENT));
    assert!(
        f.message
            .starts_with("error mounting \"/no/such/path\" to rootfs at \"/mnt\":"),
        "{}",
        f.message
    );

    let mut spec = m.spec(&["true"]);
    spec.plan
        .mounts
        .push(Mount::parse("bind", "/tmp", "/etc/passwd", ["rbind"]));
    assert!(
        m.refused(spec)
            .message
            .contains("Are you trying to mount a directory onto a file")
    );

    let mut spec = m.spec(&["true"]);
    spec.plan.rootfs = Some(MountPlan::single(Layer::Overlay {
        lower: vec!["/no/such/layer".into()],
        upper: None,
        work: None,
        options: vec![],
    }));
    assert_eq!(m.refused(spec).stage, Stage::Mount);

    let mut spec = m.spec(&["true"]);
    spec.plan.rootfs = None;
    assert_eq!(m.refused(spec).stage, Stage::Plan);

    let mut spec = m.spec(&["true"]);
    spec.launch.log.as_mut().unwrap().path = "/no/such/log".into();
    assert_eq!(m.refused(spec).stage, Stage::Monitor);

    let mut spec = m.spec(&["true"]);
    spec.launch
        .cgroup
        .v1
        .push("/sys/fs/cgroup/pids/no-such".into());
    assert_eq!(m.refused(spec).stage, Stage::Cgroup);

    let mut spec = m.spec(&["true"]);
    spec.launch.namespaces.net = Namespace::Path("/proc/self/ns/no-such".into());
    assert_eq!(m.refused(spec).stage, Stage::Namespace);
    assert_eq!(m.run(m.spec(&["true"])).0.code, 0, "the zygote goes on");
}

#[test]
fn an_image_cannot_lead_out() {
    let m = Machine::new();
    let secret = m.dir.path().join("outside");
    std::fs::create_dir(&secret).unwrap();
    let lower = m.lower();
    // /proc that is a link is refused.
    std::fs::remove_dir(lower.join("proc")).unwrap();
    symlink("/etc", lower.join("proc")).unwrap();
    let f = m.refused(m.spec(&["true"]));
    assert!(
        f.message.contains("must be mounted on ordinary directory"),
        "{}",
        f.message
    );
    std::fs::remove_file(lower.join("proc")).unwrap();
    std::fs::create_dir(lower.join("proc")).unwrap();

    // /dev and mount targets that climb stay inside.
    std::fs::remove_dir(lower.join("dev")).unwrap();
    symlink("../../../../../../etc", lower.join("dev")).unwrap();
    symlink(&secret, lower.join("out")).unwrap();
    std::fs::write(m.dir.path().join("file"), "bound").unwrap();
    let source = m.dir.path().join("file");
    let source = source.to_str().unwrap();
    let mut spec = m.spec(&sh("cat /out/deep/file; ls /etc/null"));
    spec.plan.mounts.push(Mount::parse(
        "bind",
        source,
        "/out/deep/file",
        ["bind", "ro"],
    ));
    let (record, out) = m.run(spec);
    assert_eq!((record.code, out.as_str()), (0, "bound/etc/null\n"));
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 0);
    assert!(!Path::new("/etc/null").exists());

    // Neither the working directory nor the program is reached through the monitor's descriptors.
    std::fs::remove_file(lower.join("dev")).unwrap();
    std::fs::create_dir(lower.join("dev")).unwrap();
    for n in 3..40 {
        let mut spec = m.spec(&["true"]);
        spec.plan.process.cwd = PathBuf::from(format!("/proc/self/fd/{n}"));
        let mut c = m.launch(spec);
        assert!(matches!(c.control.event(), Message::CreateFailed(f) if f.stage == Stage::Cwd));
    }
    let f = m.refused(m.spec(&["/proc/self/fd/7/bin/true"]));
    assert_eq!(f.stage, Stage::NotFound);
}

#[test]
fn the_monitors_program_cannot_be_overwritten_from_inside() {
    let m = Machine::new();
    let pid = m.zygote.as_ref().unwrap().pid();
    eventually("the zygote is sealed", || {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|p| p.to_string_lossy().starts_with("/memfd:"))
    });
    let open = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{pid}/exe"));
    let error = open.expect_err("not writable while it runs");
    assert!([libc::ETXTBSY, libc::EPERM].contains(&error.raw_os_error().unwrap()));
    // Through a descriptor that outlives the program the seals still hold.
    let copy = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&copy).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::SEAL));
}

#[test]
fn containers_outlive_daemon_and_zygote() {
    let mut m = Machine::new();
    let mut c = m.start(m.spec(&sh(
        "echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo bye; exit 3",
    )));
    c.logs("up");
    assert!(m.zygote.take().unwrap().close().unwrap().success());
    // The daemon is gone, a new one comes.
    let old = std::mem::replace(
        &mut c.control,
        Control::new(client::connect(&c.spec.dir).unwrap()),
    );
    drop(old);
    let Message::Info(info) = c.control.ask(Request::Info) else {
        panic!("no info")
    };
    assert_eq!(
        (info.pid, info.id.as_str()),
        (c.pid, c.spec.launch.id.as_str())
    );
    assert_eq!(c.exec(process(&["touch", "/tmp/go"])).unwrap().0, 0);
    assert_eq!(c.exited().code, 3);
    assert!(c.output().ends_with("bye\n"));
    assert!(client::connect(&c.spec.dir).is_err(), "the socket is gone");
}

#[test]
fn the_exit_is_recorded_when_nobody_listens() {
    let m = Machine::new();
    let c = m.start(m.spec(&sh("sleep 0.05; echo last; exit 11")));
    let spec = c.spec;
    drop(c.control);
    eventually("the record is there", || spec.launch.exit_path.exists());
    let record: ExitRecord =
        serde_json::from_slice(&std::fs::read(&spec.launch.exit_path).unwrap()).unwrap();
    assert_eq!(record.code, 11);
    assert_eq!(read_log(&spec.dir.join("json.log"))[0].1, "last\n");
}

#[test]
fn nonsense_on_the_socket_costs_one_connection() {
    use std::io::{Read, Write};
    let m = Machine::new();
    let mut c = m.start(m.spec(&["sleep", "1000"]));
    for bytes in [
        &[0xff; 64][..],
        &[3, 0, 0, 0, 1, 2, 3],
        &[0xff, 0xff, 0xff, 0x7f, 0],
    ] {
        let mut bad = client::connect(&c.spec.dir).unwrap();
        bad.set_read_timeout(Some(PATIENCE)).unwrap();
        bad.write_all(bytes).unwrap();
        assert_eq!(bad.read(&mut [0; 8]).unwrap_or(0), 0, "dropped");
    }
    assert!(matches!(
        c.control.ask(Request::Start),
        Message::Error {
            errno: libc::EALREADY,
            ..
        }
    ));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(c.spec.dir.join("monitor.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    c.kill();
}

#[test]
fn binds_volumes_and_copying_up() {
    let m = Machine::new();
    let host = m.dir.path().join("vol");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    let volume = m.dir.path().join("empty");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(m.lower().join("srv/page"), "from the image").unwrap();
    let script = "exec 2>&1; touch /ro/x; echo $?; touch /rw/y && echo made; cat /srv/page; touch /srv/new; ls /cp";
    let mut spec = m.spec(&sh(script));
    let host_path = host.to_str().unwrap();
    spec.plan.mounts.push(Mount::parse(
        "bind",
        host_path,
        "/ro",
        ["rbind", "ro", "rprivate"],
    ));
    spec.plan.mounts.push(Mount::parse(
        "bind",
        host_path,
        "/rw",
        ["rbind", "rw", "rprivate"],
    ));
    let mut data = Mount::parse("bind", volume.to_str().unwrap(), "/srv", ["rbind", "copy"]);
    data.copy_up = true;
    spec.plan.mounts.push(data);
    std::fs::create_dir(m.lower().join("cp")).unwrap();
    std::fs::write(m.lower().join("cp/inside"), "").unwrap();
    spec.plan
        .mounts
        .push(Mount::parse("tmpfs", "tmpfs", "/cp", ["ro", "tmpcopyup"]));
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 0);
    assert!(
        out.contains("Read-only file system\n1\nmade\nfrom the imageinside\n"),
        "{out}"
    );
    assert!(host.join("y").exists() && volume.join("new").exists());
    assert!(!m.lower().join("srv/new").exists());
}

#[test]
fn a_large_plan_and_a_long_path() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("echo ${#BIG}"));
    spec.plan
        .process
        .env
        .push(format!("BIG={}", "x".repeat(100_000)));
    let long = spec.dir.join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&long).unwrap();
    spec.launch.socket_dir = long.clone();
    let mut c = m.create(spec);
    assert!(client::connect(&long).is_ok());
    c.start();
    c.exited();
    assert_eq!(c.output(), "100000\n");
}

#[test]
fn many_at_once() {
    let m = Machine::new();
    for _ in 0..3 {
        let codes = 0..24;
        let launched: Vec<Container> = codes
            .clone()
            .map(|n| {
                let mut spec = m.spec(&sh(&format!("exit {n}")));
                m.with_cgroups(&mut spec);
                m.launch(spec)
            })
            .collect();
        for (mut c, code) in launched.into_iter().zip(codes) {
            assert!(matches!(c.control.event(), Message::Created { .. }));
            c.start();
            assert_eq!(c.exited().code, code);
        }
    }
}

#[test]
fn layers_whose_paths_are_long() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("cat /a /b; touch /c"));
    let deep = m.dir.path().join("x".repeat(200)).join("y, :z".repeat(40));
    for (n, name) in ["a", "b"].iter().enumerate() {
        let layer = deep.join(format!("layer:{n}"));
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join(name), name).unwrap();
    }
    spec.plan.rootfs = Some(MountPlan::single(Layer::Overlay {
        lower: vec![deep.join("layer:0"), deep.join("layer:1"), m.lower()],
        upper: Some(spec.dir.join("upper")),
        work: Some(spec.dir.join("work")),
        options: vec!["volatile".into()],
    }));
    let (record, out) = m.run(spec);
    assert_eq!((record.code, out.as_str()), (0, "ab"));
    assert!(m.dir.path().join("c0/upper/c").exists());
}

#[test]
fn a_client_that_does_not_read_holds_no_mount() {
    let m = Machine::new();
    let script = "trap 'exit 3' TERM; yes & while :; do sleep 0.01; done";
    let mut c = m.create(m.spec(&sh(script)));
    let (mut stream, _) = c.attach(false);
    c.start();
    let mut sizes = vec![0];
    eventually("the client stalls the container", || {
        sizes.push(
            std::fs::metadata(c.spec.dir.join("json.log"))
                .unwrap()
                .len(),
        );
        sizes.len() > 50
            && sizes[sizes.len() - 50] == sizes[sizes.len() - 1]
            && sizes[sizes.len() - 1] > 0
    });
    c.signal(libc::SIGTERM);
    assert_eq!(c.exited().code, 3);
    assert!(running(c.monitor), "it has the client's output still");
    let (out, _) = demultiplex(&mut stream);
    assert_eq!(out.len(), c.output().len());
}

#[test]
fn a_monitor_is_small() {
    let m = Machine::new();
    let c: Vec<Container> = (0..3)
        .map(|_| m.start(m.spec(&["sleep", "1000"])))
        .collect();
    for c in &c {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", c.monitor)).unwrap();
        let kb = |field: &str| -> u64 {
            let line = text.lines().find(|l| l.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let private = kb("Private_Dirty:");
        println!("monitor: {private} KB private, {} KB resident", kb("Rss:"));
        assert!(private <= 100, "{text}");
    }
    for c in c {
        c.kill();
    }
}
