//! Devices, by path and by name, and `--privileged`.

use std::fs;

use gantry_e2e::{Engine, Options};

use crate::{refused, sh};

#[test]
fn devices() {
    let engine = Engine::start();
    // Devices of the host's kind, in a directory: it stands for all below it.
    let dir = engine.dir().join("nodes");
    fs::create_dir_all(dir.join("sub")).unwrap();
    for (node, minor) in [("five", "5"), ("sub/nine", "9")] {
        let path = dir.join(node).display().to_string();
        gantry_e2e::run("mknod", &["-m", "640", &path, "c", "1", minor]).ok();
    }
    let map = format!("{}:/dev/nodes", dir.display());
    let script = "find /dev/nodes -type c | sort; stat -c %a /dev/nodes/five; head -c 3 /dev/nodes/five | wc -c";
    assert_eq!(
        sh(&engine, &["--device", &map], script).ok(),
        "/dev/nodes/five\n/dev/nodes/sub/nine\n640\n3"
    );
    let script = "exec 3</dev/ctl && echo read; exec 4<>/dev/ctl";
    let control = sh(
        &engine,
        &["--device", "/dev/loop-control:/dev/ctl:rm"],
        script,
    );
    assert!(
        control.out == "read\n" && control.err.contains("Operation not permitted"),
        "{control:?}"
    );
    let fuse = sh(
        &engine,
        &["--device-cgroup-rule", "c 10:237 rm"],
        "mknod /tmp/k c 10 237 && exec 3</tmp/k && echo opened; exec 4<>/tmp/k",
    );
    assert!(
        fuse.out == "opened\n" && fuse.err.contains("Operation not permitted"),
        "{fuse:?}"
    );
    let without = sh(&engine, &[], "mknod /tmp/k c 10 237 && exec 3</tmp/k");
    assert!(
        without.code != 0 && without.err.contains("Operation not permitted"),
        "{without:?}"
    );
    // The docker CLI takes these words for a missing program.
    sh(&engine, &["--device", "/dev/no-such"], "true")
        .fails(127, "error gathering device information while adding custom device \"/dev/no-such\": no such file or directory");
    sh(&engine, &["--device", "/etc/passwd"], "true").fails(125, "not a device node");
    refused(
        &engine,
        r#""DeviceCgroupRules":["c 1:1 x"]"#,
        400,
        "invalid device cgroup rule format: 'c 1:1 x'",
    );

    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:\t"))
        .unwrap();
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; grep -c ' /proc/keys ' /proc/self/mounts; \
                  grep -E ' /sys (sysfs) ' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1; \
                  mkdir /sys/fs/cgroup/pids/inner && rmdir /sys/fs/cgroup/pids/inner && echo writable; \
                  mount -t tmpfs x /mnt && ls /dev/loop-control; exec 3<>/dev/loop-control && echo open";
    let all = sh(
        &engine,
        &["--privileged"],
        &format!("mkdir -p /mnt; {script}"),
    );
    assert!(
        all.out.starts_with(&format!(
            "CapEff:\t{bounding}\nSeccomp:\t0\n0\nrw\nwritable\n"
        )),
        "{all:?}"
    );
    let only = sh(
        &engine,
        &[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_ADMIN",
            "--cap-add",
            "cap_chown",
        ],
        "grep CapEff /proc/self/status",
    );
    assert_eq!(only.ok(), "CapEff:\t0000000000001001");
    let everything = sh(
        &engine,
        &["--cap-add", "all"],
        "grep CapEff /proc/self/status",
    );
    assert_eq!(everything.ok(), format!("CapEff:\t{bounding}"));
    sh(&engine, &["--cap-add", "FLY"], "true").fails(125, "unknown capability: \"CAP_FLY\"");
    engine.finish();
}

#[test]
fn devices_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::with(Options {
        args: vec!["--cdi-spec-dir".into(), dir.path().display().to_string()],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let seen_by_hook = engine.dir().join("hook");
    let hook = format!(
        "hooks:\n    - {{hookName: createContainer, path: /bin/sh, args: [sh, -c, 'cat > {}; touch $(dirname {})/ran']}}",
        seen_by_hook.display(),
        seen_by_hook.display()
    );
    let spec = format!(
        "cdiVersion: 0.6.0\nkind: vendor.com/thing\ndevices:\n- name: one\n  containerEdits:\n    env: [WHICH=one]\n    deviceNodes:\n    \
         - {{path: /dev/thing, hostPath: /dev/loop-control, permissions: rw}}\ncontainerEdits:\n  mounts:\n  \
         - {{hostPath: {0}, containerPath: /opt/thing, options: [ro]}}\n  additionalGids: [4242]\n  {hook}\n",
        dir.path().display()
    );
    fs::write(dir.path().join("vendor.yaml"), spec).unwrap();
    let info = engine.docker(&["info", "-f", "{{.CDISpecDirs}}"]).ok();
    assert_eq!(info, format!("[{}]", dir.path().display()));
    let (_, info) = engine.api("GET", "/v1.51/info", None);
    assert!(
        info.contains(r#""DiscoveredDevices":[{"Source":"cdi","ID":"vendor.com/thing=one"}]"#),
        "{info}"
    );
    let script = "echo $WHICH; ls -l /dev/thing | cut -c1; ls /opt/thing; id -G; exec 3<>/dev/thing && echo open";
    let seen = sh(&engine, &["--device", "vendor.com/thing=one"], script);
    assert_eq!(seen.out, "one\nc\nvendor.yaml\n0 4242\nopen\n", "{seen:?}");
    let state = fs::read_to_string(&seen_by_hook).unwrap();
    assert!(
        state.contains(r#""status":"creating""#) || state.contains("\"pid\""),
        "{state}"
    );
    sh(&engine, &["--device", "vendor.com/thing=two"], "true").fails(
        125,
        "CDI device injection failed: unresolvable CDI devices vendor.com/thing=two",
    );
    sh(&engine, &["--gpus", "all"], "true").fails(
        125,
        "could not select device driver \"\" with capabilities: [[gpu]]",
    );
    engine.finish();
}
