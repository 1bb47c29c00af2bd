//! A runtime with directories of its own, and a busybox root file system.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{Mount, MountPlan};
use gantry_model::{ContainerId, ExecId};
use gantry_runtime::spec::NamespaceMode;
use gantry_runtime::{
    Attach, Attached, CreateRequest, ExecRequest, ExecStdio, ExitStatus, LogTarget, OciRuntime,
    Process, Runtime, RuntimeConfig, RuntimeError, SpecInput,
};
use gantry_sys::host::HostFacts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Everything of one test; cleans up after itself.
pub struct Bed {
    pub dir: tempfile::TempDir,
    pub runtime: Arc<Runtime>,
    pub parent: String,
}

/// The monitor's binary, beside this test's own.
pub fn monitor_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("gantry-monitor");
    assert!(
        binary.exists(),
        "{} is missing: cargo build -p gantry-monitor",
        binary.display()
    );
    binary
}

impl Bed {
    pub async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        rootfs(&dir.path().join("lower"));
        let parent = format!("gantry-test-{}-{name}", std::process::id());
        let runtime = Runtime::new(Self::config(dir.path(), &parent))
            .await
            .unwrap();
        Self {
            dir,
            runtime,
            parent,
        }
    }
    pub fn config(dir: &Path, parent: &str) -> RuntimeConfig {
        let foreign = ["runc", "crun"].map(|name| {
            let runtime = OciRuntime {
                path: name.into(),
                args: Vec::new(),
            };
            (name.to_owned(), runtime)
        });
        RuntimeConfig {
            zygote: monitor_binary(),
            exec_root: dir.join("exec"),
            cgroup_parent: parent.to_owned(),
            runtimes: BTreeMap::from(foreign),
            host: HostFacts::probe(Path::new("/proc"), Path::new("/sys")).unwrap(),
        }
    }
    /// A second engine on the same directories.
    pub async fn again(&self) -> Arc<Runtime> {
        Runtime::new(Self::config(self.dir.path(), &self.parent))
            .await
            .unwrap()
    }
    /// The description of `sh -c script`, in a network namespace of its own.
    pub fn shell(&self, script: &str) -> SpecInput {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        SpecInput::new(ContainerId::generate(), argv)
    }
    /// A request to create it, on a fresh writable layer.
    pub fn request(&self, input: &SpecInput) -> CreateRequest {
        let layer = self.dir.path().join(input.id.short());
        for name in ["upper", "work"] {
            std::fs::create_dir_all(layer.join(name)).unwrap();
        }
        CreateRequest {
            id: input.id.clone(),
            spec: self.runtime.build_spec(input).unwrap(),
            rootfs: MountPlan::single(Mount::Overlay {
                lower: vec![self.dir.path().join("lower")],
                upper: Some(layer.join("upper")),
                work: Some(layer.join("work")),
                options: Vec::new(),
            }),
            netns: None,
            userns: None,
            tty: input.tty,
            open_stdin: false,
            stdin_once: false,
            log: Some(self.log(input)),
            console_size: None,
            runtime: None,
        }
    }
    pub fn log(&self, input: &SpecInput) -> LogTarget {
        LogTarget {
            path: self.dir.path().join(format!("{}.log", input.id.short())),
            max_size: None,
            max_files: 1,
            compress: false,
            buffer: None,
            attrs: String::new(),
        }
    }
    pub async fn create(&self, input: &SpecInput) -> Result<Arc<Process>, RuntimeError> {
        self.runtime.create(self.request(input)).await
    }
    /// Creates, attaches to the output, starts, waits, deletes: all output, and how it ended.
    pub async fn run(&self, input: &SpecInput) -> (String, ExitStatus) {
        self.run_request(self.request(input)).await
    }
    pub async fn run_request(&self, request: CreateRequest) -> (String, ExitStatus) {
        let tty = request.tty;
        let process = self.runtime.create(request).await.unwrap();
        let attached = process.attach(output()).await.unwrap();
        process.start().await.unwrap();
        let bytes = drain(attached).await;
        let status = within(process.wait()).await.unwrap();
        process.delete().await.unwrap();
        let text = if tty { bytes } else { unframe(&bytes) };
        (String::from_utf8_lossy(&text).into_owned(), status)
    }
    /// Runs a script with the defaults changed.
    pub async fn script(&self, script: &str, change: impl FnOnce(&mut SpecInput)) -> String {
        let mut input = self.shell(script);
        change(&mut input);
        let (out, status) = self.run(&input).await;
        assert_eq!(status.code, 0, "{out}");
        out
    }
    /// Fails when cgroups or runtime files are left.
    pub fn assert_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("exec/containers"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "runtime files are left: {left:?}");
        let cgroups = self.runtime.host().cgroups.clone().unwrap();
        let left = cgroups.list(Path::new(&self.parent));
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let Some(cgroups) = self.runtime.host().cgroups.clone() else {
            return;
        };
        let group = gantry_sys::cgroup::Group::new(Arc::new(cgroups), Path::new(&self.parent));
        let _ = group.kill_all();
        let _ = group.remove();
    }
}

