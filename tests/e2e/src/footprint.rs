//! What an engine has on the machine, found by its root directory and its tag.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_fixtures::inside;

/// Everything found that belongs to one engine, one line each. `namespace` is the engine's host's network, when that is
/// another than this process's.
pub(crate) fn of(dir: &Path, tag: &str, namespace: Option<&Path>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    mounts(dir, &mut found);
    links(tag, namespace, &mut found);
    cgroups(tag, &mut found);
    tables(tag, namespace, &mut found);
    processes(dir, tag, &mut found);
    found
}

/// Ends the processes of an engine whose test failed, and takes its network and its cgroups down: the next test wants a quiet
/// machine and addresses that are free.
pub(crate) fn end(dir: &Path, tag: &str, namespace: Option<&Path>) {
    let mut found = BTreeSet::new();
    processes(dir, tag, &mut found);
    for line in found {
        let pid = line
            .strip_prefix("process /proc/")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let mut found = BTreeSet::new();
    links(tag, namespace, &mut found);
    tables(tag, namespace, &mut found);
    cgroups(tag, &mut found);
    let run = |args: &[&str]| {
        let mut command = inside(namespace, args[0]);
        drop(command.args(&args[1..]).output());
    };
    for line in found {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["link", name] => run(&["ip", "link", "del", name]),
            ["nft", "table", family, name] => run(&["nft", "delete", "table", family, name]),
            ["cgroup", path] => remove_cgroup(path),
            _ => {}
        }
    }
}

/// Removes a cgroup and those in it, which are busy until the last of their processes is buried.
fn remove_cgroup(path: &str) {
    let args = [path, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"];
    for _ in 0..20 {
        let _ = crate::run("find", &args);
        if !Path::new(path).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn mounts(dir: &Path, found: &mut BTreeSet<String>) {
    let dir = dir.display().to_string();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo is readable");
    found.extend(
        table
            .lines()
            .filter(|l| l.contains(&dir))
            .map(|l| format!("mount {l}")),
    );
}

fn links(tag: &str, namespace: Option<&Path>, found: &mut BTreeSet<String>) {
    for line in lines(namespace, "ip", &["-o", "link"]) {
        // `7: name@other: <FLAGS> ...`
        let name = line.split(": ").nth(1).unwrap_or(&line);
        let name = name.split('@').next().unwrap_or(name);
        // Link names have 15 bytes: a prefix of the tag must do.
        if name.contains(&tag[..6]) {
            found.insert(format!("link {name}"));
        }
    }
}

/// What a program prints in a network namespace.
fn lines(namespace: Option<&Path>, program: &str, args: &[&str]) -> Vec<String> {
    let done = inside(namespace, program).args(args).output();
    let done = done.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program}: {done:?}");
    let text = String::from_utf8_lossy(&done.stdout);
    text.lines().map(str::to_owned).collect()
}

fn cgroups(tag: &str, found: &mut BTreeSet<String>) {
    fn walk(dir: &Path, depth: usize, tag: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().contains(tag) {
                    found.insert(format!("cgroup {}", path.display()));
                } else if depth > 0 {
                    walk(&path, depth - 1, tag, found);
                }
            }
        }
    }
    walk(Path::new("/sys/fs/cgroup"), 3, tag, found);
}

fn tables(tag: &str, namespace: Option<&Path>, found: &mut BTreeSet<String>) {
    let list = lines(namespace, "nft", &["list", "tables"]);
    found.extend(
        list.iter()
            .filter(|l| l.contains(tag))
            .map(|l| format!("nft {l}")),
    );
}

fn process_dirs() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .expect("proc is mounted")
        .flatten()
        .filter(|e| {
            e.file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .map(|e| e.path())
}

fn processes(dir: &Path, tag: &str, found: &mut BTreeSet<String>) {
    let dir = dir.display().to_string();
    let me = std::process::id().to_string();
    for process in process_dirs() {
        if process.file_name().is_some_and(|name| name == me.as_str()) {
            continue;
        }
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(process.join(file)).unwrap_or_default())
                .replace('\0', " ")
        };
        let (line, cgroup, environment) = (read("cmdline"), read("cgroup"), read("environ"));
        // A zombie has no command line; it is its parent's to reap.
        if line.is_empty() && !cgroup.contains(tag) {
            continue;
        }
        if line.contains(&dir) || cgroup.contains(tag) || environment.contains(&dir) {
            found.insert(format!("process {} {line}", process.display()));
        }
    }
}
