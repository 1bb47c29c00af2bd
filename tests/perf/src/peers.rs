//! The engines and runtimes that are compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;
use crate::cost::{Cost, Line};

/// Runs this program again in new network and mount namespaces.
pub(crate) fn in_own_namespaces() -> Result<()> {
    let me = std::env::current_exe()?;
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(me)
        .args(std::env::args_os().skip(1))
        .env("GANTRY_PERF_INSIDE", "1")
        .status()
        .context("running unshare")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

/// A daemon under test, ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    account: Account,
    /// Value for `DOCKER_HOST`.
    pub(crate) host: String,
}

/// An engine that is compared.
pub(crate) struct Engine<'a> {
    /// The daemon's name.
    pub(crate) name: &'static str,
    pub(crate) daemon: &'a Daemon,
}

impl<'a> Engine<'a> {
    /// Value for `DOCKER_HOST`.
    pub(crate) fn host(&self) -> &'a str {
        &self.daemon.host
    }
}

impl Daemon {
    fn start(program: &Path, dir: &Path) -> Result<Self> {
        Self::start_in(None, program, dir, "{}")
    }

    /// Starts one in the network namespace of a path, or the benchmark's own, with a configuration.
    pub(crate) fn start_in(
        netns: Option<&Path>,
        program: &Path,
        dir: &Path,
        config: &str,
    ) -> Result<Self> {
        fs::create_dir(dir)?;
        fs::write(dir.join("daemon.json"), config)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let account = Account::new(&name)?;
        let socket = dir.join("api.sock");
        let log = fs::File::create(dir.join("daemon.log"))?;
        let host = format!("unix://{}", socket.display());
        let mut command = match netns {
            Some(netns) => {
                let mut command = account.command("nsenter");
                command.arg(format!("--net={}", netns.display()));
                command.arg("--").arg(program);
                command
            }
            None => {
                let mut command = account.command("unshare");
                // It keeps the mounts that it starts with.
                command.args(["--mount", "--"]).arg(program);
                command
            }
        };
        let mut child = command
            .args(["-H", &host])
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("run"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--config-file")
            .arg(dir.join("daemon.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let end = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if child.try_wait()?.is_some() || Instant::now() > end {
                bail!(
                    "the daemon does not start:\n{}",
                    fs::read_to_string(dir.join("daemon.log"))?
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            child,
            account,
            host,
        })
    }
    /// Process identifier.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Processor time of it and of what it started, containers not included, in milliseconds.
    pub(crate) fn processor(&self) -> Result<f64> {
        self.account.processor()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Everything that can be measured.
pub(crate) struct Bench {
    /// Gantry's daemon.
    pub(crate) gantryd: Daemon,
    /// Debian's dockerd, where it is installed.
    pub(crate) dockerd: Option<Daemon>,
    bin: PathBuf,
    /// Goes last: the daemons' files are in it.
    dir: tempfile::TempDir,
}

impl Bench {
    /// Makes a busybox root file system and starts the daemons with it as image `busybox`.
    pub(crate) fn new(bin: &Path) -> Result<Self> {
        shell("ip link set lo up && mount --make-rprivate /")?;
        let dir = tempfile::Builder::new().prefix("gantry-perf-").tempdir()?;
        let root = dir.path().join("root");
        make_root(&root)?;
        let gantryd = Self::gantryd(bin, dir.path())?;
        // Debian's crun refuses an empty unified hierarchy beside version 1.
        shell("! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified")?;
        let dockerd = Self::dockerd(dir.path())?;
        let bench = Self {
            dir,
            bin: bin.to_owned(),
            gantryd,
            dockerd,
        };
        for engine in bench.engines() {
            bench.import(engine.host())?;
        }
        bench.bundle(&root)?;
        Ok(bench)
    }

    /// Gives an engine the image `busybox`.
    pub(crate) fn import(&self, host: &str) -> Result<()> {
        let root = self.dir.path().join("root");
        let root = root.display();
        shell(&format!(
            "tar -C {root} -c . | docker -H {host} import - busybox >/dev/null"
        ))
    }

    /// A program of this build.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Gantry's daemon, then dockerd where there is one.
    pub(crate) fn engines(&self) -> Vec<Engine<'_>> {
        let daemons = std::iter::once(&self.gantryd).chain(&self.dockerd);
        ["gantryd", "dockerd"]
            .into_iter()
            .zip(daemons)
            .map(|(name, daemon)| Engine { name, daemon })
            .collect()
    }

    /// What each engine cost, by name.
    pub(crate) fn lines(&self, costs: impl IntoIterator<Item = Cost>) -> Vec<Line> {
        let engines = self.engines().into_iter();
        let line = |(engine, cost): (Engine<'_>, Cost)| (engine.name.to_owned(), cost);
        engines.zip(costs).map(line).collect()
    }

    fn gantryd(bin: &Path, dir: &Path) -> Result<Daemon> {
        Daemon::start(&bin.join("gantryd"), &dir.join("gantry"))
    }

    fn dockerd(dir: &Path) -> Result<Option<Daemon>> {
        if shell("command -v dockerd >/dev/null").is_err() {
            println!("dockerd is not installed: left out");
            return Ok(None);
        }
        Daemon::start(Path::new("dockerd"), &dir.join("docker")).map(Some)
    }

    /// An OCI bundle for the bare runtimes, as `runc spec` writes it.
    fn bundle(&self, root: &Path) -> Result<()> {
        let bundle = self.bundle_dir();
        fs::create_dir(&bundle)?;
        if shell("command -v runc >/dev/null").is_err() {
            return Ok(());
        }
        shell(&format!("cd {bundle} && runc spec"))?;
        let path = Path::new(&bundle).join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["true"]);
        spec["root"]["path"] = root.display().to_string().into();
        fs::write(&path, serde_json::to_vec(&spec)?)?;
        Ok(())
    }

    /// A directory that goes with the benchmark.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// The `gantry` client on Gantry's daemon.
    pub(crate) fn gantry(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("gantry"));
        command.env("DOCKER_HOST", &self.gantryd.host).args(words);
        command
    }
    /// The docker client on a host.
    pub(crate) fn docker(&self, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", host).args(words);
        command
    }
    /// A command of a bare OCI runtime on the container `perf`; none when it is not installed, or runc is not, which
    /// makes the bundle.
    pub(crate) fn runtime(&self, name: &str, words: &[&str]) -> Option<Command> {
        let bundle = self.bundle_dir();
        Path::new(&bundle)
            .join("config.json")
            .exists()
            .then_some(())?;
        let program = match name {
            "gantry-oci" => self.bin.join(name),
            _ => name.into(),
        };
        shell(&format!("command -v {} >/dev/null", program.display())).ok()?;
        let mut command = Command::new(program);
        let root = self.dir.path().join(name);
        command.arg("--root").arg(root).args(words).arg("perf");
        Some(command)
    }
    /// The directory of the OCI bundle, for the runtimes' commands.
    pub(crate) fn bundle_dir(&self) -> String {
        self.dir.path().join("bundle").display().to_string()
    }
    /// The system calls that a start needs, and nothing else; with a bridge of its own.
    pub(crate) fn floor(&self) -> Result<Command> {
        let program = self.dir.path().join("floor");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/floor.c");
        shell(&format!("gcc -O2 -o {} {source}", program.display()))?;
        shell(
            "ip link add floor0 type bridge && ip addr add 172.30.0.1/16 dev floor0 && ip link set floor0 up",
        )?;
        let mut command = Command::new(program);
        command.arg(self.dir.path().join("root")).arg("floor0");
        Ok(command)
    }
}

/// How many lines of 64 characters are in `/lines`.
pub(crate) const LINES: usize = 16_384;

/// A root file system of busybox.
fn make_root(root: &Path) -> Result<()> {
    let bin = root.join("bin");
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy("/bin/busybox", bin.join("busybox")).context("package busybox-static")?;
    for applet in ["true", "sh", "sleep", "echo", "cat"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    // Output that costs its producer next to nothing.
    let line = "0123456789abcdef".repeat(4) + "\n";
    fs::write(root.join("lines"), line.repeat(LINES))?;
    Ok(())
}

/// Runs a line of shell.
pub(crate) fn shell(line: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", line]).status()?;
    ensure!(status.success(), "failed: {line}");
    Ok(())
}
