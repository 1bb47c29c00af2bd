//! Runs containers: exit codes, signals, users, namespaces, cgroups, the end.

use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;
use std::os::fd::AsFd;

use crate::common::*;

#[test]
fn exit_codes_and_output() {
    let m = Machine::new();
    let (record, output) = m.run(m.spec(&sh("echo out; echo err >&2; exit 7")));
    assert_eq!((record.code, record.signal, record.oom), (7, None, false));
    assert!(record.started_at > 0 && record.exited_at >= record.started_at);
    assert_eq!(output.lines().count(), 2);
    assert_eq!(m.run(m.spec(&["true"])).0.code, 0);
    assert_eq!(m.run(m.spec(&["/bin/false"])).0.code, 1);
}

#[test]
fn signals_reach_the_process() {
    let m = Machine::new();
    let c = m.start(m.spec(&["sleep", "1000"]));
    c.kill();
    let mut c = m.start(m.spec(&sh(
        "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
    )));
    c.logs("ready");
    c.signal(libc::SIGTERM);
    assert_eq!(c.exited().code, 3);
    assert!(c.output().contains("got"));
    // Killed before it was started: never ran, but ended.
    let mut c = m.create(m.spec(&["true"]));
    c.signal(libc::SIGKILL);
    let record = c.exited();
    assert_eq!((record.signal, record.started_at), (Some(9), 0));
}

#[test]
fn signal_dispositions_are_clean() {
    let m = Machine::new();
    let (_, status) = m.run(m.spec(&["grep", "^Sig\\|^ShdPnd", "/proc/self/status"]));
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(
            status.contains(&format!("{mask}:\t0000000000000000")),
            "{status}"
        );
    }
}

#[test]
fn the_view_from_inside() {
    let m = Machine::new();
    let script = "echo pid $$; hostname; cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc/self/fd; \
                  stat -c '%F %t %T %a' /dev/null; readlink /dev/fd; stat -c %a /tmp; pwd; env";
    let (_, out) = m.run(m.spec(&sh(script)));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "pid 1");
    assert_eq!(lines[1], "box");
    assert!(lines[2].starts_with("sh -c"));
    assert_eq!(
        lines[3..7],
        ["0", "1", "2", "3"],
        "only ls's own directory beside the streams"
    );
    assert_eq!(lines[7], "character special file 1 3 666");
    assert_eq!(lines[8], "/proc/self/fd");
    assert!(out.contains("\nHOME=/root\n"));
    let (_, mounts) = m.run(m.spec(&["cat", "/proc/self/mountinfo"]));
    for (at, how) in [
        ("/proc", "proc"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/sys", "sysfs"),
    ] {
        assert!(
            mounts
                .lines()
                .any(|l| l.contains(&format!(" {at} ")) && l.contains(how)),
            "{mounts}"
        );
    }
    assert!(
        !mounts.contains("lower /"),
        "the host's mounts are gone: {mounts}"
    );
    assert!(
        mounts
            .lines()
            .any(|l| l.contains(" /sys ro,nosuid,nodev,noexec")),
        "{mounts}"
    );
}

#[test]
fn masked_and_read_only_paths() {
    let m = Machine::new();
    let script = "exec 2>&1; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x; \
                  echo 1 > /proc/sys/kernel/domainname; echo $?; touch /ok && echo writable";
    let (_, out) = m.run(m.spec(&sh(script)));
    assert!(out.contains("0\n0\n"), "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
    assert!(out.contains("writable"));
    let mut spec = m.spec(&sh("touch /x; echo code $?; touch /dev/shm/x && echo shm"));
    spec.plan.readonly_root = true;
    let (_, out) = m.run(spec);
    assert!(out.contains("code 1") && out.contains("shm"), "{out}");
}

#[test]
fn users_groups_and_directories() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("id; pwd; echo $HOME; echo hi > /dev/stdout"));
    spec.plan.process.user = User::Name {
        spec: "web".into(),
        groups: vec!["77".into()],
    };
    spec.plan.process.cwd = "/made/here".into();
    spec.plan.process.create_cwd = true;
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 0);
    let want = "uid=33(web) gid=44(web) groups=44(web),50(extra),77\n/made/here\n/srv\nhi\n";
    assert_eq!(out, want);
    let mut spec = m.spec(&["true"]);
    spec.plan.process.user = User::Name {
        spec: "nobody".into(),
        groups: vec![],
    };
    let failure = m.refused(spec);
    assert_eq!(failure.stage, Stage::User);
    assert_eq!(
        failure.message,
        "unable to find user nobody: no matching entries in passwd file"
    );
    let mut spec = m.spec(&["true"]);
    spec.plan.process.cwd = "/nowhere".into();
    assert_eq!(m.refused(spec).stage, Stage::Cwd);
}

