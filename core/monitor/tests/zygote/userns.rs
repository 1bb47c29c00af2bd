//! Containers with a user namespace of their own.

use std::os::unix::fs::chown;
use std::path::Path;

use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use crate::common::*;

const BASE: u32 = 200_000;

/// A launch in a user namespace, on a root file system that belongs to it, with devices bound from the host.
fn remapped(m: &Machine, argv: &[&str]) -> Spec {
    let mut spec = m.spec(argv);
    let map = vec![IdMap {
        inside: 0,
        outside: BASE,
        count: 65_536,
    }];
    spec.launch.namespaces.user = Namespace::New;
    spec.launch.namespaces.cgroup = Namespace::New;
    (spec.launch.uid_map, spec.launch.gid_map) = (map.clone(), map);
    own(&m.lower());
    for sub in ["upper", "work"] {
        own(&spec.dir.join(sub));
    }
    spec
}

fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(BASE), Some(BASE)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

#[test]
fn root_inside_is_nobody_outside() {
    let m = Machine::new();
    let script = "id; cat /proc/self/uid_map; touch /made; echo again > /dev/stdout; echo x > /dev/null; \
                  cat /vol/secret; ls /sys/class/net; grep CapEff /proc/self/status; exit 3";
    let mut spec = remapped(&m, &sh(script));
    // A volume behind a directory that only the host's root may enter.
    let hidden = m.dir.path().join("hidden");
    std::fs::create_dir_all(hidden.join("vol")).unwrap();
    std::fs::write(hidden.join("vol/secret"), "seen\n").unwrap();
    chown(&hidden, Some(0), Some(0)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&hidden, mode).unwrap();
    let source = hidden.join("vol");
    spec.plan.mounts.push(Mount::parse(
        "bind",
        source.to_str().unwrap(),
        "/vol",
        ["rbind", "rprivate"],
    ));
    let mounts = Mount::parse(
        "cgroup",
        "cgroup",
        "/sys/fs/cgroup",
        ["ro", "nosuid", "nodev", "noexec"],
    );
    spec.plan.mounts.push(mounts);
    m.with_cgroups(&mut spec);
    let upper = spec.dir.join("upper/made");
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 3, "{out}");
    assert!(out.starts_with("uid=0(root) gid=0(root)"), "{out}");
    assert!(out.contains("200000      65536"), "{out}");
    assert!(out.contains("again\nseen\nlo\n"), "{out}");
    assert!(out.contains("CapEff:\t00000000a80425fb"), "{out}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(upper).unwrap().uid(), BASE);
}

#[test]
fn execs_join_it_and_users_are_its_own() {
    let m = Machine::new();
    let mut c = m.start(remapped(&m, &["sleep", "1000"]));
    let ns = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(ns(c.pid), ns(std::process::id() as i32));
    let (code, out, _) = c
        .exec(process(&sh(
            "readlink /proc/self/ns/user; echo hi > /dev/stdout; id -u",
        )))
        .unwrap();
    assert_eq!(code, 0);
    assert_eq!(out, format!("{}\nhi\n0\n", ns(c.pid).display()));
    let mut web = process(&sh("id; echo $HOME > /dev/stdout"));
    web.user = User::Name {
        spec: "web".into(),
        groups: vec![],
    };
    let (_, out, err) = c.exec(web).unwrap();
    assert_eq!(
        out, "uid=33(web) gid=44(web) groups=44(web),50(extra)\n/srv\n",
        "{err}"
    );
    c.kill();
}

#[test]
fn a_terminal_and_a_network_of_the_host() {
    let m = Machine::new();
    let mut spec = remapped(&m, &sh("tty; ls /sys/class/net | head -1; exit 5"));
    spec.launch.stdio.tty = true;
    spec.launch.namespaces.net = Namespace::Host;
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 5, "{out}");
    assert!(out.starts_with("/dev/pts/0\r\n"), "{out}");
}

