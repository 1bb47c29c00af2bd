//! What is to be seen from outside: cgroups, logs, processes, output.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The v1 hierarchies that can be written to here, and the unified one beside them.
pub(crate) fn hierarchies() -> Vec<(String, PathBuf)> {
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

pub(crate) fn read_log(path: &Path) -> Vec<(String, String)> {
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
pub(crate) fn running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
    state.is_some_and(|s| s != 'Z')
}

/// Waits for what another process does; fails only if it never happens.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Undoes Docker's multiplexing: all of standard output and of standard error.
pub(crate) fn demultiplex(stream: &mut impl Read) -> (Vec<u8>, Vec<u8>) {
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