#[test]
fn capabilities_filters_and_limits() {
    let m = Machine::new();
    let mut spec = m.spec(&["cat", "/proc/self/status", "/proc/self/limits"]);
    spec.plan.process.no_new_privileges = true;
    spec.plan.process.seccomp = Some(allow_all());
    spec.plan.process.rlimits = vec![Rlimit {
        resource: libc::RLIMIT_NOFILE,
        soft: 100,
        hard: 1 << 30,
    }];
    let (_, out) = m.run(spec);
    assert!(out.contains("CapEff:\t00000000a80425fb"), "{out}");
    assert!(out.contains("CapBnd:\t00000000a80425fb"), "{out}");
    assert!(out.contains("CapInh:\t0000000000000000"), "{out}");
    assert!(
        out.contains("Seccomp:\t2") && out.contains("NoNewPrivs:\t1"),
        "{out}"
    );
    assert!(out.contains("Max open files            100 "), "{out}");

    // A user that is not root has no capabilities but the ambient ones; the filter is on without no_new_privs too.
    let mut spec = m.spec(&["cat", "/proc/self/status"]);
    spec.plan.process.user = User::Ids {
        uid: 33,
        gid: 44,
        groups: vec![],
    };
    spec.plan.process.capabilities.inheritable = 1 << 10;
    spec.plan.process.capabilities.ambient = 1 << 10;
    spec.plan.process.seccomp = Some(deny_mkdir());
    let (_, out) = m.run(spec);
    assert!(out.contains("CapEff:\t0000000000000400"), "{out}");
    assert!(out.contains("CapAmb:\t0000000000000400"), "{out}");
    assert!(
        out.contains("Seccomp:\t2") && out.contains("NoNewPrivs:\t0"),
        "{out}"
    );

    let mut spec = m.spec(&sh("exec 2>&1; mkdir /tmp/x; echo $?"));
    spec.plan.process.seccomp = Some(deny_mkdir());
    let (_, out) = m.run(spec);
    assert!(
        out.contains("Operation not permitted") && out.contains("1\n"),
        "{out}"
    );
}

#[test]
fn what_cannot_be_run_is_told_in_dockers_words() {
    let m = Machine::new();
    let f = m.refused(m.spec(&["no-such"]));
    assert_eq!(f.stage, Stage::NotFound);
    assert_eq!(
        f.message,
        r#"exec: "no-such": executable file not found in $PATH"#
    );
    let f = m.refused(m.spec(&["/no/such"]));
    assert_eq!(
        f.message,
        r#"exec: "/no/such": stat /no/such: no such file or directory"#
    );
    let f = m.refused(m.spec(&["/etc/passwd"]));
    assert_eq!((f.stage, f.errno), (Stage::NotExecutable, libc::EACCES));
    assert_eq!(f.message, r#"exec: "/etc/passwd": permission denied"#);
    std::fs::write(m.lower().join("bin/garbage"), "\x7fELF garbage").unwrap();
    std::fs::write(m.lower().join("bin/lost"), "#!/no/interpreter\n").unwrap();
    for name in ["garbage", "lost"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(m.lower().join("bin").join(name), mode).unwrap();
    }
    let f = m.refused(m.spec(&["garbage"]));
    assert_eq!(
        (f.stage, f.message.as_str()),
        (Stage::NotExecutable, "exec /bin/garbage: exec format error")
    );
    let f = m.refused(m.spec(&["lost"]));
    assert_eq!(
        (f.stage, f.message.as_str()),
        (Stage::NotFound, "exec /bin/lost: no such file or directory")
    );
}

#[test]
fn joined_network_namespace_and_taking_it() {
    let m = Machine::new();
    let first = m.create(m.spec(&["sleep", "1000"]));
    let mut first = first;
    assert_eq!(first.control.ask(Request::TakeNetns), Message::Netns);
    let netns = first.control.fds.pop().expect("a descriptor came along");
    let inode = |pid: i32, ns: &str| std::fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
    let mut spec = m.spec(&["sleep", "1000"]);
    spec.launch.namespaces.net = Namespace::Fd;
    spec.launch.namespaces.ipc = Namespace::Path(format!("/proc/{}/ns/ipc", first.pid).into());
    spec.launch.namespaces.pid = Namespace::Path(format!("/proc/{}/ns/pid", first.pid).into());
    spec.launch.fds = vec![FdRole::Namespace(NamespaceKind::Net)];
    spec.namespaces
        .push(netns.as_fd().try_clone_to_owned().unwrap());
    m.with_cgroups(&mut spec);
    first.start();
    let second = m.start(spec);
    for ns in ["net", "ipc", "pid"] {
        assert_eq!(inode(first.pid, ns), inode(second.pid, ns), "{ns}");
        assert_ne!(
            inode(first.pid, ns),
            inode(std::process::id() as i32, ns),
            "{ns}"
        );
    }
    assert_ne!(inode(first.pid, "mnt"), inode(second.pid, "mnt"));
    assert_ne!(inode(first.pid, "uts"), inode(second.pid, "uts"));
    second.kill();
    first.kill();
}

#[test]
fn a_mount_of_another_container_is_bound() {
    let m = Machine::new();
    let first = m.start(m.spec(&sh("echo shared > /dev/shm/x; echo ready; sleep 1000")));
    first.logs("ready");
    let mut spec = m.spec(&["cat", "/dev/shm/x"]);
    let source = format!("/proc/{}/root/dev/shm", first.pid);
    spec.plan.mounts.push(Mount::parse(
        "bind",
        &source,
        "/dev/shm",
        ["rbind", "rprivate"],
    ));
    assert_eq!(m.run(spec).1, "shared\n");
    first.kill();
}

#[test]
fn cgroups_are_joined_and_shown() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/pids/tasks; mount | grep cgroup"));
    spec.launch.namespaces.cgroup = Namespace::New;
    spec.plan.mounts.push(Mount::parse(
        "cgroup",
        "cgroup",
        "/sys/fs/cgroup",
        ["nosuid", "noexec", "nodev", "ro"],
    ));
    m.with_cgroups(&mut spec);
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 0, "{out}");
    assert!(
        out.contains(":pids:/\n") && out.contains(":memory:/\n"),
        "{out}"
    );
    assert!(out.contains("freezer\n") && out.contains("1\n"), "{out}");
    assert!(
        out.contains("/sys/fs/cgroup/memory type cgroup (ro,nosuid,nodev,noexec"),
        "{out}"
    );
}

