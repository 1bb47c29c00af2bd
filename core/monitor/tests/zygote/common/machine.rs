//! Zygote, launches, and what must be gone at the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use gantry_driver_api::{Mount as Layer, MountPlan};
use gantry_monitor::client::Zygote;
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use super::*;

/// Launches of this process: names of cgroups must differ.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A machine of one test: a zygote, a root file system, a directory. Checks at its end that nothing is left.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) zygote: Option<Zygote>,
    monitors: std::cell::RefCell<Vec<i32>>,
    cgroups: std::cell::RefCell<Vec<PathBuf>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with_wrapper(None)
    }

    /// With a zygote that this script executes.
    pub(crate) fn with_wrapper(script: Option<&str>) -> Self {
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
            monitors: Vec::new().into(),
            cgroups: Vec::new().into(),
        }
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    /// A launch as Docker's defaults make it, without network namespace work and cgroups.
    pub(crate) fn spec(&self, argv: &[&str]) -> Spec {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
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
            rootfs: Some(rootfs),
            ..default_plan(argv)
        };
        Spec {
            launch,
            plan,
            namespaces: Vec::new(),
            dir,
        }
    }

    /// Gives a launch a cgroup in every v1 hierarchy of this machine.
    pub(crate) fn with_cgroups(&self, spec: &mut Spec) {
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

    pub(crate) fn launch(&self, spec: Spec) -> Container {
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
    pub(crate) fn create(&self, spec: Spec) -> Container {
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

    pub(crate) fn start(&self, spec: Spec) -> Container {
        let mut c = self.create(spec);
        c.start();
        c
    }

    /// Runs to the end: exit record and log as (stream, text).
    pub(crate) fn run(&self, spec: Spec) -> (ExitRecord, String) {
        let mut c = self.start(spec);
        let record = c.exited();
        (record, c.output())
    }

    /// Fails to create: the reason.
    pub(crate) fn refused(&self, spec: Spec) -> Failure {
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

pub(crate) struct Spec {
    pub(crate) launch: Launch,
    pub(crate) plan: Plan,
    pub(crate) namespaces: Vec<OwnedFd>,
    pub(crate) dir: PathBuf,
}
