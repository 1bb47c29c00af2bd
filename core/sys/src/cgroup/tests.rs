//! Against fake roots (files in a directory), and against this machine's own hierarchies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;

mod devices;
mod properties;
mod real;
mod v1;
mod v2;

/// A directory that looks like `/sys/fs/cgroup`, and one that looks like `/proc`.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new(files: &[(&str, &str)], self_cgroup: &str) -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(fake.proc().join("self")).unwrap();
        fs::write(fake.proc().join("self/cgroup"), self_cgroup).unwrap();
        fs::create_dir(fake.root()).unwrap();
        for (path, text) in files {
            fake.put(path, text);
        }
        fake
    }
    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }
    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
    fn detect(&self) -> Cgroups {
        Cgroups::detect(&self.root(), &self.proc()).unwrap()
    }
    fn group(&self, path: &str) -> Group {
        Group::new(Arc::new(self.detect()), Path::new(path))
    }
}

const V2_ROOT: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("cgroup.subtree_control", "cpu\n"),
    ("cgroup.procs", ""),
];

#[test]
fn modes_are_told_apart() {
    assert_eq!(Fake::new(V2_ROOT, "0::/\n").detect().mode(), Mode::V2);
    let lines = "3:cpu,cpuacct:/\n2:memory:/\n1:name=systemd:/\n0::/\n";
    let v1: &[(&str, &str)] = &[
        ("cpu,cpuacct/cgroup.procs", ""),
        ("memory/cgroup.procs", ""),
        ("systemd/cgroup.procs", ""),
    ];
    let fake = Fake::new(v1, lines);
    let found = fake.detect();
    assert_eq!(found.mode(), Mode::V1);
    assert_eq!(found.mode().version(), "1");
    assert!(found.has("cpuacct") && found.has("cpu") && !found.has("pids"));
    assert_eq!(found.v1()["cpu"], found.v1()["cpuacct"]);
    assert_eq!(fake.group("a/b").v1_dirs().len(), 2);
    fake.put("unified/cgroup.procs", "");
    assert_eq!(fake.detect().mode(), Mode::Hybrid);
    // What another runtime has made where we make nothing is taken away all the same.
    let idle = ["systemd/p/c", "unified/p/c"].map(|path| fake.root().join(path));
    idle.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    assert_eq!(
        fake.detect()
            .list(Path::new("p"))
            .into_iter()
            .collect::<Vec<_>>(),
        ["c"]
    );
    fake.group("p/c").remove().unwrap();
    assert!(idle.iter().all(|dir| !dir.exists()));
    let empty = Fake::new(&[], "");
    assert!(Cgroups::detect(&empty.root(), &empty.proc()).is_err());
}

#[test]
fn files_of_groups_are_found() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    assert!(!fake.detect().has_file("memory", &["memory.max"]));
    assert_eq!(fs::read_dir(fake.root()).unwrap().count(), V2_ROOT.len());
    fake.put("a.slice/cgroup.procs", "");
    fake.put("b.slice/memory.max", "");
    assert!(
        fake.detect()
            .has_file("memory", &["memory.other", "memory.max"])
    );
    assert!(!fake.detect().has_file("hugetlb", &["memory.max"]));
    if let Some(here) = here().filter(|here| here.mode() != Mode::V2 && here.has("pids")) {
        // It is in every group but the root.
        assert!(here.has_file("pids", &["pids.max"]));
        assert!(!here.has_file("pids", &["pids.none"]));
    }
}

#[test]
fn memory_that_runs_out_is_told() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    fake.put("g/c1/memory.events", "max 0\noom_kill 0\n");
    let (mut watch, news) = fake.group("g/c1").watch_oom().unwrap();
    assert!(!watch.happened(&news));
    fake.put("g/c1/memory.events", "max 7\noom_kill 0\n");
    assert!(!watch.happened(&news));
    fake.put("g/c1/memory.events", "max 8\noom_kill 1\n");
    assert!(watch.happened(&news));
    assert!(!watch.happened(&news));

    let Some(own) = Own::new("oom").filter(|own| own.0.v2_dir().is_none()) else {
        return;
    };
    let limit = Limits {
        memory: Some(8 << 20),
        memory_swap: Some(8 << 20),
        ..Limits::default()
    };
    own.0.apply(&limit).unwrap();
    let (mut watch, news) = own.0.watch_oom().unwrap();
    assert!(!watch.happened(&news));
    // It waits for its place in the group before it takes memory.
    let mut eater = Command::new("sh")
        .args(["-c", "read go; head -c 50000000 /dev/zero | tail -n 1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    join(&own.0, eater.id());
    drop(eater.stdin.take());
    eater.wait().unwrap();
    assert!(watch.happened(&news));
    assert!(own.0.oom_kills() > 0);
}

#[test]
fn errors_name_the_file() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    let group = fake.group("x");
    group.create().unwrap();
    let limits = Limits {
        pids: Some(5),
        ..Limits::default()
    };
    let error = group.apply(&limits).unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
    assert!(error.to_string().contains("pids.max"), "{error}");
    // Nothing is made by writing to it.
    assert!(!fake.root().join("x/pids.max").exists());
    assert!(
        fs::metadata(fake.root().join("x"))
            .unwrap()
            .permissions()
            .mode()
            & 0o755
            == 0o755
    );
}

/// This machine's groups; `None` (and the test says so) where it may not make any.
fn here() -> Option<Arc<Cgroups>> {
    let found = Cgroups::detect(Path::new("/sys/fs/cgroup"), Path::new("/proc")).ok()?;
    Some(Arc::new(found))
}

/// A group with a name of its own, removed at the end.
struct Own(Group);

impl Own {
    fn new(name: &str) -> Option<Self> {
        let path = format!("gantry-test-{}-{name}/c", std::process::id());
        let group = Group::new(here()?, Path::new(&path));
        group.create().ok()?;
        Some(Self(group))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
        let _ = self.0.remove();
        for dir in self.0.v1_dirs().into_iter().chain(self.0.v2_dir()) {
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

fn join(group: &Group, pid: u32) {
    for dir in group.v1_dirs().into_iter().chain(group.v2_dir()) {
        fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}
