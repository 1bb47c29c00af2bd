//! `gantry-oci` as an OCI runtime: what the runtime specification demands of one, and podman on top of it.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gantry_e2e::{Done, Engine, Options, bin_dir, busybox_rootfs, busybox_tar, eventually, run};
use rustix::fs::StatVfsMountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

/// A bundle with busybox, and a root directory for the runtime's state.
struct Bundle {
    dir: tempfile::TempDir,
    config: Value,
    /// Makes names of containers, and so of cgroups, unique.
    tag: String,
}

impl Bundle {
    fn new(script: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("goci")
            .tempdir()
            .expect("a temporary directory");
        busybox_rootfs(&dir.path().join("rootfs"));
        let path = dir.path().display().to_string();
        run(program(), &["spec", "--bundle", &path]).ok();
        let text = fs::read_to_string(dir.path().join("config.json")).expect("it was just written");
        let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
        config["process"]["terminal"] = false.into();
        config["root"]["readonly"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", script]);
        let name = dir.path().file_name().expect("it has a name");
        Self {
            tag: name.to_string_lossy().replace('.', ""),
            dir,
            config,
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }
    fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).expect("it is ours");
    }
    /// A command of the runtime; `@x` is the container of that name.
    fn words(&self, line: &str) -> Vec<String> {
        let root = self.path("state").display().to_string();
        let mut words = vec!["--root".to_owned(), root];
        words.extend(line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => self.id(name),
            None => word.to_owned(),
        }));
        words
    }
    /// Runs a command that leaves no process with its streams behind.
    fn oci(&self, line: &str) -> Done {
        self.write();
        run(program(), &self.words(line))
    }
    /// Runs one that may: what it and the container say is in the file `out`.
    fn detached(&self, line: &str) -> (i32, String) {
        self.write();
        let out = File::create(self.path("out")).expect("it is ours");
        let status = Command::new(program())
            .args(self.words(line))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file"))
            .stderr(out)
            .status()
            .expect("gantry-oci is built");
        (status.code().unwrap_or(-1), self.out())
    }
    fn out(&self) -> String {
        fs::read_to_string(self.path("out")).expect("it was made")
    }
    #[track_caller]
    fn create(&self, name: &str) {
        let (code, said) = self.detached(&format!("create @{name}"));
        assert_eq!(code, 0, "{said}");
    }
    /// Runs the bundle to its end.
    fn run(&self, name: &str) -> Done {
        let bundle = self.dir.path().display();
        self.oci(&format!("run --bundle {bundle} @{name}"))
    }
    fn state(&self, name: &str) -> Value {
        let text = self.oci(&format!("state @{name}")).ok();
        serde_json::from_str(&text).expect("the state is JSON")
    }
    fn status(&self, name: &str) -> String {
        self.state(name)["status"]
            .as_str()
            .expect("a word")
            .to_owned()
    }
    fn pid(&self, name: &str) -> i64 {
        self.state(name)["pid"].as_i64().expect("a number")
    }
    fn await_status(&self, name: &str, status: &str) {
        eventually(status, 10, || (self.status(name) == status).then_some(()));
    }
    /// What hooks wrote down.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
    /// A hook that notes its name and the state it is told in `log` of the bundle.
    fn hook(&self, name: &str) -> Value {
        let log = self.path("log").display().to_string();
        let script = format!("echo {name} $(cat) >> {log}");
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
    }
    /// Checks that nothing is left of any container.
    fn finish(self) {
        assert_eq!(self.oci("list --quiet").ok(), "");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc");
        assert!(!mounts.contains(&self.tag), "{mounts}");
    }
    fn cgroups(&self) -> Vec<PathBuf> {
        let top = Path::new("/sys/fs/cgroup");
        let below = fs::read_dir(top).expect("cgroups").flatten();
        let hierarchies = below.map(|e| e.path()).chain([top.to_owned()]);
        hierarchies
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flat_map(|entries| entries.flatten().map(|e| e.path()))
            .filter(|path| path.display().to_string().contains(&self.tag))
            .collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A failing test must not leave its containers running.
        for id in self.oci("list --quiet").out.lines() {
            run(program(), &self.words(&format!("delete --force {id}")));
        }
    }
}

