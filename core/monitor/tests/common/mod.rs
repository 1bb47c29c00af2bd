//! Drives the real zygote: a busybox root, launches as the daemon makes them, and a client that never waits for ever.
//! Needs root and Debian's `busybox-static`.
#![allow(dead_code, unreachable_pub)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use gantry_driver_api::{Mount as Layer, MountPlan};
use gantry_monitor::client::{self, Zygote};
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Docker's default capabilities.
pub const DEFAULT_CAPS: u64 = 0xa804_25fb;

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "true", "false", "sleep", "ls", "id", "head", "tail", "wc", "dd", "kill",
    "ps", "stty", "tty", "mkdir", "touch", "hostname", "mount", "readlink", "stat", "grep", "env",
    "pwd", "trap", "seq", "yes", "ip", "test", "chmod", "cp", "rm", "df", "md5sum", "mknod",
    "unshare", "tr", "setsid",
];

/// A machine of one test: a zygote, a root file system, a directory. Checks at its end that nothing is left.
pub struct Machine {
    pub dir: tempfile::TempDir,
    pub zygote: Option<Zygote>,
    count: std::cell::Cell<u32>,
    monitors: std::cell::RefCell<Vec<i32>>,
    cgroups: std::cell::RefCell<Vec<PathBuf>>,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_wrapper(None)
    }

    /// With a zygote that this script executes.
    pub fn with_wrapper(script: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        busybox(&dir.path().join("lower"));
        let log = std::fs::File::create(dir.path().join("zygote.log")).unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_gantry-monitor"));
        if let Some(script) = script {
            use std::os::unix::fs::PermissionsExt;
            binary = dir.path().join("wrapper");
            std::fs::write(&binary, script).unwrap();
            std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self {
            zygote: Some(Zygote::spawn(&binary, Stdio::from(log)).unwrap()),
            dir,
            count: 0.into(),
            monitors: Vec::new().into(),
            cgroups: Vec::new().into(),
        }
    }

    pub fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    /// A launch as Docker's defaults make it, without network namespace work and cgroups.
    pub fn spec(&self, argv: &[&str]) -> Spec {
        let n = self.count.get();
        self.count.set(n + 1);
        let id = format!(
            "{:04x}{n:02}{}",
            std::process::id() & 0xffff,
            "c0ffee".repeat(9)
        );
        let dir = self.dir.path().join(format!("c{n}"));
        for sub in ["upper", "work"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let launch = Launch {
            id,
            socket_dir: dir.clone(),
            exit_path: dir.join("exit.json"),
            log: Some(LogConfig {
                path: dir.join("json.log"),
                ..LogConfig::default()
            }),
            namespaces: Namespaces {
                pid: Namespace::New,
                net: Namespace::New,
                ipc: Namespace::New,
                uts: Namespace::New,
                cgroup: Namespace::Host,
                user: Namespace::Host,
            },
            ..Launch::default()
        };
        let rootfs = MountPlan::single(Layer::Overlay {
            lower: vec![self.lower()],
            upper: Some(dir.join("upper")),
            work: Some(dir.join("work")),
            // Or each test's end would wait for all that others have written.
            options: vec!["volatile".into()],
        });
        let plan = Plan {
            hostname: Some("box".into()),
            rootfs: Some(rootfs),
            mounts: default_mounts(),
            devices: default_devices(),
            symlinks: [
                ("fd", "/proc/self/fd"),
                ("stdin", "/proc/self/fd/0"),
                ("stdout", "/proc/self/fd/1"),
            ]
            .into_iter()
            .chain([
                ("stderr", "/proc/self/fd/2"),
                ("ptmx", "pts/ptmx"),
                ("core", "/proc/kcore"),
            ])
            .map(|(a, b)| (Path::new("/dev").join(a), b.into()))
            .collect(),
            masked_paths: [
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/acpi",
                "/sys/firmware",
            ]
            .map(PathBuf::from)
            .to_vec(),
            readonly_paths: [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]
            .map(PathBuf::from)
            .to_vec(),
            process: process(argv),
            ..Plan::default()
        };
        Spec {
            launch,
            plan,
            namespaces: Vec::new(),
            dir,
        }
    }

    /// Gives a launch a cgroup in every v1 hierarchy of this machine.
    pub fn with_cgroups(&self, spec: &mut Spec) {
        let name = format!("gantry-test-{}", &spec.launch.id[..8]);
        for (hierarchy, root) in hierarchies() {
            let dir = root.join(&name);
            std::fs::create_dir(&dir).unwrap();
            if hierarchy == "cpuset" {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    std::fs::write(dir.join(file), std::fs::read(root.join(file)).unwrap())
                        .unwrap();
                }
            }
            if hierarchy == "memory" {
                spec.launch.cgroup.memory = Some(dir.clone());
            }
            self.cgroups.borrow_mut().push(dir.clone());
            if hierarchy == "unified" {
                spec.launch.cgroup.v2 = Some(dir);
            } else {
                spec.launch.cgroup.v1.push(dir);
            }
        }
    }

    pub fn launch(&self, spec: Spec) -> Container {
        let zygote = self.zygote.as_ref().unwrap();
        let fds: Vec<BorrowedFd<'_>> = spec.namespaces.iter().map(AsFd::as_fd).collect();
        let socket = zygote.launch(&spec.launch, &spec.plan, &fds).unwrap();
        Container {
            control: Control::new(socket),
            pid: 0,
            monitor: 0,
            spec,
        }
    }

    /// Launches and waits until it is set up.
    pub fn create(&self, spec: Spec) -> Container {
        let mut c = self.launch(spec);
        match c.control.event() {
            Message::Created {
                pid,
                monitor,
                version,
            } => {
                assert_eq!(version, VERSION);
                (c.pid, c.monitor) = (pid, monitor);
                self.monitors.borrow_mut().push(monitor);
            }
            other => panic!("not created: {other:?}"),
        }
        c
    }

    pub fn start(&self, spec: Spec) -> Container {
        let mut c = self.create(spec);
        c.start();
        c
    }

    /// Runs to the end: exit record and log as (stream, text).
    pub fn run(&self, spec: Spec) -> (ExitRecord, String) {
        let mut c = self.start(spec);
        let record = c.exited();
        (record, c.output())
    }

    /// Fails to create: the reason.
    pub fn refused(&self, spec: Spec) -> Failure {
        let mut c = self.launch(spec);
        let failure = match c.control.event() {
            Message::CreateFailed(failure) => failure,
            Message::Created { .. } => match c.control.ask(Request::Start) {
                Message::StartFailed(failure) => failure,
                other => panic!("not refused: {other:?}"),
            },
            other => panic!("not refused: {other:?}"),
        };
        c.control.ends();
        assert!(!c.spec.launch.exit_path.exists());
        failure
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Not to hide the first failure behind another.
            for pid in self.monitors.borrow().iter() {
                println!("left behind: monitor {pid} running: {}", running(*pid));
            }
            return;
        }
        if let Some(mut zygote) = self.zygote.take() {
            let alive = zygote.child().try_wait().unwrap().is_none();
            assert!(
                zygote.close().unwrap().success() && alive,
                "the zygote died"
            );
        }
        for pid in self.monitors.borrow().iter() {
            eventually("the monitor leaves", || !running(*pid));
        }
        for dir in self.cgroups.borrow().iter() {
            eventually("the cgroup is empty", || std::fs::remove_dir(dir).is_ok());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(dir), "mounts are left");
        let log = std::fs::read_to_string(self.dir.path().join("zygote.log")).unwrap();
        if !log.is_empty() {
            println!("zygote: {log}");
        }
    }
}