#[test]
fn failures_leave_nothing() {
    let m = Machine::new();
    let mut spec = remapped(&m, &["true"]);
    spec.plan
        .mounts
        .push(Mount::parse("bind", "/no/such", "/mnt", ["bind"]));
    assert_eq!(m.refused(spec).stage, Stage::Mount);
    let mut spec = remapped(&m, &["true"]);
    spec.launch.uid_map[0].count = 0;
    assert_eq!(m.refused(spec).stage, Stage::Namespace);
    let mut spec = mapped(&m, &["true"]);
    let proc = Mount::parse("bind", "/proc", "/mnt", ["rbind", "idmap"]);
    spec.plan.mounts.push(proc);
    let failure = m.refused(spec);
    assert!(
        failure
            .message
            .contains("does not support ID-mapped mounts"),
        "{}",
        failure.message
    );
    assert_eq!(m.refused(remapped(&m, &["no-such"])).stage, Stage::NotFound);
}

/// The process between the monitor and the container's first one says who that is, however late it comes to it.
#[test]
fn the_first_process_waits_until_the_monitor_knows_it() {
    let script = format!(
        "#!/bin/sh\nexec strace -D -f -qq -o /dev/null -e trace=clone3 -e inject=clone3:delay_exit=300000 {} \"$@\"\n",
        env!("CARGO_BIN_EXE_gantry-monitor")
    );
    let m = Machine::with_wrapper(Some(&script));
    m.create(remapped(&m, &["true"])).kill();
    let mut spec = remapped(&m, &["true"]);
    spec.launch.stdio.tty = true;
    m.create(spec).kill();
}

/// As [`remapped`], but the files stay the host's root's on the disk.
fn mapped(m: &Machine, argv: &[&str]) -> Spec {
    let mut spec = m.spec(argv);
    let map = vec![IdMap {
        inside: 0,
        outside: BASE,
        count: 65_536,
    }];
    spec.launch.namespaces.user = Namespace::New;
    (spec.launch.uid_map, spec.launch.gid_map) = (map.clone(), map);
    spec.plan.idmapped_root = true;
    spec
}

#[test]
fn mapped_files_are_roots_inside_and_on_the_disk() {
    use std::os::unix::fs::MetadataExt;
    let m = Machine::new();
    std::fs::write(m.lower().join("web-file"), "w").unwrap();
    chown(m.lower().join("web-file"), Some(33), Some(44)).unwrap();
    let script = "stat -c '%n %u %g' /bin/busybox /web-file /vol/mine /host /dev/null /dev/fifo; echo changed >> /web-file; \
                  echo x > /dev/null; mkdir /made; echo y > /vol/new; cat /host/secret; echo z > /host/new; \
                  head -c 4 /dev/custom | wc -c";
    let mut spec = mapped(&m, &sh(script));
    let (volume, host) = (m.dir.path().join("volume"), m.dir.path().join("host"));
    for dir in [&volume, &host] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(volume.join("mine"), "").unwrap();
    std::fs::write(host.join("secret"), "seen").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(host.join("secret"), mode).unwrap();
    let bind = |source: &Path, target: &str, option: &str| {
        Mount::parse("bind", source.to_str().unwrap(), target, ["rbind", option])
    };
    spec.plan.mounts.push(bind(&volume, "/vol", "idmap"));
    spec.plan.mounts.push(bind(&host, "/host", "rprivate"));
    // No such path on the host: the node is made of its numbers.
    spec.plan.devices.push(Device {
        path: "/dev/custom".into(),
        major: 1,
        minor: 5,
        mode: 0o600,
        ..Device::default()
    });
    spec.plan.devices.push(Device {
        path: "/dev/fifo".into(),
        kind: DeviceKind::Fifo,
        mode: 0o600,
        uid: 7,
        ..Device::default()
    });
    let upper = spec.dir.join("upper");
    let (record, out) = m.run(spec);
    let owner = |path: &Path| {
        (
            path.metadata().unwrap().uid(),
            path.metadata().unwrap().gid(),
        )
    };
    // Each stream is in order, one beside the other is not.
    assert!(
        out.contains(
            "/bin/busybox 0 0\n/web-file 33 44\n/vol/mine 0 0\n/host 65534 65534\n/dev/null 0 0\n/dev/fifo 7 0\n"
        ),
        "{out}"
    );
    assert!(
        out.contains("can't open '/host/secret': Permission denied"),
        "{out}"
    );
    assert!(
        out.contains("can't create /host/new: Permission denied"),
        "{out}"
    );
    assert!(out.contains("\n4\n") && record.code == 0, "{out}");
    assert_eq!(owner(&upper.join("made")), (0, 0));
    assert_eq!(owner(&upper.join("web-file")), (33, 44));
    assert_eq!(owner(&volume.join("new")), (0, 0));
    assert!(!host.join("new").exists());
}

