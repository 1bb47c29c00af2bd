//! A full disk.

use gantry_store::{Error, Store};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A small file system, gone with this value.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("none", dir.path(), "tmpfs", MountFlags::empty(), c"size=4m").unwrap();
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn commits_fail_while_the_disk_is_full_and_only_then() {
    let small = Small::new();
    let ballast = small.0.path().join("ballast");
    let store = Store::open(&small.0.path().join("state")).unwrap();
    let table = store.table::<String>("things");
    table.put("before", &"kept".into()).unwrap().wait().unwrap();
    // Until nothing fits any more.
    let _ = std::fs::write(&ballast, vec![1; 8 << 20]);
    let large = "x".repeat(1 << 20);
    let error = table.put("large", &large).unwrap().wait().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(table.get("before").unwrap().as_deref(), Some("kept"));
    assert_eq!(table.get("large").unwrap(), None);
    std::fs::remove_file(&ballast).unwrap();
    table.put("large", &large).unwrap().wait().unwrap();
    assert_eq!(table.get("large").unwrap().as_deref(), Some(large.as_str()));
}
