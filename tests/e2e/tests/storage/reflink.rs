//! The driver `native` on file systems that share data between files.

use std::fs::File;
use std::path::PathBuf;

use gantry_e2e::{Engine, Options, noise, run};
use serde_json::json;

/// Sparse: what is not written takes no room.
const SIZE: u64 = 512 << 20;
/// The file that all containers have.
const SHARED: u64 = 40 << 20;

/// A file system in a file, mounted; unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(mkfs: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("gantry-disk-")
            .tempdir()
            .expect("a temporary directory");
        let image = dir.path().join("image");
        let file = File::create(&image).expect("a new file");
        file.set_len(SIZE).expect("a sparse file");
        let image = image.display().to_string();
        run(mkfs, &["-q", &image]).ok();
        let disk = Self { dir };
        std::fs::create_dir(disk.root()).expect("a new directory");
        let root = disk.root().display().to_string();
        run("mount", &["-o", "loop", &image, &root]).ok();
        disk
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Bytes in use, when everything has got its place.
    fn used(&self) -> u64 {
        let root = self.root().display().to_string();
        run("sync", &["-f", &root]).ok();
        let used = run("df", &["-B1", "--output=used", &root]).ok();
        let used = used.lines().last().expect("a number below its title");
        used.trim().parse().expect("a number")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.root().display().to_string()]);
    }
}

fn containers_share_what_they_do_not_change(mkfs: &str) {
    let disk = Disk::new(mkfs);
    let engine = Engine::with(Options {
        config: Some(json!({"drivers": {"storage": "native"}})),
        data: Some(disk.root()),
        ..Options::default()
    });
    engine.import_busybox("busybox");
    let tree = engine.dir().join("big");
    std::fs::create_dir(&tree).expect("a new directory");
    std::fs::write(tree.join("big"), noise(7, SHARED)).expect("room in /tmp");
    engine.docker(&["create", "--name", "base", "busybox"]).ok();
    engine
        .docker(&["cp", &format!("{}/.", tree.display()), "base:/"])
        .ok();
    engine.docker(&["commit", "base", "big"]).ok();

    let before = disk.used();
    for n in 0..4 {
        let change = format!("echo {n} | dd of=/big conv=notrunc 2>&-; cksum /big; head -n 1 /big");
        let name = format!("c{n}");
        let run = ["run", "--name", &name, "big", "sh", "-c", &change];
        let seen = engine.docker(&run).ok();
        assert!(seen.ends_with(&n.to_string()), "{seen}");
    }
    let grown = disk.used().saturating_sub(before);
    assert!(grown < SHARED, "four containers take {grown} bytes");
    let diff = engine.docker(&["diff", "c3"]).ok();
    assert_eq!(diff, "C /big");
    engine.finish();
}

#[test]
fn btrfs_shares_data() {
    containers_share_what_they_do_not_change("mkfs.btrfs");
}

#[test]
fn xfs_shares_data() {
    containers_share_what_they_do_not_change("mkfs.xfs");
}