fn program() -> PathBuf {
    bin_dir().join("gantry-oci")
}

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
    eventually("its output", 10, || (b.out() == "up\n").then_some(()));
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
fn hooks_run_in_their_order_and_are_told_the_state() {
    let mut b = Bundle::new("cat /hooked; sleep 1000");
    let inside = json!([{
        "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer $(cat) > /hooked"],
        "env": ["PATH=/bin"]
    }]);
    b.config["hooks"] = json!({
        "prestart": [b.hook("prestart")],
        "createRuntime": [b.hook("createRuntime1"), b.hook("createRuntime2")],
        "createContainer": [b.hook("createContainer")],
        "startContainer": inside,
        // One that fails does not keep the next back, nor the container.
        "poststart": [{"path": "/bin/false"}, b.hook("poststart")],
        "poststop": [{"path": "/bin/false"}, b.hook("poststop")],
    });
    b.config["annotations"] = json!({"k": "v"});
    b.create("x");
    let pid = b.pid("x");
    let names = |log: &[String]| -> Vec<String> {
        let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        log.iter().map(first).collect()
    };
    let log = b.log();
    let created = [
        "prestart",
        "createRuntime1",
        "createRuntime2",
        "createContainer",
    ];
    assert_eq!(names(&log), created);
    let told = |line: &str| -> Value {
        let (_, text) = line.split_once(' ').expect("a state");
        serde_json::from_str(text).expect("the state is JSON")
    };
    let state = told(&log[1]);
    assert_eq!(state["status"], "creating");
    assert_eq!(
        (&state["id"], &state["pid"]),
        (&json!(b.id("x")), &json!(pid))
    );
    assert_eq!(
        (&state["bundle"], &state["annotations"]["k"]),
        (&json!(b.dir.path()), &json!("v"))
    );
    // As the container sees it.
    assert_eq!(told(&log[3])["pid"], 1);
    b.oci("start @x").ok();
    let hooked = eventually("its hook", 10, || Some(b.out()).filter(|o| !o.is_empty()));
    let state = told(hooked.trim());
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("created"), &json!(1))
    );
    let log = b.log();
    assert_eq!(names(&log[4..]), ["poststart"]);
    assert_eq!(told(&log[4])["status"], "running");
    b.oci("delete --force @x").ok();
    let log = b.log();
    assert_eq!(names(&log[5..]), ["poststop"]);
    assert_eq!(told(&log[5])["status"], "stopped");
    assert_eq!(told(&log[5]).get("pid"), None);
    b.finish();
}

#[test]
fn a_failing_hook_undoes_the_container() {
    let mut b = Bundle::new("touch /ran");
    let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        b.config["hooks"] = json!({kind: fails, "poststop": [b.hook("poststop")]});
        let (code, said) = b.detached("create @x");
        assert!(code == 1 && said.contains("because"), "{kind}: {said}");
        b.oci("state @x").fails(1, "does not exist");
    }
    assert_eq!(b.log().len(), 3);
    b.config["hooks"] = json!({"startContainer": fails});
    b.create("x");
    b.oci("start @x").fails(1, "startContainer hook #0");
    b.await_status("x", "stopped");
    b.oci("delete @x").ok();
    b.config["hooks"] = json!({
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]
    });
    let (code, said) = b.detached("create @x");
    assert!(
        code == 1 && said.contains("past specified timeout"),
        "{said}"
    );
    assert!(!b.path("rootfs/ran").exists());
    b.finish();
}

