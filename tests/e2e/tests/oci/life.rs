//! States of a container, from its creation to its deletion.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_e2e::{eventually, run};
use rustix::fs::StatVfsMountFlags;
use serde_json::{Value, json};

use crate::bundle::{Bundle, program};
use crate::zombie;

const FOREVER: &str = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn life_cycle_and_its_errors() {
    let mut b = Bundle::new(FOREVER);
    for line in ["state @x", "start @x", "kill @x TERM", "delete @x"] {
        b.oci(line).fails(1, "does not exist");
    }
    b.oci("delete --force @x").ok();
    for line in ["state", "create", "start", "kill", "delete"] {
        assert_ne!(b.oci(line).code, 0, "{line} without an ID");
    }
    b.oci("create --bundle /no/such @x").fails(1, "/no/such");
    b.oci("create a/b").fails(1, "invalid container ID");
    b.config["annotations"] = json!({"org.example": "yes"});
    let (code, said) = b.detached("create --pid-file pid @x");
    assert_eq!((code, said.as_str()), (0, ""));
    let state = b.state("x");
    assert_eq!(state["id"], json!(b.id("x")));
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(b.dir.path()));
    assert_eq!(state["ociVersion"], "1.2.0");
    assert_eq!(state["annotations"]["org.example"], "yes");
    let pid = fs::read_to_string(b.path("pid")).expect("a pid file");
    assert_eq!(state["pid"].to_string(), pid);
    // The program on the host is not to be written through the link of the container's process.
    let exe = File::open(format!("/proc/{pid}/exe")).expect("it lives");
    let mount = rustix::fs::fstatvfs(&exe).expect("it is open").f_flag;
    assert!(mount.contains(StatVfsMountFlags::RDONLY), "{mount:?}");
    let bundle = b.dir.path().display().to_string();
    b.oci(&format!("create --bundle {bundle} @x"))
        .fails(1, "already exists");
    b.oci("delete @x").fails(1, "not stopped: created");
    // What changes after the creation changes nothing.
    b.config["process"]["args"] = json!(["false"]);
    b.oci("start @x").ok();
    assert_eq!(b.status("x"), "running");
    eventually("its output", 30, || (b.out() == "up\n").then_some(()));
    b.oci("start @x").fails(1, "already running");
    b.oci("delete @x").fails(1, "not stopped: running");
    b.oci("kill @x NOPE").fails(1, "unknown signal");
    b.oci("pause @x").ok();
    assert_eq!(b.status("x"), "paused");
    b.oci("exec @x true").fails(1, "paused container");
    b.oci("resume @x").ok();
    b.oci("resume @x").fails(1, "cannot resume");
    b.oci("kill @x TERM").ok();
    b.await_status("x", "stopped");
    assert_eq!(b.pid("x"), 0);
    b.oci("kill @x TERM").fails(1, "not running");
    b.oci("start @x").fails(1, "has stopped");
    b.oci("exec @x true").fails(1, "stopped container");
    b.oci("delete @x").ok();
    b.oci("state @x").fails(1, "does not exist");
    // Its name is free again; a running one is removed by force.
    b.config["process"]["args"] = json!(["sleep", "1000"]);
    b.create("x");
    b.oci("start @x").ok();
    b.oci("delete --force @x").ok();
    b.finish();
}

#[test]
fn kill_reaches_created_and_frozen_containers() {
    let b = Bundle::new("sleep 1000");
    b.create("x");
    b.oci("kill @x KILL").ok();
    b.await_status("x", "stopped");
    b.oci("delete @x").ok();
    b.create("y");
    b.oci("start @y").ok();
    b.oci("pause @y").ok();
    b.oci("kill @y 9").ok();
    b.await_status("y", "stopped");
    b.oci("delete @y").ok();
    b.finish();
}

#[test]
fn a_creation_that_is_cut_off_leaves_what_delete_removes() {
    let mut b = Bundle::new("true");
    let log = b.path("log").display().to_string();
    let own = b.path("hook").display().to_string();
    let script = format!("echo $$ > {own}; cat > {log}; exec sleep 1000");
    b.config["hooks"] = json!({
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60}]
    });
    b.write();
    let mut creating = Command::new(program())
        .args(b.words("create @x"))
        .current_dir(b.dir.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("gantry-oci is built");
    let told = eventually("its hook", 30, || b.log().pop());
    assert_eq!(b.status("x"), "creating");
    creating.kill().expect("it is ours");
    creating.wait().expect("it is ours");
    let told: Value = serde_json::from_str(&told).expect("the state is JSON");
    let pid = told["pid"].to_string();
    eventually("its process ends", 30, || zombie(&pid).then_some(()));
    assert_eq!(b.status("x"), "stopped");
    b.oci("delete @x").ok();
    // The hook is nobody's now.
    run(
        "kill",
        &[fs::read_to_string(own).expect("its number").trim()],
    )
    .ok();
    b.finish();
}

#[test]
fn execs() {
    let mut b = Bundle::new("sleep 1000");
    b.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    });
    b.create("x");
    b.oci("start @x").ok();
    let done = b.oci("exec --user 5:6 --cwd /tmp --env A=b @x env");
    assert!(done.ok().contains("A=b"));
    let done = b.oci("exec --user 5:6 --cwd /tmp @x sh -c id${IFS}-u;pwd;exit${IFS}7");
    assert_eq!((done.out.as_str(), done.code), ("5\n/tmp\n", 7));
    assert!(
        b.oci("exec @x grep Seccomp: /proc/self/status")
            .ok()
            .ends_with('2')
    );
    b.oci("exec @x no-such")
        .fails(127, "executable file not found in $PATH");
    b.oci("exec @x /etc/passwd").fails(126, "permission denied");
    // A process of its own, left alone.
    let process = json!({
        "user": {"uid": 9, "gid": 9}, "args": ["sh", "-c", "echo $B; id -u; sleep 1000"], "cwd": "/",
        "env": ["B=c", "PATH=/bin"], "noNewPrivileges": true
    });
    fs::write(b.path("process"), process.to_string()).expect("it is ours");
    let (code, said) = b.detached("exec --detach --pid-file pid --process process @x");
    assert_eq!(code, 0, "{said}");
    eventually("its output", 30, || (b.out() == "c\n9\n").then_some(()));
    let pid = fs::read_to_string(b.path("pid")).expect("a pid file");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let pids: Vec<&str> = status
        .lines()
        .find_map(|l| l.strip_prefix("NSpid:"))
        .map(|l| l.split_whitespace().collect())
        .expect("numbers");
    assert_eq!(pids.len(), 2, "{status}");
    b.oci("delete --force @x").ok();
    assert!(!Path::new(&format!("/proc/{pid}/status")).exists() || zombie(&pid));
    b.finish();
}
