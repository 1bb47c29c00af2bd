//! A bundle, and the runtime on it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gantry_e2e::{Done, bin_dir, busybox_rootfs, eventually, run};
use serde_json::{Value, json};

/// A bundle with busybox, and a root directory for the runtime's state.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Value,
    /// Makes names of containers, and so of cgroups, unique.
    tag: String,
}

impl Bundle {
    pub(crate) fn new(script: &str) -> Self {
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
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }
    pub(crate) fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).expect("it is ours");
    }
    /// A command of the runtime; `@x` is the container of that name.
    pub(crate) fn words(&self, line: &str) -> Vec<String> {
        let root = self.path("state").display().to_string();
        let mut words = vec!["--root".to_owned(), root];
        words.extend(line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => self.id(name),
            None => word.to_owned(),
        }));
        words
    }
    /// Runs a command that leaves no process with its streams behind.
    pub(crate) fn oci(&self, line: &str) -> Done {
        self.write();
        run(program(), &self.words(line))
    }
    /// Runs one that may: what it and the container say is in the file `out`.
    pub(crate) fn detached(&self, line: &str) -> (i32, String) {
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
    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.path("out")).expect("it was made")
    }
    #[track_caller]
    pub(crate) fn create(&self, name: &str) {
        let (code, said) = self.detached(&format!("create @{name}"));
        assert_eq!(code, 0, "{said}");
    }
    /// Runs the bundle to its end.
    pub(crate) fn run(&self, name: &str) -> Done {
        let bundle = self.dir.path().display();
        self.oci(&format!("run --bundle {bundle} @{name}"))
    }
    pub(crate) fn state(&self, name: &str) -> Value {
        let text = self.oci(&format!("state @{name}")).ok();
        serde_json::from_str(&text).expect("the state is JSON")
    }
    pub(crate) fn status(&self, name: &str) -> String {
        self.state(name)["status"]
            .as_str()
            .expect("a word")
            .to_owned()
    }
    pub(crate) fn pid(&self, name: &str) -> i64 {
        self.state(name)["pid"].as_i64().expect("a number")
    }
    pub(crate) fn await_status(&self, name: &str, status: &str) {
        eventually(status, 30, || (self.status(name) == status).then_some(()));
    }
    /// What hooks wrote down.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
    /// A hook that notes its name and the state it is told in `log` of the bundle.
    pub(crate) fn hook(&self, name: &str) -> Value {
        let log = self.path("log").display().to_string();
        let script = format!("echo {name} $(cat) >> {log}");
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
    }
    /// Checks that nothing is left of any container.
    pub(crate) fn finish(self) {
        assert_eq!(self.oci("list --quiet").ok(), "");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc");
        assert!(!mounts.contains(&self.tag), "{mounts}");
    }
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
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

pub(crate) fn program() -> PathBuf {
    bin_dir().join("gantry-oci")
}
