//! Disks that are full.

use std::path::Path;

use gantry_e2e::{Engine, Options, Registry, busybox_tar, run};

use crate::tools::{LAYER, fsck, has, in_order, push_image, runs, trash_is_empty, usage};

/// A file system of so many bytes as the data-root; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let small = Self(dir);
        small.size("size", bytes);
        small
    }

    fn size(&self, option: &str, bytes: u64) {
        let options = format!("{option}={bytes}");
        let path = self.0.path().display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &path]).ok();
    }

    fn grow(&self, bytes: u64) {
        self.size("remount,size", bytes);
    }

    fn used(&self) -> u64 {
        let fs = rustix::fs::statvfs(self.0.path()).unwrap();
        (fs.f_blocks - fs.f_bfree) * fs.f_frsize
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a failing test may have left a daemon behind for a moment.
        run("umount", &["-l", &self.0.path().display().to_string()]);
    }
}

fn fill(path: &Path, leave: u64) {
    let fs = rustix::fs::statvfs(path.parent().unwrap()).unwrap();
    let free = fs.f_bfree * fs.f_frsize;
    let file = std::fs::File::create(path).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - leave).unwrap();
}

const FULL: &str = "no space left on device";

#[test]
fn a_full_disk_is_told_and_nothing_of_it_stays() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let name = format!("{}/big:1", registry.domain());
    let whole = Engine::with(Options::default());
    whole.docker(&["pull", "-q", &name]).ok();
    let archive = registry.dir().join("big.tar").display().to_string();
    whole.docker(&["save", "-o", &archive, &name]).ok();
    whole.finish();

    // Room for the blobs, and not for what they unpack to.
    let disk = Small::new(3 * LAYER + (5 << 20));
    let engine = Engine::with(Options {
        data: Some(disk.0.path().to_owned()),
        ..Options::default()
    });
    let empty = disk.used();
    for args in [
        ["pull", name.as_str()].as_slice(),
        &["load", "-i", &archive],
    ] {
        let said = engine.docker(args);
        assert!(said.code != 0, "{args:?}");
        let text = format!("{}{}", said.out, said.err).to_lowercase();
        assert!(text.contains(FULL), "{args:?}: {text}");
        assert!(!has(&engine, &name));
        in_order(&engine, &format!("{args:?} on a full disk"));
        trash_is_empty(&engine);
        let report = fsck(&engine, &["--quick"]);
        for category in ["blobs", "downloads", "layers"] {
            assert_eq!(usage(&report, category), (0, 0), "{args:?}: {category}");
        }
        assert!(
            disk.used() < empty + (1 << 20),
            "{} of {empty}",
            disk.used()
        );
    }

    // With a container that fills what is left.
    disk.grow(4 * LAYER + (16 << 20));
    engine.docker(&["pull", "-q", &name]).ok();
    let script = "head -c 4000000 /dev/urandom >/mine";
    engine
        .docker(&["run", "--name", "box", &name, "sh", "-c", script])
        .ok();
    let filler = disk.0.path().join("filler");
    fill(&filler, 1 << 20);
    let said = engine.docker(&["commit", "box", "mine:1"]);
    said.fails(1, FULL);
    assert!(!has(&engine, "mine:1"));
    let imported = engine.docker(&["import", busybox_tar(), "box:1"]);
    imported.fails(1, FULL);
    let run_out = engine.docker(&[
        "run",
        "--rm",
        &name,
        "sh",
        "-c",
        "dd if=/dev/zero of=/x bs=1M count=9",
    ]);
    assert!(run_out.err.to_lowercase().contains(FULL), "{run_out:?}");
    std::fs::remove_file(filler).unwrap();
    in_order(&engine, "work on a full disk");
    engine.docker(&["commit", "box", "mine:1"]).ok();
    runs(&engine, "mine:1");
    engine.finish();
}
