//! Kills at events, checks, and an image worth losing.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use gantry_e2e::{Engine, Registry, busybox_rootfs, eventually, noise};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use serde_json::Value;

pub(crate) const MB: u64 = 1 << 20;
/// Bytes of each of the two layers on busybox, which do not compress.
pub(crate) const LAYER: u64 = 3 * MB;

/// Pushes an image of three layers: busybox, `/one` and `/two`.
pub(crate) fn push_image(registry: &Registry, name: &str) {
    let dir = registry.dir().join("make");
    let layer = |name: &str, seed: u64| {
        let root = dir.join(name);
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join(name), noise(seed, LAYER)).unwrap();
        root
    };
    let base = dir.join("base");
    busybox_rootfs(&base);
    registry.push_layers(&[&base, &layer("one", 7), &layer("two", 11)], name);
}

/// Whether the image runs and has what it came with.
#[track_caller]
pub(crate) fn runs(engine: &Engine, name: &str) {
    let out = engine.docker(&["run", "--rm", name, "sh", "-c", "cat /one /two | sha256sum"]);
    let mut bytes = noise(7, LAYER);
    bytes.extend(noise(11, LAYER));
    let wanted = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(bytes))
    };
    assert_eq!(out.ok(), format!("{wanted}  -"));
}

pub(crate) fn has(engine: &Engine, name: &str) -> bool {
    engine.docker(&["image", "inspect", name]).code == 0
}

/// The report of `system fsck` with more flags.
#[track_caller]
pub(crate) fn fsck(engine: &Engine, flags: &[&str]) -> Value {
    let done = engine.gantry(&[&["system", "fsck", "--format", "json"], flags].concat());
    let report: Value = serde_json::from_str(&done.out)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", done.out, done.err));
    assert_eq!(done.code == 0, report["Clean"] == true, "{report}");
    report
}

/// The kind of each finding.
pub(crate) fn kinds(report: &Value) -> Vec<String> {
    let findings = report["Findings"].as_array().unwrap();
    findings
        .iter()
        .map(|f| f["Kind"].as_str().unwrap().to_owned())
        .collect()
}

/// Checks that nothing is wrong, and that nothing lies about that belongs to nobody.
#[track_caller]
pub(crate) fn in_order(engine: &Engine, after: &str) {
    let report = fsck(engine, &[]);
    assert_eq!(report["Clean"], true, "after {after}: {report:#}");
    assert_eq!(usage(&report, "other"), (0, 0), "after {after}: {report:#}");
}

/// Files and bytes of a category.
pub(crate) fn usage(report: &Value, category: &str) -> (u64, u64) {
    let rows = report["Usage"].as_array().unwrap();
    let row = rows.iter().find(|row| row["Category"] == category).unwrap();
    (
        row["Files"].as_u64().unwrap(),
        row["Bytes"].as_u64().unwrap(),
    )
}

/// A client's command, running.
pub(crate) fn begin(engine: &Engine, args: &[&str]) -> Child {
    spawn(engine.docker_command().args(args))
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Tells of every file that the engine makes, renames or removes where blobs, snapshots and records are.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new(data: &Path) -> Self {
        let watch = Self(init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap());
        let changes = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        let mut directories = graves(data);
        directories.extend(snapshots(data));
        for directory in ["content/ingest", "content/blobs/sha256", "content/trash"] {
            directories.push(data.join(directory));
        }
        for directory in directories {
            add_watch(&watch.0, directory, changes).unwrap();
        }
        // Every write of the records.
        add_watch(&watch.0, data.join("state.redb"), WatchFlags::MODIFY).unwrap();
        watch
    }

    /// Counts events until there are `wanted` or the client has ended.
    fn await_events(&self, wanted: usize, client: &mut Child) {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut seen = 0;
        while seen < wanted && client.try_wait().unwrap().is_none() {
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            poll(&mut ready, Some(&tick)).unwrap();
            let mut reader = Reader::new(&self.0, &mut buffer);
            while seen < wanted && reader.next().is_ok() {
                seen += 1;
            }
        }
    }
}

/// Begins a command, kills the daemon at the `nth` event on the disk or when the command has ended, whichever comes first, and
/// starts it again. Returns how the command ended.
#[track_caller]
pub(crate) fn kill_at(engine: &mut Engine, nth: usize, args: &[&str]) -> ExitStatus {
    let watch = Watch::new(engine.data());
    let mut client = begin(engine, args);
    watch.await_events(nth, &mut client);
    engine.kill9();
    let status = client.wait().unwrap();
    engine.boot();
    status
}

/// A directory of every storage driver.
fn of_drivers(data: &Path, name: &str) -> Vec<PathBuf> {
    let drivers = fs::read_dir(data.join("storage")).unwrap();
    drivers
        .map(|driver| driver.unwrap().path().join(name))
        .filter(|path| path.exists())
        .collect()
}

/// Where storage drivers keep snapshots.
pub(crate) fn snapshots(data: &Path) -> Vec<PathBuf> {
    of_drivers(data, "s")
}

/// Where storage drivers put what is to be deleted.
fn graves(data: &Path) -> Vec<PathBuf> {
    of_drivers(data, "d")
}

/// Waits until what was taken away is deleted, which nobody has to wait for.
#[track_caller]
pub(crate) fn trash_is_empty(engine: &Engine) {
    eventually("the trash is empty", 60, || {
        let mut directories = graves(engine.data());
        directories.push(engine.data().join("content/trash"));
        let empty = |path: &PathBuf| fs::read_dir(path).is_ok_and(|mut all| all.next().is_none());
        directories.iter().all(empty).then_some(())
    });
}