#[test]
fn the_process_is_what_the_bundle_says() {
    let mut b = Bundle::new(
        "id -u; id -g; id -G; umask; pwd; echo $A; ulimit -n; ulimit -Hn; hostname; \
         grep -E 'CapEff|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2; \
         cat /proc/self/oom_score_adj; mkdir /tmp/no; echo mkdir $?; exit 42",
    );
    let process = &mut b.config["process"];
    process["user"] = json!({"uid": 33, "gid": 44, "additionalGids": [55, 66], "umask": 0o27});
    process["cwd"] = "/made/here".into();
    process["env"] = json!(["PATH=/bin", "A=b c"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    process["oomScoreAdj"] = 321.into();
    let caps = json!(["CAP_NET_RAW", "CAP_CHOWN"]);
    process["capabilities"] = json!({
        "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps
    });
    b.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{
            "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1
        }]
    });
    let done = b.run("x");
    let want = "33\n44\n44 55 66\n0027\n/made/here\nb c\n100\n200\ngantry\n0000000000002001\n\
                0000000000002001\n1\n2\n321\nmkdir 1\n";
    assert_eq!((done.out.as_str(), done.code), (want, 42), "{}", done.err);
    b.config["process"]["args"] = json!(["no-such"]);
    b.run("x")
        .fails(1, r#"exec: "no-such": executable file not found in $PATH"#);
    b.finish();
}

#[test]
fn mounts_devices_and_paths_are_what_the_bundle_says() {
    let mut b = Bundle::new(
        "cat /m1/f; touch /m1/x; ls /m2; touch /m2/x; stat -c '%a %u' /m3; ls /etc; \
         stat -c '%a %u %g %t %T' /dev/null1; cat /secret; echo x > /rofile; \
         cat /proc/sys/net/ipv4/ip_forward; grep -c ' / / ' /proc/self/mountinfo; \
         grep ' /shared ' /proc/self/mountinfo | grep -c shared:; touch /new",
    );
    fs::create_dir_all(b.path("source/below")).expect("it is ours");
    fs::write(b.path("source/f"), "from the bundle\n").expect("it is ours");
    for name in ["secret", "rofile"] {
        fs::write(b.path("rootfs").join(name), "s").expect("it is ours");
    }
    let mounts = b.config["mounts"].as_array_mut().expect("a list");
    mounts.extend([
        // Relative to the bundle.
        json!({"destination": "/m1", "type": "bind", "source": "source", "options": ["bind", "ro"]}),
        json!({"destination": "/m2", "type": "none", "source": "source", "options": ["rbind", "rro"]}),
        json!({"destination": "/m3", "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=700", "uid=3", "size=1m"]}),
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        json!({"destination": "/shared", "source": "source", "options": ["rbind", "shared"]}),
    ]);
    b.config["linux"]["devices"] = json!([{
        "path": "/dev/null1", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7,
        "gid": 8
    }]);
    b.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    let linux = &mut b.config["linux"];
    linux["maskedPaths"] = json!(["/secret", "/no/such"]);
    linux["readonlyPaths"] = json!(["/rofile", "/no/such"]);
    b.config["root"]["readonly"] = true.into();
    let done = b.run("x");
    let want = "from the bundle\nbelow\nf\n700 3\ngroup\npasswd\n640 7 8 1 3\n1\n0\n1\n";
    assert_eq!(done.out, want, "{}", done.err);
    for refused in ["/m1/x", "/m2/x", "/rofile", "/new"] {
        let line = done.err.lines().find(|l| l.contains(refused));
        let line = line.unwrap_or_else(|| panic!("{refused}: {}", done.err));
        assert!(line.contains("Read-only file system"), "{line}");
    }
    b.finish();
}

#[test]
fn limits_and_update() {
    let mut b = Bundle::new("sleep 1000");
    b.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    b.config["linux"]["resources"]["pids"] = json!({"limit": 50});
    b.config["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}
    ]);
    b.create("x");
    b.oci("start @x").ok();
    let pid = b.pid("x");
    let file = |v1: [&str; 2], v2: &str| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("proc");
        let of = |controller: &str| {
            let line = groups
                .lines()
                .find(|l| l.split(':').nth(1) == Some(controller))?;
            line.split(':').nth(2).map(str::to_owned)
        };
        let path = match of(v1[0]) {
            Some(path) => format!("/sys/fs/cgroup/{}{path}/{}", v1[0], v1[1]),
            None => format!("/sys/fs/cgroup{}/{v2}", of("").expect("a cgroup")),
        };
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        text.trim().to_owned()
    };
    let memory = || file(["memory", "memory.limit_in_bytes"], "memory.max");
    let pids = || file(["pids", "pids.max"], "pids.max");
    assert_eq!((memory(), pids()), ((64 << 20).to_string(), "50".into()));
    b.oci(&format!("update --memory {} @x", 80 << 20)).ok();
    fs::write(
        b.path("limits"),
        r#"{"pids":{"limit":77},"memory":{"limit":0}}"#,
    )
    .expect("ours");
    let limits = b.path("limits").display().to_string();
    b.oci(&format!("update --resources {limits} @x")).ok();
    assert_eq!((memory(), pids()), ((80 << 20).to_string(), "77".into()));
    let stats: Value = serde_json::from_str(&b.oci("events --stats @x").ok()).expect("JSON");
    assert_eq!(stats["data"]["pids"]["limit"], 77);
    assert_eq!(b.oci("ps --format json @x").ok(), format!("[{pid}]"));
    b.oci("delete --force @x").ok();
    b.config["linux"]["cgroupsPath"] = "a.slice:b:c".into();
    let (code, said) = b.detached("create @x");
    assert!(code == 1 && said.contains("cgroupfs"), "{said}");
    b.finish();
}

