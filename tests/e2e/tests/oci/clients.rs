//! Engines on top of it: podman, and Gantry's own.

use std::fs;

use gantry_e2e::{Done, Engine, Options, busybox_tar, run};
use serde_json::json;

use crate::bundle::program;

#[test]
fn the_engine_drives_it_as_it_does_other_runtimes() {
    let config = json!({"runtimes": {"goci": {"path": program()}}});
    let engine = Engine::with(Options {
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let run = ["run", "--rm", "--runtime", "goci", "busybox", "sh", "-c"];
    let script = "echo hi; grep Seccomp: /proc/self/status; exit 3";
    let done = engine.docker(&[&run[..], &[script]].concat());
    assert_eq!(
        (done.out.as_str(), done.code),
        ("hi\nSeccomp:\t2\n", 3),
        "{}",
        done.err
    );
    let detached = [
        "run",
        "-d",
        "--name",
        "web",
        "--runtime",
        "goci",
        "busybox",
        "sleep",
        "60",
    ];
    engine.docker(&detached).ok();
    assert_eq!(engine.docker(&["exec", "web", "echo", "in"]).ok(), "in");
    engine.docker(&["rm", "-f", "web"]).ok();
    engine.finish();
}

/// podman on directories of its own.
struct Podman(tempfile::TempDir);

impl Podman {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config =
            "[engine]\nevents_logger = \"file\"\n[containers]\nlog_driver = \"k8s-file\"\n";
        fs::write(dir.path().join("containers.conf"), config).expect("it is ours");
        Self(dir)
    }
    fn run(&self, args: &[&str]) -> Done {
        let at = |name: &str| self.0.path().join(name).display().to_string();
        let runtime = program().display().to_string();
        let mut line = vec![
            format!("CONTAINERS_CONF={}", at("containers.conf")),
            "podman".into(),
            format!("--root={}", at("root")),
            format!("--runroot={}", at("run")),
            format!("--tmpdir={}", at("tmp")),
            "--cgroup-manager=cgroupfs".into(),
            "--storage-driver=vfs".into(),
            format!("--runtime={runtime}"),
        ];
        line.extend(args.iter().map(|a| (*a).to_owned()));
        run("env", &line)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["rm", "--force", "--all", "--time", "0"]);
        // Its own mount of the storage keeps the directory otherwise.
        let root = self.0.path().join("root").display().to_string();
        run("umount", &["--lazy", &root]);
    }
}

#[test]
fn podman_drives_it() {
    let p = Podman::new();
    p.run(&["import", busybox_tar(), "busybox:latest"]).ok();
    let run = ["run", "--rm", "--network=none"];
    let once = |args: &[&str]| p.run(&[&run[..], args].concat());
    let done = once(&["busybox", "sh", "-c", "id -u; exit 7"]);
    assert_eq!((done.out.as_str(), done.code), ("0\n", 7), "{}", done.err);
    once(&["busybox", "no-such"]).fails(127, "not found");
    once(&["busybox", "/etc/passwd"]).fails(126, "permission denied");
    let limited = [
        "--user=33:44",
        "--memory=64m",
        "--pids-limit=77",
        "--read-only",
        "busybox",
    ];
    let script = "id -u; id -g; touch /x; grep -E 'Seccomp:|CapEff' /proc/self/status | cut -f2";
    let done = once(&[&limited[..], &["sh", "-c", script]].concat());
    assert_eq!(done.out, "33\n44\n0000000000000000\n2\n", "{}", done.err);
    assert!(done.err.contains("Read-only file system"), "{}", done.err);

    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let detached = [
        "run",
        "--detach",
        "--name=c",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    p.run(&detached).ok();
    let done = p.run(&["exec", "-e", "A=b", "c", "sh", "-c", "echo $A; exit 9"]);
    assert_eq!((done.out.as_str(), done.code), ("b\n", 9), "{}", done.err);
    p.run(&["pause", "c"]).ok();
    let state = |format: &str| p.run(&["inspect", "c", "--format", format]).ok();
    assert_eq!(state("{{.State.Status}}"), "paused");
    p.run(&["unpause", "c"]).ok();
    p.run(&["stop", "c"]).ok();
    assert_eq!(state("{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    assert_eq!(p.run(&["logs", "c"]).ok(), "up\nbye");
    p.run(&["start", "c"]).ok();
    p.run(&["kill", "c"]).ok();
    assert_eq!(p.run(&["wait", "c"]).ok(), "137");
    p.run(&["rm", "c"]).ok();
    assert_eq!(p.run(&["ps", "--all", "--quiet"]).ok(), "");
}