#[test]
fn layers_with_long_paths_are_mapped_too() {
    let m = Machine::new();
    let mut spec = mapped(&m, &sh("cat /deep; echo new > /deep"));
    let deep = m.dir.path().join("x".repeat(120)).join("y".repeat(140));
    let layers: Vec<_> = (0..40).map(|n| deep.join(n.to_string())).collect();
    for layer in &layers {
        std::fs::create_dir_all(layer).unwrap();
    }
    std::fs::write(layers[39].join("deep"), "found\n").unwrap();
    let Some(gantry_driver_api::Mount::Overlay { lower, .. }) = spec
        .plan
        .rootfs
        .as_mut()
        .and_then(|plan| plan.mounts.first_mut())
    else {
        panic!("no overlay")
    };
    lower.extend(layers);
    let (record, out) = m.run(spec);
    assert_eq!((record.code, out.as_str()), (0, "found\n"));
}

/// A user and a network namespace made by the zygote.
fn namespaces(m: &Machine) -> [std::os::fd::OwnedFd; 2] {
    let launch = mapped(m, &[]).launch;
    let launch = Launch {
        only_namespaces: true,
        ..launch
    };
    let zygote = m.zygote.as_ref().unwrap();
    let socket = zygote.launch(&launch, &Plan::default(), &[]).unwrap();
    let mut control = Control::new(socket);
    assert_eq!(control.event(), Message::UserNs);
    assert_eq!(control.event(), Message::Netns);
    let [user, net] = std::mem::take(&mut control.fds).try_into().unwrap();
    [user, net]
}

#[test]
fn namespaces_made_before_belong_to_the_container() {
    let m = Machine::new();
    let script = "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward; ip link set lo up; echo $?; exec sleep 1000";
    let mut spec = mapped(&m, &sh(script));
    spec.plan.process.capabilities.bounding |= 1 << 12;
    spec.plan.process.capabilities.permitted |= 1 << 12;
    spec.plan.process.capabilities.effective |= 1 << 12;
    spec.plan
        .sysctls
        .insert("net.ipv4.ip_forward".into(), "1".into());
    spec.launch.namespaces.user = Namespace::Fd;
    spec.launch.namespaces.net = Namespace::Fd;
    spec.launch.fds = vec![
        FdRole::Namespace(NamespaceKind::User),
        FdRole::Namespace(NamespaceKind::Net),
    ];
    spec.namespaces = namespaces(&m).into();
    let first = m.start(spec);
    first.logs("lo\n1\n0\n");

    // Another container in the namespaces of the first.
    let mut spec = mapped(&m, &sh("head -1 /proc/1/comm; readlink /proc/self/ns/user"));
    let path = |kind: &str| Namespace::Path(format!("/proc/{}/ns/{kind}", first.pid).into());
    spec.launch.namespaces.user = path("user");
    spec.launch.namespaces.pid = path("pid");
    spec.launch.namespaces.ipc = path("ipc");
    let user = std::fs::read_link(format!("/proc/{}/ns/user", first.pid)).unwrap();
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 0, "{out}");
    assert_eq!(out, format!("sleep\n{}\n", user.display()));
    first.kill();
}
