//! One `gantryd` on a private root, and clients that talk to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::run::{Done, eventually, run_env, run_stdin};
use crate::{fixture, footprint};

/// How to start an engine.
#[derive(Debug, Default)]
pub struct Options {
    /// Additional arguments of `gantryd`.
    pub args: Vec<String>,
    /// Contents of the configuration file.
    pub config: Option<serde_json::Value>,
    /// Plugin directory instead of the build's own.
    pub plugins: Option<PathBuf>,
    /// Data-root instead of one in the engine's directory.
    pub data: Option<PathBuf>,
    /// What the daemon takes for the identifier of the machine's boot.
    pub boot_id: Option<String>,
    /// Files of the host that the daemon finds with another content.
    pub files: Vec<(&'static str, String)>,
    /// The network namespace that is the daemon's host, instead of the test's own.
    pub namespace: Option<PathBuf>,
}

/// A running engine. Dropping it without [`Engine::finish`] (a failing test) ends its processes all the same.
pub struct Engine {
    dir: tempfile::TempDir,
    data: PathBuf,
    options: Options,
    child: Option<Child>,
    tag: String,
}

/// Where the binaries of this build are.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("GANTRY_BIN_DIR") {
        return dir.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors()
        .nth(2)
        .expect("tests are built into target/PROFILE/deps")
        .to_owned()
}

impl Engine {
    /// Starts an engine with default options and the busybox image `busybox:latest` imported.
    pub fn start() -> Self {
        let engine = Self::with(Options::default());
        engine.import_busybox("busybox:latest");
        engine
    }