#[test]
fn namespaces_are_new_inherited_or_joined() {
    let mut b = Bundle::new("sleep 1000");
    let kinds = ["ipc", "mnt", "net", "pid", "uts", "cgroup"];
    let inode =
        |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("ns");
    b.create("new");
    let first = b.pid("new").to_string();
    for kind in kinds {
        assert_ne!(inode(&first, kind), inode("self", kind), "{kind}");
    }
    let join =
        |word: &str, kind: &str| json!({"type": word, "path": format!("/proc/{first}/ns/{kind}")});
    b.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, join("ipc", "ipc"), join("network", "net"), join("pid", "pid"),
        join("uts", "uts")
    ]);
    b.create("joins");
    let second = b.pid("joins").to_string();
    for kind in ["ipc", "net", "pid", "uts"] {
        assert_eq!(inode(&second, kind), inode(&first, kind), "{kind}");
    }
    assert_eq!(inode(&second, "cgroup"), inode("self", "cgroup"));
    b.config["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "uts"}, join("ipc", "net")]);
    let (code, said) = b.detached("create @bad");
    assert!(code == 1 && said.contains("invalid argument"), "{said}");
    // Where it is not alone in its PID namespace, all of it dies with the first process.
    b.oci("start @joins").ok();
    b.oci("delete --force @joins").ok();
    let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
    b.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "pid"}, {"type": "time"}
    ]);
    b.config["linux"]["uidMappings"] = maps.clone();
    b.config["linux"]["gidMappings"] = maps;
    b.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 10_000_000}});
    b.config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map /proc/uptime"]);
    let script = b.config["process"]["args"].take();
    b.config["process"]["args"] = json!(["sleep", "1000"]);
    b.create("execs");
    let uptime = b.oci("exec @execs cat /proc/uptime").ok();
    assert!(uptime.len() > "10000000.00 ".len(), "{uptime}");
    assert_eq!(b.oci("exec @execs id -u").ok(), "0");
    b.oci("delete --force @execs").ok();
    b.config["process"]["args"] = script;
    let out = b.run("users").ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", "200000", "1000"]);
    let uptime: f64 = words[4].parse().expect("a number");
    assert!(uptime > 10_000_000.0, "{uptime}");
    b.oci("delete --force @new").ok();
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
    eventually("its output", 10, || (b.out() == "c\n9\n").then_some(()));
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

fn zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") Z ") || stat.contains(") X ") || stat.is_empty()
}

/// The descriptor that came through a console socket.
fn terminal(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("the runtime connects");
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("a message");
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.expect("a descriptor")
}

