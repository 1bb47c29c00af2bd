//! Containers of Gantry's own runtime, through the real zygote and monitor.

mod common;

use std::sync::Arc;

use common::*;
use gantry_model::ContainerId;
use gantry_runtime::spec::{
    DeviceInput, MountInput, NamespaceMode, SeccompChoice, ShmInput, TmpfsInput, Ulimit,
};
use gantry_runtime::{ConsoleSize, Reconnected, Runtime, RuntimeError, SpecInput, StartErrorKind};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_container_says_hello_and_leaves_nothing() {
    let bed = Bed::new("hello").await;
    let input = bed.shell("echo out; echo err >&2; exit 3");
    let log = bed.log(&input).path;
    let (out, status) = bed.run(&input).await;
    assert_eq!(out, "out\nerr\n");
    assert_eq!((status.code, status.signal, status.oom), (3, None, false));
    assert!(!status.started_at.is_zero() && status.exited_at >= status.started_at);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains(r#"{"log":"out\n","stream":"stdout","time":""#),
        "{log}"
    );
    bed.assert_clean();
}

#[tokio::test]
async fn dockers_surroundings() {
    let bed = Bed::new("defaults").await;
    let script = "hostname; pwd; env; id; cat /proc/self/status; ls /dev; cat /proc/mounts; ls -l /dev/fd /dev/ptmx; \
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/cgroup";
    let mut input = bed.shell(script);
    input.env = vec!["A=1".into(), "B=2".into(), "B=3".into()];
    input.cwd = "/made/here".into();
    let (out, status) = bed.run(&input).await;
    assert_eq!(status.code, 0, "{out}");
    let has = |text: &str| assert!(out.contains(text), "no {text:?} in {out}");
    assert!(
        out.starts_with(&format!("{}\n/made/here\n", input.id.short())),
        "{out}"
    );
    has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    has(&format!("HOSTNAME={}\n", input.id.short()));
    has("HOME=/root\n");
    has("B=3\n");
    has("uid=0(root) gid=0(root) groups=0(root),10(wheel)\n");
    has("CapEff:\t00000000a80425fb\n");
    has("CapBnd:\t00000000a80425fb\n");
    has("CapInh:\t0000000000000000\n");
    has("NoNewPrivs:\t0\n");
    has("Seccomp:\t2\n");
    has("Seccomp_filters:\t1\n");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue",
    ] {
        has(&format!("{device}\n"));
    }
    has(" /proc proc rw,nosuid,nodev,noexec");
    has(" /sys sysfs ro,nosuid,nodev,noexec");
    has(" /dev tmpfs rw,nosuid,size=65536k,mode=755");
    has(" /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k");
    has(" /sys/fs/cgroup");
    has("/proc/self/fd\n");
    has("pts/ptmx\n");
    bed.assert_clean();
}

