//! What a process may do, see and use.

use std::fs;

use gantry_e2e::Engine;

use crate::{refused, sh, start};

#[test]
fn seccomp_profiles_and_privileges() {
    let engine = Engine::start();
    let write = |name: &str, text: &str| {
        let path = engine.dir().join(name);
        fs::write(&path, text).unwrap();
        format!("seccomp={}", path.display())
    };
    let profile = write(
        "profile.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
              {"names":["unlink","unlinkat"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["symlink","symlinkat"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_NET_ADMIN"]}},
              {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let script = "mkdir /x; rm /etc/group; ln -s a /link && echo linked; kill -10 $$; kill -0 $$ && echo alive; grep NoNewPrivs /proc/self/status";
    let run = [
        "run",
        "-d",
        "--name",
        "filtered",
        "--security-opt",
        &profile,
        "busybox",
        "sleep",
        "600",
    ];
    engine.docker(&run).ok();
    let inside = |options: &[&str]| {
        let seen = sh(&engine, options, script);
        for words in [
            "mkdir: can't create directory '/x': No space left on device",
            "can't kill pid 1: Operation not permitted",
        ] {
            assert!(seen.err.contains(words), "{words}: {seen:?}");
        }
        seen
    };
    let seen = inside(&[
        "--security-opt",
        &profile,
        "--security-opt",
        "no-new-privileges=false",
    ]);
    assert!(
        seen.err
            .contains("rm: can't remove '/etc/group': Operation not permitted"),
        "{seen:?}"
    );
    assert_eq!(seen.out, "linked\nalive\nNoNewPrivs:\t0\n");
    let seen = inside(&[
        "--security-opt",
        &profile,
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "NET_ADMIN",
        "--security-opt",
        "no-new-privileges",
    ]);
    assert!(
        !seen.err.contains("/etc/group") && !seen.out.contains("linked"),
        "{seen:?}"
    );
    assert!(seen.out.contains("NoNewPrivs:\t1"), "{seen:?}");
    // An exec is filtered as the container is.
    let exec = engine.docker(&["exec", "filtered", "mkdir", "/x"]);
    assert!(exec.err.contains("No space left on device"), "{exec:?}");
    let exec = ["exec", "--privileged", "filtered", "mkdir", "/x"];
    assert!(engine.docker(&exec).err.contains("No space left on device"));

    assert_eq!(
        sh(
            &engine,
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status"
        )
        .ok(),
        "Seccomp:\t0"
    );
    let builtin = ["--privileged", "--security-opt", "seccomp=builtin"];
    assert_eq!(
        sh(&engine, &builtin, "grep Seccomp: /proc/self/status").ok(),
        "Seccomp:\t2"
    );
    let nothing = write("nothing.json", "{}");
    assert_eq!(
        sh(
            &engine,
            &["--security-opt", &nothing],
            "grep Seccomp: /proc/self/status"
        )
        .ok(),
        "Seccomp:\t0"
    );
    for (text, words) in [
        (
            r#"{"defaultAction":"SCMP_ACT_NOTHING"}"#,
            "SCMP_ACT_NOTHING",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            "listenerPath",
        ),
        (r#"{"defaultAction":3}"#, "Decoding seccomp profile failed"),
    ] {
        let option = write("bad.json", text);
        sh(&engine, &["--security-opt", &option], "true").fails(125, words);
    }
    refused(
        &engine,
        r#""SecurityOpt":["wat"]"#,
        400,
        r#"invalid --security-opt 1: \"wat\""#,
    );
    refused(
        &engine,
        r#""SecurityOpt":["wat=1"]"#,
        400,
        r#"invalid --security-opt 2: \"wat=1\""#,
    );
    if !std::path::Path::new("/sys/kernel/security/apparmor/profiles").exists() {
        refused(
            &engine,
            r#""SecurityOpt":["apparmor=mine"]"#,
            400,
            "the kernel has no AppArmor",
        );
    }
    assert_eq!(
        sh(
            &engine,
            &[
                "--security-opt",
                "label=disable",
                "--security-opt",
                "apparmor=unconfined"
            ],
            "echo ok"
        )
        .ok(),
        "ok"
    );
    engine.finish();
}

#[test]
fn paths_limits_and_groups() {
    let engine = Engine::start();
    let read_only = [
        "--read-only",
        "--tmpfs",
        "/tmp:size=1m,mode=700",
        "-v",
        "keep:/keep",
    ];
    let script = "touch /x; touch /tmp/x /keep/x /dev/shm/x && echo ok; stat -c %a /tmp; echo y > /etc/hosts";
    let seen = sh(&engine, &read_only, script);
    assert_eq!(seen.out, "ok\n700\n", "{seen:?}");
    assert!(
        seen.err.contains("/x: Read-only file system")
            && seen.err.contains("/etc/hosts: Read-only"),
        "{seen:?}"
    );
    let masks =
        "grep -c ' /proc/keys ' /proc/self/mounts; grep -cE ' /proc/sys proc ro' /proc/self/mounts";
    assert_eq!(sh(&engine, &[], masks).ok(), "1\n1");
    assert_eq!(
        sh(
            &engine,
            &["--security-opt", "systempaths=unconfined"],
            masks
        )
        .out,
        "0\n0\n"
    );
    start(
        &engine,
        "own",
        r#""MaskedPaths":["/etc/group"],"ReadonlyPaths":["/var"]"#,
    );
    let seen = engine.docker(&[
        "exec",
        "own",
        "sh",
        "-c",
        "wc -c </etc/group; touch /var/x; grep -c proc/keys /proc/self/mounts",
    ]);
    assert!(
        seen.out == "0\n0\n" && seen.err.contains("Read-only"),
        "{seen:?}"
    );
    let cgroups =
        "mkdir /sys/fs/cgroup/pids/inner && rmdir /sys/fs/cgroup/pids/inner && echo writable";
    assert_eq!(
        sh(
            &engine,
            &[
                "--security-opt",
                "writable-cgroups=true",
                "--cgroupns",
                "private"
            ],
            cgroups
        )
        .ok(),
        "writable"
    );
    assert!(sh(&engine, &[], cgroups).err.contains("Read-only"));

    let limits = [
        "--ulimit",
        "nofile=123:456",
        "--ulimit",
        "core=0",
        "--group-add",
        "extra",
        "--group-add",
        "1234",
        "--oom-score-adj",
        "300",
    ];
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; id -G; cat /proc/self/oom_score_adj";
    assert_eq!(
        sh(&engine, &limits, script).ok(),
        "123\n456\n0\n0 44 1234\n300"
    );
    sh(&engine, &["--group-add", "none"], "true").fails(
        125,
        "unable to find group none: no matching entries in group file",
    );
    // More than this machine's root may give: as much as there is, and a word in the log.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:\t"))
        .unwrap();
    let may_raise = u64::from_str_radix(effective, 16).unwrap() >> 24 & 1 == 1;
    let many = sh(
        &engine,
        &[
            "--ulimit",
            "memlock=1152921504606846976:1152921504606846976",
        ],
        "ulimit -Hl",
    );
    assert_eq!(many.code, 0, "{many:?}");
    if !may_raise && many.out.trim() != "1125899906842624" {
        assert!(engine.log().contains("memlock"), "{}", engine.log());
    }
    engine.finish();
}