#[test]
fn an_oom_kill_is_seen() {
    let m = Machine::new();
    let mut spec = m.spec(&sh("dd if=/dev/zero of=/dev/null bs=64M count=1"));
    m.with_cgroups(&mut spec);
    let memory = spec.launch.cgroup.memory.clone().unwrap();
    std::fs::write(memory.join("memory.limit_in_bytes"), "8M").unwrap();
    let _ = std::fs::write(memory.join("memory.memsw.limit_in_bytes"), "8M");
    let (record, _) = m.run(spec);
    assert!(record.oom, "{record:?}");
    assert_eq!(record.code, 137);
}

#[test]
fn orphans_die_with_the_container() {
    let m = Machine::new();
    let mut c = m.start(m.spec(&sh("setsid sleep 1000 & setsid sh -c 'sleep 0.01; exit 3' & sleep 0.1; ps -o pid,ppid,stat,args; sleep 1000")));
    c.logs("sleep 1000");
    c.signal(libc::SIGKILL);
    c.exited();

    // Without a PID namespace the monitor reaps them and kills what is in the cgroup.
    let mut spec = m.spec(&sh("setsid sleep 1001 & echo $!; exit 4"));
    spec.launch.namespaces.pid = Namespace::Host;
    m.with_cgroups(&mut spec);
    let (record, out) = m.run(spec);
    assert_eq!(record.code, 4);
    assert!(!running(out.trim().parse().unwrap()));
}

#[test]
fn sysctls_and_names() {
    let m = Machine::new();
    let mut spec = m.spec(&sh(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/kernel/domainname",
    ));
    spec.plan.domainname = Some("dom".into());
    spec.plan
        .sysctls
        .insert("net.ipv4.ip_forward".into(), "1".into());
    spec.plan
        .sysctls
        .insert("kernel.shmmni".into(), "123".into());
    assert_eq!(m.run(spec).1, "1\n123\ndom\n");
    let mut spec = m.spec(&["true"]);
    spec.plan.sysctls.insert("net.no.such".into(), "1".into());
    let f = m.refused(spec);
    assert_eq!(
        f.message,
        "write sysctl key net.no.such: no such file or directory"
    );
}

/// A filter that lets everything pass.
fn allow_all() -> Seccomp {
    filter(&[(0x06, 0, 0, 0x7fff_0000)])
}

/// A filter that answers mkdir(2) and mkdirat(2) with EPERM.
fn deny_mkdir() -> Seccomp {
    filter(&[
        (0x20, 0, 0, 0),
        (0x15, 2, 0, libc::SYS_mkdir as u32),
        (0x15, 1, 0, libc::SYS_mkdirat as u32),
        (0x06, 0, 0, 0x7fff_0000),
        (0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32),
    ])
}

fn filter(instructions: &[(u16, u8, u8, u32)]) -> Seccomp {
    let mut program = Vec::new();
    for (code, jt, jf, k) in instructions {
        program.extend_from_slice(&code.to_ne_bytes());
        program.extend_from_slice(&[*jt, *jf]);
        program.extend_from_slice(&k.to_ne_bytes());
    }
    Seccomp { program, flags: 0 }
}