pub struct Spec {
    pub launch: Launch,
    pub plan: Plan,
    pub namespaces: Vec<OwnedFd>,
    pub dir: PathBuf,
}

pub struct Container {
    pub control: Control,
    pub pid: i32,
    pub monitor: i32,
    pub spec: Spec,
}

impl Container {
    pub fn start(&mut self) {
        match self.control.ask(Request::Start) {
            Message::Started { at } => assert!(at > 0),
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn exited(&mut self) -> ExitRecord {
        match self.control.event() {
            Message::Exited(record) => {
                let text =
                    std::fs::read(&self.spec.launch.exit_path).expect("record is there first");
                assert_eq!(serde_json::from_slice::<ExitRecord>(&text).unwrap(), record);
                self.control.ends();
                record
            }
            other => panic!("not exited: {other:?}"),
        }
    }

    pub fn signal(&mut self, signo: i32) {
        let request = Request::Signal {
            signo,
            all: false,
            exec: None,
        };
        assert_eq!(self.control.ask(request), Message::Done);
    }

    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.exited().code, 137);
    }

    pub fn log(&self) -> Vec<(String, String)> {
        read_log(&self.spec.dir.join("json.log"))
    }

    pub fn output(&self) -> String {
        self.log().into_iter().map(|(_, text)| text).collect()
    }

    /// Waits until the log has this text.
    pub fn logs(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            self.output().contains(text)
        });
    }

    pub fn attach(&self, stdin: bool) -> (UnixStream, AttachReply) {
        self.attach_with(Request::Attach {
            stdin,
            stdout: true,
            stderr: true,
            partial: false,
        })
    }

    pub fn attach_with(&self, request: Request) -> (UnixStream, AttachReply) {
        let mut stream = client::connect(&self.spec.dir).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = encode(&ToMonitor { seq: 1, request }).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut reply = [0; AttachReply::LEN];
        stream.read_exact(&mut reply).unwrap();
        (stream, AttachReply::from_bytes(reply))
    }

    /// Execs without a terminal, with pipes: code, standard output, standard error.
    pub fn exec(&mut self, process: Process) -> Result<(i32, String, String), Failure> {
        let (mut out, their_out) = std::io::pipe().unwrap();
        let (mut err, their_err) = std::io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let plan = ExecPlan {
            process,
            ..ExecPlan::default()
        };
        let fds = [null.as_fd(), their_out.as_fd(), their_err.as_fd()];
        let request = Request::Exec {
            id: "e".into(),
            tty: false,
            plan: to_bytes(&plan).unwrap(),
        };
        let answer = self.control.ask_with(request, &fds);
        drop((their_out, their_err));
        match answer {
            Message::ExecStarted { pid } => assert!(pid > 0),
            Message::ExecFailed(failure) => return Err(failure),
            other => panic!("no exec: {other:?}"),
        }
        let (mut o, mut e) = (String::new(), String::new());
        out.read_to_string(&mut o).unwrap();
        err.read_to_string(&mut e).unwrap();
        match self.control.next() {
            Message::ExecExited { code, .. } => Ok((code, o, e)),
            other => panic!("exec did not exit: {other:?}"),
        }
    }
}

