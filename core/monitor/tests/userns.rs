//! Containers with a user namespace of their own.

mod common;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use common::*;
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

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
    let mut spec = remapped(&m, &["true"]);
    spec.launch.namespaces.pid = Namespace::Path(PathBuf::from("/proc/self/ns/pid"));
    assert_eq!(m.refused(spec).stage, Stage::Plan);
    assert_eq!(m.refused(remapped(&m, &["no-such"])).stage, Stage::NotFound);
}