/// A static busybox with its usual names.
fn rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "home"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is installed");
    for name in [
        "sh", "echo", "cat", "id", "sleep", "ls", "env", "hostname", "touch", "mkdir", "head",
        "grep", "true", "false", "stty", "kill", "pwd", "readlink", "mount", "stat", "dd", "wc",
        "seq", "ps", "tail", "mknod", "cut", "tr",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\nwheel:x:10:root\nuser:x:1001:\naudio:x:29:user\nextra:x:77:\n";
    std::fs::write(root.join("etc/group"), group).unwrap();
    std::fs::write(root.join("etc/not-executable"), "#!/bin/sh\n").unwrap();
}

pub fn output() -> Attach {
    Attach {
        stdin: false,
        stdout: true,
        stderr: true,
        partial: false,
    }
}

/// A generous bound, so that a hang is a failure and not a hanging suite.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .expect("it hangs")
}

pub async fn drain(mut attached: Attached) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(attached.stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    bytes
}

/// The payload of multiplexed frames.
pub fn unframe(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(head) = bytes.first_chunk::<8>() {
        assert!(matches!(head[0], 1 | 2) && head[1..4] == [0; 3], "{head:?}");
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        out.extend_from_slice(&bytes[8..8 + len]);
        bytes = &bytes[8 + len..];
    }
    assert!(bytes.is_empty());
    out
}

pub fn exec_request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        id: ExecId::generate(),
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        user: None,
        privileged: false,
        tty: false,
        console_size: None,
        stdin: false,
        stdout: true,
        stderr: true,
    }
}

async fn read_fd(fd: Option<OwnedFd>) -> String {
    let Some(fd) = fd else {
        return String::new();
    };
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // A terminal whose other side is gone answers EIO.
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
    .await
    .unwrap()
}

/// Runs an exec to its end: stdout, stderr, exit code.
pub async fn exec(process: &Arc<Process>, request: ExecRequest) -> (String, String, i32) {
    let mut running = within(process.exec(request)).await.unwrap();
    let (out, err) = match running.take_stdio().unwrap() {
        ExecStdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            drop(stdin);
            within(async { (read_fd(stdout).await, read_fd(stderr).await) }).await
        }
        ExecStdio::Pty(master) => (within(read_fd(Some(master))).await, String::new()),
    };
    let status = within(running.wait()).await.unwrap();
    (out, err, status.code)
}

/// Writes to a stream and shuts that direction.
pub async fn feed(stream: &mut tokio::net::UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Shares the host's network, for tests that need none.
pub fn host_network(input: &mut SpecInput) {
    input.namespaces.network = NamespaceMode::Host;
}