/// A control connection.
pub struct Control {
    pub socket: UnixStream,
    decoder: Decoder,
    pub fds: Vec<OwnedFd>,
    seq: u64,
    events: VecDeque<Message>,
}

impl Control {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            decoder: Decoder::default(),
            fds: Vec::new(),
            seq: 0,
            events: VecDeque::new(),
        }
    }

    fn read(&mut self) -> Option<FromMonitor> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            if !client::receive(&self.socket, &mut self.decoder, &mut self.fds).expect("in time") {
                return None;
            }
        }
    }

    pub fn event(&mut self) -> Message {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        let message = self.read().expect("an event");
        assert_eq!(message.seq, 0, "{message:?}");
        message.message
    }

    /// The next message, whatever it is.
    pub fn next(&mut self) -> Message {
        self.events
            .pop_front()
            .unwrap_or_else(|| self.read().expect("a message").message)
    }

    pub fn ask(&mut self, request: Request) -> Message {
        self.ask_with(request, &[])
    }

    pub fn ask_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Message {
        self.seq += 1;
        let seq = self.seq;
        let bytes = encode(&ToMonitor { seq, request }).unwrap();
        let n = client::send(&self.socket, &bytes, fds).unwrap();
        self.socket.write_all(&bytes[n..]).unwrap();
        loop {
            let message = self.read().expect("an answer");
            if message.seq == seq {
                return message.message;
            }
            self.events.push_back(message.message);
        }
    }

    pub fn ends(&mut self) {
        assert!(
            self.events.is_empty() && self.read().is_none(),
            "the connection ends"
        );
    }
}

pub fn process(argv: &[&str]) -> Process {
    Process {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: DEFAULT_CAPS,
            effective: DEFAULT_CAPS,
            permitted: DEFAULT_CAPS,
            inheritable: 0,
            ambient: 0,
        },
        ..Process::default()
    }
}

pub fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

fn default_mounts() -> Vec<Mount> {
    let quiet = ["nosuid", "noexec", "nodev"];
    vec![
        Mount::parse("proc", "proc", "/proc", quiet),
        Mount::parse(
            "tmpfs",
            "tmpfs",
            "/dev",
            ["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount::parse(
            "devpts",
            "devpts",
            "/dev/pts",
            [
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        Mount::parse(
            "sysfs",
            "sysfs",
            "/sys",
            ["nosuid", "noexec", "nodev", "ro"],
        ),
        Mount::parse("mqueue", "mqueue", "/dev/mqueue", quiet),
        Mount::parse(
            "tmpfs",
            "shm",
            "/dev/shm",
            ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        ),
    ]
}

fn default_devices() -> Vec<Device> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .into_iter()
    .map(|(name, major, minor)| Device {
        path: Path::new("/dev").join(name),
        major,
        minor,
        mode: 0o666,
        ..Device::default()
    })
    .collect()
}

pub fn busybox(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "srv"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/srv:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:44:\nextra:x:50:web\n",
    )
    .unwrap();
}

/// The v1 hierarchies that can be written to here, and the unified one beside them.
pub fn hierarchies() -> Vec<(String, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let f: Vec<&str> = line.split(' ').collect();
        if f[2] == "cgroup" || f[2] == "cgroup2" {
            let path = PathBuf::from(f[1]);
            found.push((
                path.file_name().unwrap().to_string_lossy().into_owned(),
                path,
            ));
        }
    }
    found
}

pub fn read_log(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| {
            let v: serde_json::Value = serde_json::from_str(line).expect(line);
            (
                v["stream"].as_str().unwrap().to_owned(),
                v["log"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// Whether a process is there, and not just waiting to be reaped by whoever inherited it.
pub fn running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
    state.is_some_and(|s| s != 'Z')
}

/// Waits for what another process does; fails only if it never happens.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Undoes Docker's multiplexing: all of standard output and of standard error.
pub fn demultiplex(stream: &mut impl Read) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut head = [0; 8];
    while stream.read_exact(&mut head).is_ok() {
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut body = vec![0; len];
        stream.read_exact(&mut body).unwrap();
        match head[0] {
            1 => out.extend(body),
            2 => err.extend(body),
            n => panic!("stream {n}"),
        }
    }
    (out, err)
}