#[test]
fn terminals_go_through_the_console_socket() {
    let mut b = Bundle::new("read line; tty; stty size; echo got $line");
    b.config["process"]["terminal"] = true.into();
    b.config["process"]["consoleSize"] = json!({"height": 33, "width": 101});
    let (code, said) = b.detached("create @x");
    assert!(code == 1 && said.contains("console socket"), "{said}");
    let listener = UnixListener::bind(b.path("console")).expect("a socket");
    let (code, said) = b.detached("create --console-socket console @x");
    assert_eq!(code, 0, "{said}");
    let mut master = File::from(terminal(&listener));
    b.oci("start @x").ok();
    master.write_all(b"hello\n").expect("a terminal takes it");
    let mut text = Vec::new();
    // It ends with an error once nobody has the other side.
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    assert_eq!(text, "hello\n/dev/pts/0\n33 101\ngot hello\n");
    b.await_status("x", "stopped");
    b.oci("delete @x").ok();
    // Or are shown on the caller's own.
    let (words, bundle) = (b.words("run @y").join(" "), b.dir.path().display());
    let command = format!(
        "stty rows 20 cols 60; {} {words} -b {bundle}",
        program().display()
    );
    let line = ["-qec", &command, "/dev/null"];
    let mut child = Command::new("script")
        .args(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is installed");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let mut seen = String::new();
    let mut until = |wanted: &str| {
        let mut byte = [0];
        while !seen.contains(wanted) && output.read(&mut byte).expect("it is open") > 0 {
            seen.push(byte[0].into());
        }
        seen.clone()
    };
    // Whatever is typed before the terminal is the container's may get lost.
    eventually("it runs", 10, || {
        let state = b.oci("state @y");
        (state.code == 0 && state.out.contains("running")).then_some(())
    });
    input.write_all(b"typed\n").expect("script reads");
    let seen = until("got typed").replace('\r', "");
    assert!(seen.contains("/dev/pts/0\n20 60\ngot typed"), "{seen}");
    drop(input);
    assert!(child.wait().expect("a child").success());
    b.config["process"]["terminal"] = false.into();
    let (code, said) = b.detached("create --console-socket console @x");
    assert!(
        code == 1 && said.contains("cannot use console socket"),
        "{said}"
    );
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
    let told = eventually("its hook", 10, || b.log().pop());
    assert_eq!(b.status("x"), "creating");
    creating.kill().expect("it is ours");
    creating.wait().expect("it is ours");
    let told: Value = serde_json::from_str(&told).expect("the state is JSON");
    let pid = told["pid"].to_string();
    eventually("its process ends", 10, || zombie(&pid).then_some(()));
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
fn what_is_not_done_is_refused_before_anything_is_made() {
    let mut b = Bundle::new("true");
    let good = b.config.clone();
    let mut refused = |path: &str, value: Value, wording: &str| {
        b.config = good.clone();
        *b.config.pointer_mut(path).expect("a place") = value;
        let (code, said) = b.detached("create @x");
        assert!(code == 1 && said.contains(wording), "{path}: {said}");
        assert!(!b.path("state").join(b.id("x")).exists());
    };
    refused("/ociVersion", json!("2.0.0"), "unsupported ociVersion");
    refused("/process/args", json!([]), "args must not be empty");
    refused("/root/path", json!("nowhere"), "invalid rootfs");
    refused(
        "/linux/namespaces",
        json!([{"type": "pid"}]),
        "mount namespace",
    );
    let linux = &good["linux"];
    let with = |key: &str, value: Value| {
        let mut linux = linux.clone();
        linux[key] = value;
        linux
    };
    let rdt = with("intelRdt", json!({"closID": "x"}));
    refused("/linux", rdt, "linux.intelRdt is not supported");
    let host = with("sysctl", json!({"vm.swappiness": "1"}));
    refused("/linux", host, "not in a separate kernel namespace");
    let listener = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"});
    refused("/linux", with("seccomp", listener), "listenerPath");
    let mut process = good["process"].clone();
    process["apparmorProfile"] = "x".into();
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        refused("/process", process, "apparmor is disabled or not supported");
    }
    // One that fails later leaves nothing either.
    b.config = good.clone();
    let mounts = b.config["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({"destination": "/x", "type": "nosuchfs", "source": "none"}));
    let (code, said) = b.detached("--log log --log-format json create @x");
    assert!(code == 1 && said.contains("no such device"), "{said}");
    let logged = b.log();
    let last: Value = serde_json::from_str(logged.last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"].as_str().is_some_and(|m| m.contains("nosuchfs")),
        "{last}"
    );
    b.oci("--systemd-cgroup list").fails(1, "cgroupfs");
    assert!(b.oci("--version").ok().contains("spec: 1."));
    let features: Value = serde_json::from_str(&b.oci("features").ok()).expect("JSON");
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    b.finish();
}

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