    /// Starts an engine without images.
    pub fn with(options: Options) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("gantry-e2e-")
            .tempdir()
            .expect("a temporary directory");
        let data = match &options.data {
            Some(data) => data.clone(),
            None => {
                let data = dir.path().join("data");
                fs::create_dir(&data).expect("a new directory");
                data
            }
        };
        let data = data.canonicalize().expect("it is there");
        let tag = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()))[..8].to_owned();
        let mut engine = Self {
            dir,
            data,
            options,
            child: None,
            tag,
        };
        engine.boot();
        engine
    }

    /// The engine's directory: `data`, `run`, `gantryd.log`, `docker.sock` and what the test puts there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// The data-root.
    pub fn data(&self) -> &Path {
        &self.data
    }
    /// Eight hex digits that names of this engine's things carry.
    pub fn tag(&self) -> &str {
        &self.tag
    }
    /// What `DOCKER_HOST` must be.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("docker.sock")
    }
    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }
    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("gantryd.log")).unwrap_or_default()
    }

    /// Spawns the daemon without waiting for it.
    pub fn spawn(&self) -> Child {
        let config = match self.config() {
            Some(value) => {
                let path = self.dir().join("daemon.json");
                fs::write(&path, value.to_string()).expect("the configuration is written");
                path
            }
            None => "/dev/null".into(),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir().join("gantryd.log"))
            .expect("a log");
        let plugins = self.options.plugins.clone().unwrap_or_else(bin_dir);
        self.program()
            .arg("-H")
            .arg(self.host())
            .args([OsStr::new("--data-root"), self.data.as_os_str()])
            .args([
                OsStr::new("--exec-root"),
                self.dir().join("run").as_os_str(),
            ])
            .args([
                OsStr::new("--pidfile"),
                self.dir().join("gantryd.pid").as_os_str(),
            ])
            .args([OsStr::new("--config-file"), config.as_os_str()])
            .args([OsStr::new("--plugin-dir"), plugins.as_os_str()])
            .args(["--group", "root"])
            .args(&self.options.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("gantryd is built: run `cargo build --workspace` first")
    }

    /// The configuration, with the storage driver that the environment asks for (`GANTRY_TEST_STORAGE`) unless the test
    /// chooses one.
    fn config(&self) -> Option<serde_json::Value> {
        let mut config = self.options.config.clone();
        if let Ok(driver) = std::env::var("GANTRY_TEST_STORAGE") {
            let config = config.get_or_insert_with(|| serde_json::json!({}));
            if config["drivers"]["storage"].is_null() && config["storage-driver"].is_null() {
                config["storage-driver"] = driver.into();
            }
        }
        config
    }

    /// Gives the next start another configuration.
    pub fn configure(&mut self, config: serde_json::Value) {
        self.options.config = Some(config);
    }

    /// The daemon's program, in a mount namespace with files of its own when some are wanted.
    fn program(&self) -> Command {
        let gantryd = bin_dir().join("gantryd");
        let boot_id = self.options.boot_id.as_ref();
        let boot_id = boot_id.map(|id| ("/proc/sys/kernel/random/boot_id", id));
        let others = self.options.files.iter().map(|(path, text)| (*path, text));
        let files: Vec<_> = boot_id.into_iter().chain(others).collect();
        if files.is_empty() {
            return gantry_fixtures::inside(self.options.namespace.as_deref(), gantryd);
        }
        let script = "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; \
                      shift; exec \"$@\"";
        let mut command = gantry_fixtures::inside(self.options.namespace.as_deref(), "unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        for (n, (path, text)) in files.into_iter().enumerate() {
            let file = self.dir().join(format!("file{n}"));
            fs::write(&file, text).expect("the file is written");
            command.arg(file).arg(path);
        }
        command.arg("--").arg(gantryd);
        command
    }

    /// What a power cut and a restart of the machine are to the engine: daemon, monitors and containers end at once, and
    /// the daemon finds another boot identifier.
    pub fn reboot(&mut self, boot_id: &str) {
        let mut doomed = Vec::new();
        for id in self.docker(&["ps", "-q"]).ok().lines() {
            let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", id]).ok();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let monitor = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:"))
                .map(|parent| parent.trim().to_owned());
            doomed.extend(monitor);
            doomed.push(pid);
        }
        self.kill9();
        for pid in doomed {
            signal(pid.parse().expect("a process"), Signal::KILL);
        }
        self.options.boot_id = Some(boot_id.into());
        self.boot();
    }

    /// Starts the daemon (again) and waits until it answers.
    #[track_caller]
    pub fn boot(&mut self) {
        self.child = Some(self.spawn());
        eventually("the daemon answers", 30, || {
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("gantryd ended with {status}:\n{}", self.log());
            }
            std::os::unix::net::UnixStream::connect(self.socket()).ok()
        });
    }

    /// `kill -9` of the daemon, and of nothing else.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// SIGTERM, and waits for the end. Panics when the daemon does not end well.
    #[track_caller]
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        signal(child.id(), Signal::TERM);
        let status = eventually("gantryd ends", 30, || child.try_wait().expect("a child"));
        assert!(
            status.success(),
            "gantryd ended with {status}:\n{}",
            self.log()
        );
    }

    fn environment(&self) -> Vec<(String, String)> {
        let dir = self.dir().display();
        [
            ("DOCKER_HOST", self.host()),
            ("DOCKER_CONFIG", format!("{dir}/config")),
            ("HOME", format!("{dir}/home")),
            // Its reaper comes from a registry that is not here.
            ("TESTCONTAINERS_RYUK_DISABLED", "true".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .to_vec()
    }
    /// Runs the docker CLI.
    pub fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        run_env("docker", args, &self.environment())
    }
    /// Runs `gantry`.
    pub fn gantry<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        run_env(bin_dir().join("gantry"), args, &self.environment())
    }
    /// Runs the docker CLI with input.
    pub fn docker_stdin<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Done {
        run_stdin("docker", args, &self.environment(), input)
    }
    /// Runs any program in the clients' environment.
    pub fn client<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[S]) -> Done {
        run_env(program, args, &self.environment())
    }
    /// A docker command to be spawned by the test itself.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new("docker");
        command.envs(self.environment()).stdin(Stdio::null());
        command
    }
    /// A raw API request by curl: status code and body.
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        match body {
            Some(body) => {
                let more = ["-H", "Content-Type: application/json", "-d", body];
                self.curl(method, path, &more)
            }
            None => self.curl(method, path, &[]),
        }
    }
    /// As [`Engine::api`], with the bytes of an archive as the body.
    pub fn send_tar(&self, method: &str, path: &str, file: &Path) -> (u16, String) {
        let data = format!("@{}", file.display());
        let kind = "Content-Type: application/x-tar";
        self.curl(method, path, &["-H", kind, "--data-binary", &data])
    }
    /// As [`Engine::api`], with what else curl is told.
    pub fn curl(&self, method: &str, path: &str, more: &[&str]) -> (u16, String) {
        let socket = self.socket().display().to_string();
        let url = format!("http://localhost{path}");
        let mut args = vec![
            "-s",
            "-X",
            method,
            "--unix-socket",
            &socket,
            "-w",
            "\n%{http_code}",
            &url,
        ];
        args.extend(more);
        let out = crate::run("curl", &args).ok();
        let (body, code) = out.rsplit_once('\n').unwrap_or(("", &out));
        (
            code.parse().expect("curl prints the status"),
            body.to_owned(),
        )
    }

    /// Imports a busybox root file system under `name`.
    #[track_caller]
    pub fn import_busybox(&self, name: &str) {
        self.docker(&[
            "import",
            "--change",
            "CMD [\"sh\"]",
            fixture::busybox_tar(),
            name,
        ])
        .ok();
    }

    /// Removes every container, stops the daemon and checks that nothing is left on the machine.
    #[track_caller]
    pub fn finish(mut self) {
        let ids = self.docker(&["ps", "-aq"]).ok();
        for id in ids.lines() {
            self.docker(&["rm", "-f", "-v", id]).ok();
        }
        self.terminate();
        let left = std::cell::RefCell::default();
        let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("nothing is left", 30, || {
                *left.borrow_mut() =
                    footprint::of(self.dir(), &self.tag, self.options.namespace.as_deref());
                left.borrow().is_empty().then_some(())
            });
        }));
        let left: Vec<String> = left.into_inner().into_iter().collect();
        assert!(
            clean.is_ok(),
            "left behind:\n{}\n--- daemon log\n{}",
            left.join("\n"),
            self.log()
        );
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process identifier is positive");
    kill_process(pid, signal).expect("it is ours");
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon log of {}\n{}", self.tag, self.log());
        }
        if let Some(mut child) = self.child.take() {
            // A failing test must not leave its containers running.
            let _ = run_env(
                "sh",
                &["-c", "docker ps -aq | xargs -r docker rm -f"],
                &self.environment(),
            );
            let _ = child.kill();
            let _ = child.wait();
        }
        footprint::end(
            self.dir.path(),
            &self.tag,
            self.options.namespace.as_deref(),
        );
    }
}