#[tokio::test]
async fn users_are_found_inside() {
    let bed = Bed::new("users").await;
    let script = "id; cd; pwd; grep CapEff /proc/self/status";
    let out = bed
        .script(script, |i| {
            i.user = "user".into();
            i.additional_groups = vec!["extra".into(), "4242".into()];
        })
        .await;
    assert!(out.contains("uid=1000(user) gid=1001(user)"), "{out}");
    for group in ["29(audio)", "77(extra)", "4242"] {
        assert!(out.contains(group), "{out}");
    }
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    let out = bed.script("id", |i| i.user = "5:29".into()).await;
    assert!(out.starts_with("uid=5 gid=29(audio)"), "{out}");
    let mut input = bed.shell("true");
    input.user = "stranger".into();
    let error = bed.create(&input).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user stranger: no matching entries in passwd file"
    );
    bed.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_executed_is_told_as_docker_does() {
    let bed = Bed::new("notfound").await;
    let cases = [
        (
            "nothing-of-this-name",
            StartErrorKind::NotFound,
            127,
            r#"exec: "nothing-of-this-name": executable file not found in $PATH"#,
        ),
        (
            "/bin/none",
            StartErrorKind::NotFound,
            127,
            r#"exec: "/bin/none": stat /bin/none: no such file or directory"#,
        ),
        (
            "/etc/not-executable",
            StartErrorKind::Permission,
            126,
            "permission denied",
        ),
        ("/etc", StartErrorKind::Permission, 126, ""),
    ];
    for (program, kind, code, words) in cases {
        let input = SpecInput::new(ContainerId::generate(), vec![program.into()]);
        // It may be seen before the start or at the start.
        let error = match bed.create(&input).await {
            Err(RuntimeError::Start(error)) => error,
            Err(other) => panic!("{other:?}"),
            Ok(process) => {
                let error = within(process.start()).await.unwrap_err();
                assert_eq!(within(process.wait()).await.unwrap().code, code);
                process.delete().await.unwrap();
                error
            }
        };
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    bed.assert_clean();
}

#[tokio::test]
async fn signals_and_exit_codes() {
    let bed = Bed::new("signals").await;
    let input = bed.shell("trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let process = bed.create(&input).await.unwrap();
    let mut attached = process.attach(output()).await.unwrap();
    process.start().await.unwrap();
    let mut head = [0; 14];
    within(attached.stream.read_exact(&mut head)).await.unwrap();
    assert!(process.exited().is_none());
    process.signal(libc::SIGTERM).await.unwrap();
    // Many may wait.
    let (a, b) = within(async { tokio::join!(process.wait(), process.wait()) }).await;
    assert_eq!(a.unwrap().code, 7);
    assert_eq!(b.unwrap().code, 7);
    assert!(matches!(
        process.signal(libc::SIGTERM).await,
        Err(RuntimeError::NotRunning)
    ));
    process.delete().await.unwrap();
    process.delete().await.unwrap();

    let input = bed.shell("sleep 1000");
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    process.signal(libc::SIGKILL).await.unwrap();
    let status = within(process.wait()).await.unwrap();
    assert_eq!((status.code, status.signal), (137, Some(9)));
    process.delete().await.unwrap();
    bed.assert_clean();
}

/// A child that ends before anybody looks must be seen to end.
#[tokio::test]
async fn no_exit_is_lost() {
    let bed = Arc::new(Bed::new("quick").await);
    for _ in 0..10 {
        let mut all = tokio::task::JoinSet::new();
        for code in 0..8 {
            let bed = Arc::clone(&bed);
            all.spawn(async move {
                let input = bed.shell(&format!("exit {code}"));
                let process = bed.create(&input).await.unwrap();
                process.start().await.unwrap();
                let status = within(process.wait()).await.unwrap();
                process.delete().await.unwrap();
                assert_eq!(status.code, code);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    }
    bed.assert_clean();
}

#[tokio::test]
async fn execs_have_the_containers_surroundings() {
    let bed = Bed::new("exec").await;
    let mut input = bed.shell("sleep 1000");
    input.env = vec!["FOO=bar".into()];
    input.cwd = "/tmp".into();
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    assert_eq!(process.pids().await.unwrap(), [process.pid()]);
    let status = "/proc/self/status";
    let (out, err, code) = exec(&process, exec_request(&["cat", status])).await;
    assert_eq!((err.as_str(), code), ("", 0));
    // The filter and the capabilities are the container's.
    for line in ["Seccomp:\t2\n", "CapEff:\t00000000a80425fb\n", "NSpid:"] {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
    let mut request = exec_request(&["sh", "-c", "pwd; echo $FOO$X; id; echo oops >&2; exit 5"]);
    request.env = vec!["X=y".into()];
    let (out, err, code) = exec(&process, request).await;
    assert!(out.starts_with("/tmp\nbary\nuid=0(root)"), "{out}");
    assert_eq!((err.as_str(), code), ("oops\n", 5));
    let mut request = exec_request(&["sh", "-c", "id; pwd; echo $HOME"]);
    request.user = Some("user".into());
    request.cwd = Some("/".into());
    let (out, ..) = exec(&process, request).await;
    assert!(out.starts_with("uid=1000(user) gid=1001(user)"), "{out}");
    assert!(out.ends_with("\n/\n/home/user\n"), "{out}");
    let mut request = exec_request(&["grep", "-E", "CapEff|Seccomp:", status]);
    request.privileged = true;
    let (out, ..) = exec(&process, request).await;
    let all = format!("CapEff:\t{:016x}\n", bed.runtime.host().bounding_set.bits());
    assert!(out.contains(&all) && out.contains("Seccomp:\t2"), "{out}");
    let error = process
        .exec(exec_request(&["no-such-thing"]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Start(e) if e.kind == StartErrorKind::NotFound),
        "{error:?}"
    );
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn execs_have_terminals_input_and_signals() {
    let bed = Bed::new("exectty").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let mut request = exec_request(&["sh", "-c", "stty size; echo $TERM; test -t 0 && echo tty"]);
    request.tty = true;
    request.stdin = true;
    request.console_size = Some(ConsoleSize {
        height: 33,
        width: 44,
    });
    let (out, _, code) = exec(&process, request).await;
    assert_eq!((out.as_str(), code), ("33 44\r\nxterm\r\ntty\r\n", 0));
    let mut request = exec_request(&["cat"]);
    request.stdin = true;
    let mut running = process.exec(request).await.unwrap();
    let Some(gantry_runtime::ExecStdio::Pipes { stdin, stdout, .. }) = running.take_stdio() else {
        panic!("no pipes");
    };
    std::io::Write::write_all(&mut std::fs::File::from(stdin.unwrap()), b"through").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(stdout.unwrap()), &mut text).unwrap();
    assert_eq!(text, "through");
    assert_eq!(within(running.wait()).await.unwrap().code, 0);
    let running = process
        .exec(exec_request(&["sleep", "1000"]))
        .await
        .unwrap();
    running.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(running.wait()).await.unwrap().code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn standard_input_is_attached_and_ends() {
    let bed = Bed::new("stdin").await;
    let mut request = bed.request(&bed.shell("cat; echo end"));
    request.open_stdin = true;
    request.stdin_once = true;
    let process = bed.runtime.create(request).await.unwrap();
    let mut attached = process
        .attach(gantry_runtime::Attach {
            stdin: true,
            ..output()
        })
        .await
        .unwrap();
    process.start().await.unwrap();
    feed(&mut attached.stream, b"hello ").await;
    let out = unframe(&drain(attached).await);
    assert_eq!(String::from_utf8_lossy(&out), "hello end\n");
    assert_eq!(within(process.wait()).await.unwrap().code, 0);
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn a_terminal() {
    let bed = Bed::new("tty").await;
    let mut input =
        bed.shell("stty size; echo $TERM; test -t 1 && echo yes; readlink /proc/self/fd/0");
    input.tty = true;
    let mut request = bed.request(&input);
    request.console_size = Some(ConsoleSize {
        height: 20,
        width: 30,
    });
    let (out, status) = bed.run_request(request).await;
    assert_eq!(status.code, 0);
    assert!(out.starts_with("20 30\r\nxterm\r\nyes\r\n/dev/"), "{out:?}");
    bed.assert_clean();
}

#[tokio::test]
async fn seccomp_choices() {
    let bed = Bed::new("seccomp").await;
    let show = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status";
    let out = bed
        .script(show, |i| i.seccomp = SeccompChoice::Unconfined)
        .await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    // A filter does not need no_new_privs, whoever the user is.
    let out = bed.script(show, |i| i.user = "user".into()).await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t2\n");
    let out = bed
        .script(show, |i| {
            i.no_new_privileges = true;
            i.user = "user".into();
        })
        .await;
    assert_eq!(out, "NoNewPrivs:\t1\nSeccomp:\t2\n");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let out = bed
        .script("mkdir /x 2>&1 || true", |i| {
            i.seccomp = SeccompChoice::Profile(profile.into());
        })
        .await;
    assert!(out.contains("not supported"), "{out}");
    let mut input = bed.shell("true");
    input.seccomp = SeccompChoice::Profile(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into());
    assert!(bed.runtime.build_spec(&input).is_err());
    let out = bed.script(show, |i| i.privileged = true).await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    bed.assert_clean();
}

#[tokio::test]
async fn devices_are_limited() {
    let bed = Bed::new("devices").await;
    // Nodes may be made, but only allowed ones opened: the kernel's log is not, unless given. (To write to it takes no
    // capability.)
    let script = "mknod /tmp/log c 1 11 && { true >/tmp/log; } 2>/dev/null && echo open || echo refused; \
                  head -c1 /dev/zero | wc -c; echo x >/dev/null && echo ok";
    let out = bed.script(script, |_| {}).await;
    assert_eq!(out, "refused\n1\nok\n");
    let out = bed
        .script(script, |i| i.device_cgroup_rules = vec!["c 1:11 w".into()])
        .await;
    assert_eq!(out, "open\n1\nok\n");
    let out = bed
        .script("ls -l /dev/given; head -c1 /dev/given | wc -c", |i| {
            i.devices = vec![DeviceInput {
                path_on_host: "/dev/zero".into(),
                path_in_container: "/dev/given".into(),
                permissions: "r".into(),
            }];
        })
        .await;
    assert!(out.contains("1,   5") && out.ends_with("\n1\n"), "{out}");
    bed.assert_clean();
}

#[tokio::test]
async fn mounts_limits_and_settings() {
    let bed = Bed::new("mounts").await;
    let host = bed.dir.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let script = "cat /data/file; echo new >/data/new; (echo x >/ro/file) 2>/dev/null || echo read-only; \
                  cat /etc/one; echo; (echo x >/rootfile) 2>/dev/null || echo root-read-only; echo y >/t/y && echo t; \
                  cat /proc/sys/net/ipv4/ip_forward; ulimit -n; cat /proc/self/oom_score_adj; \
                  grep ' /t ' /proc/mounts; ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/pid_max || echo locked";
    let out = bed
        .script(script, |i| {
            let mut ro = MountInput::bind(&host, "/ro");
            ro.read_only = true;
            i.mounts = vec![
                MountInput::bind(host.join("file"), "/etc/one"),
                ro,
                MountInput::bind(&host, "/data"),
            ];
            i.tmpfs = vec![TmpfsInput {
                target: "/t".into(),
                options: vec!["size=1m".into(), "exec".into()],
            }];
            i.readonly_root = true;
            i.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
            i.ulimits = vec![Ulimit {
                name: "nofile".into(),
                soft: 100,
                hard: 200,
            }];
            i.oom_score_adj = 500;
        })
        .await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[..3],
        ["from the hostread-only", "from the host", "root-read-only"],
        "{out}"
    );
    assert_eq!(lines[3..7], ["t", "1", "100", "500"], "{out}");
    assert!(
        lines[7].contains("nosuid,nodev")
            && !lines[7].contains("noexec")
            && lines[7].contains("size=1024k"),
        "{out}"
    );
    assert_eq!(lines[8..], ["0", "locked"], "{out}");
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
    bed.assert_clean();
}

#[tokio::test]
async fn a_link_in_the_image_leads_no_mount_outside() {
    let bed = Bed::new("links").await;
    let outside = bed.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, bed.dir.path().join("lower/evil")).unwrap();
    let host = bed.dir.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    let input = {
        let mut input = bed.shell("touch /evil/deep/file; true");
        input.mounts = vec![MountInput::bind(&host, "/evil/deep")];
        input
    };
    let (_, status) = bed.run(&input).await;
    assert_eq!(status.code, 0);
    assert!(host.join("file").exists());
    assert!(!outside.join("deep").exists());
    bed.assert_clean();
}

#[tokio::test]
async fn limits_are_in_the_cgroup() {
    let bed = Bed::new("limits").await;
    let mut input = bed.shell("sleep 1000");
    input.resources.memory = Some(64 << 20);
    input.resources.pids_limit = Some(50);
    input.resources.cpu_shares = Some(512);
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    let stats = process.stats().await.unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (64 << 20, Some(50)));
    let update = gantry_runtime::spec::Resources {
        memory: Some(128 << 20),
        memory_swap: Some(256 << 20),
        pids_limit: Some(-1),
        ..Default::default()
    };
    drop(process.update(&update).await.unwrap());
    let stats = process.stats().await.unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (128 << 20, None));
    process.pause().await.unwrap();
    assert!(process.is_paused().await.unwrap());
    process.unpause().await.unwrap();
    assert!(!process.is_paused().await.unwrap());
    process.pause().await.unwrap();
    // A paused one can be removed.
    process.delete().await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    bed.assert_clean();
}

#[tokio::test]
async fn the_out_of_memory_killer_is_told_of() {
    let bed = Bed::new("oom").await;
    let mut input = bed.shell("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    input.resources.memory = Some(32 << 20);
    input.resources.memory_swap = Some(32 << 20);
    let (_, status) = bed.run(&input).await;
    assert_eq!((status.code, status.oom), (137, true));
    bed.assert_clean();
}

#[tokio::test]
async fn another_engine_finds_it_again() {
    let bed = Bed::new("again").await;
    let mut input = bed.shell("echo one; sleep 1000");
    input.env = vec!["KEPT=yes".into()];
    let first = bed.create(&input).await.unwrap();
    first.start().await.unwrap();
    let pid = first.pid();
    drop(first);
    let other = bed.again().await;
    let Reconnected::Running(process) = other.reconnect(&input.id).await.unwrap() else {
        panic!("not found");
    };
    assert_eq!(process.pid(), pid);
    assert!(process.started_at().is_some());
    let (out, ..) = exec(
        &process,
        exec_request(&["sh", "-c", "echo $KEPT; grep Seccomp: /proc/self/status"]),
    )
    .await;
    assert_eq!(out, "yes\nSeccomp:\t2\n");
    process.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    drop(process);
    // The record stays until it is forgotten.
    match other.reconnect(&input.id).await.unwrap() {
        Reconnected::Exited(record) => assert_eq!(record.code, 137),
        left => panic!("{left:?}"),
    }
    assert_eq!(
        other.known().await.unwrap(),
        std::slice::from_ref(&input.id)
    );
    other.forget(&input.id).await.unwrap();
    other.forget(&input.id).await.unwrap();
    assert!(matches!(
        other.reconnect(&input.id).await.unwrap(),
        Reconnected::Gone
    ));
    bed.assert_clean();
}

#[tokio::test]
async fn a_dead_zygote_is_replaced_and_disturbs_nobody() {
    let bed = Bed::new("zygote").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let pid = bed.runtime.zygote_pid();
    kill(pid);
    let (out, _) = bed.run(&bed.shell("echo again")).await;
    assert_eq!(out, "again\n");
    assert_ne!(bed.runtime.zygote_pid(), pid);
    assert!(process.exited().is_none());
    process.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_container_whose_monitor_is_killed_ends() {
    let bed = Bed::new("lost").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let parent = status
        .lines()
        .find_map(|l| l.strip_prefix("PPid:"))
        .unwrap();
    kill(parent.trim().parse().unwrap());
    let status = within(process.wait()).await.unwrap();
    assert_eq!(status.code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn namespaces_are_joined() {
    let bed = Bed::new("join").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let pid = process.pid();
    let ns = |kind: &str| NamespaceMode::Join(format!("/proc/{pid}/ns/{kind}").into());
    let links =
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ps | grep -c 'sleep 1000' ";
    let out = bed
        .script(links, |i| {
            i.namespaces.network = ns("net");
            i.namespaces.ipc = ns("ipc");
            i.namespaces.pid = ns("pid");
        })
        .await;
    let link = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        format!("{}\n", link.display())
    };
    assert!(out.starts_with(&(link("net") + &link("ipc"))), "{out}");
    // A descriptor goes before what the specification says.
    let netns = process.netns().await.unwrap();
    let mut request = bed.request(&bed.shell("readlink /proc/self/ns/net"));
    request.netns = Some(netns);
    let (out, _) = bed.run_request(request).await;
    assert_eq!(out, link("net"));
    let out = bed.script("readlink /proc/self/ns/net", host_network).await;
    assert_ne!(out, link("net"));
    // The other's /dev/shm, as it is seen through its root.
    let (_, err, code) = exec(&process, exec_request(&["touch", "/dev/shm/theirs"])).await;
    assert_eq!((err.as_str(), code), ("", 0));
    let shm = ShmInput::Bind(format!("/proc/{pid}/root/dev/shm").into());
    let out = bed.script("ls /dev/shm", |i| i.shm = shm).await;
    assert_eq!(out, "theirs\n");
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing() {
    let bed = Bed::new("failed").await;
    let mut input = bed.shell("true");
    input.mounts = vec![MountInput::bind("/no/such/source", "/x")];
    let error = bed.create(&input).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Create { stage, .. } if stage == "mount"),
        "{error:?}"
    );
    let mut input = bed.shell("true");
    input.resources.cpuset_cpus = Some("4000".into());
    let error = bed.create(&input).await.unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    let mut request = bed.request(&bed.shell("true"));
    request.runtime = Some("nope".into());
    let error = bed.runtime.create(request).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown or invalid runtime name: nope");
    bed.assert_clean();
}

#[tokio::test]
async fn a_runtime_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Bed::config(dir.path(), "gantry-none");
    config.zygote = dir.path().join("nothing");
    let error = Runtime::new(config).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Zygote(_)), "{error}");
}
