//! The order in which things reach the disk, as the kernel sees it: what a power cut leaves depends on nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gantry_e2e::{Engine, Registry};
use rustix::process::{Pid, Signal, kill_process};

use crate::tools::push_image;

/// One system call: its name, and what it was called with, descriptors as paths.
struct Called {
    name: String,
    line: String,
}

/// The daemon's calls that write records and names, and make them durable.
struct Trace {
    child: Child,
    file: PathBuf,
}

impl Trace {
    fn start(engine: &Engine) -> Self {
        let file = engine.dir().join("trace");
        let mut child = Command::new("strace")
            .args(["-f", "-y", "-s", "65536", "-o"])
            .arg(&file)
            .args([
                "-e",
                "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,pwrite64",
            ])
            .args(["-p", &engine.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("package strace is installed");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.next().unwrap().unwrap().contains("attached"));
        // It tells of every thread; nobody may have to wait for that to be read.
        std::thread::spawn(move || said.for_each(drop));
        Self { child, file }
    }

    fn stop(mut self) -> Vec<Called> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap();
        let mut calls: Vec<Called> = Vec::new();
        let mut begun: Vec<(String, String)> = Vec::new();
        for line in BufReader::new(File::open(&self.file).unwrap()).lines() {
            let line = line.unwrap();
            let (thread, rest) = line.split_once(' ').unwrap();
            let rest = rest.trim_start();
            // A call counts from when it has ended.
            let whole = match rest.strip_suffix(" <unfinished ...>") {
                Some(start) => {
                    begun.push((thread.to_owned(), start.to_owned()));
                    continue;
                }
                None if rest.starts_with("<... ") => {
                    let Some(at) = begun.iter().position(|(owner, _)| owner == thread) else {
                        continue;
                    };
                    begun.remove(at).1
                }
                None => rest.to_owned(),
            };
            let name = whole.split('(').next().unwrap().to_owned();
            calls.push(Called { name, line: whole });
        }
        calls
    }
}

/// Checks that blobs and layers are durable before their names, and these before the record of an image.
fn check(calls: &[Called], what: &str) {
    let is_sync = |call: &Called| matches!(call.name.as_str(), "fsync" | "fdatasync");
    let record = calls
        .iter()
        .position(|call| {
            call.name == "pwrite64"
                && call.line.contains("state.redb")
                && call.line.contains("last_tagged")
        })
        .unwrap_or_else(|| panic!("{what}: no record is written"));
    let (before, after) = calls.split_at(record);
    let (mut blobs, mut layers) = (0, 0);
    for (at, call) in before.iter().enumerate() {
        let later = &before[at..];
        if !call.name.starts_with("rename") {
            continue;
        }
        let mut names = call.line.split('"').skip(1).step_by(2);
        let (Some(from), Some(to)) = (names.next(), names.next()) else {
            continue;
        };
        if to.contains("/content/blobs/") {
            blobs += 1;
            let data = before[..at]
                .iter()
                .any(|c| is_sync(c) && c.line.contains(from));
            assert!(data, "{what}: {from} is named before it is on the disk");
            let directory = to.rsplit_once('/').unwrap().0;
            let named = later
                .iter()
                .any(|c| is_sync(c) && c.line.contains(&format!("<{directory}>")));
            assert!(
                named,
                "{what}: {to} is recorded before its name is on the disk"
            );
        }
        // The record of a layer that was made, not of a directory to unpack it in.
        let snapshot = to.strip_suffix("/meta");
        if let Some(snapshot) = snapshot.filter(|_| {
            before[..at]
                .iter()
                .any(|c| is_sync(c) && c.line.contains(from))
        }) {
            layers += 1;
            let data = before[..at]
                .iter()
                .any(|c| c.name == "syncfs" && c.line.contains(&format!("<{snapshot}>")));
            assert!(
                data,
                "{what}: layer {snapshot} is named before it is on the disk"
            );
            let named = later
                .iter()
                .any(|c| is_sync(c) && c.line.contains(&format!("<{snapshot}>")));
            assert!(
                named,
                "{what}: layer {snapshot} is recorded before its name is on the disk"
            );
        }
    }
    assert!(
        blobs > 0 && layers > 0,
        "{what}: {blobs} blobs, {layers} layers"
    );
    let durable = after
        .iter()
        .any(|c| is_sync(c) && c.line.contains("state.redb"));
    assert!(durable, "{what}: the record is not on the disk");
}

#[test]
fn data_then_names_then_records() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let engine = Engine::with(Default::default());
    let name = format!("{}/big:1", registry.domain());
    let traced = |what: &str, work: &dyn Fn()| {
        let trace = Trace::start(&engine);
        work();
        check(&trace.stop(), what);
    };
    traced("pull", &|| drop(engine.docker(&["pull", &name]).ok()));
    let archive = engine.dir().join("image.tar").display().to_string();
    engine.docker(&["save", "-o", &archive, &name]).ok();
    engine
        .docker(&["run", "--name", "box", &name, "sh", "-c", "echo new >/new"])
        .ok();
    traced("commit", &|| {
        drop(engine.docker(&["commit", "box", "new:1"]).ok())
    });
    engine.docker(&["rm", "box"]).ok();
    engine.docker(&["rmi", "new:1", &name]).ok();
    traced("load", &|| {
        drop(engine.docker(&["load", "-i", &archive]).ok())
    });
    engine.finish();
}
