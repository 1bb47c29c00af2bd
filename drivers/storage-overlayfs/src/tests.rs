use std::time::{Duration, Instant};

use gantry_plugin_sdk::storage::{Prepare, SnapshotKey};
use gantry_plugin_sdk::{Call, Driver, Reconcile, Storage};

use super::*;

struct Home(PathBuf);

impl Home {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("gantry-ovl-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn open(&self) -> Overlayfs {
        let config = DriverConfig {
            name: "overlayfs".into(),
            root: self.0.clone(),
            run: self.0.clone(),
            tag: "00000000".into(),
            options: gantry_plugin_sdk::serde_json::Value::Null,
        };
        Overlayfs::new(config, Log::none()).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CALL: Call<'static> = Call {
    operation: "test",
    timeout: None,
    fds: &[],
};

fn prepare(driver: &Overlayfs, key: &str, parent: Option<&str>) -> DriverResult<MountPlan> {
    let request = Prepare {
        key: key.into(),
        parent: parent.map(Into::into),
        size: None,
    };
    driver.prepare(&CALL, request)
}

fn commit(driver: &Overlayfs, name: &str, key: &str, parent: Option<&str>) -> DriverResult<()> {
    let request = Commit {
        name: name.into(),
        key: key.into(),
        parent: parent.map(Into::into),
    };
    driver.commit(&CALL, request)
}

fn remove(driver: &Overlayfs, key: &str) -> DriverResult<()> {
    driver.remove(&CALL, SnapshotKey { key: key.into() })
}

/// Layers `one` and `two`, committed in the wrong order with a late parent.
fn two_layers(driver: &Overlayfs) {
    for layer in ["a", "b"] {
        prepare(driver, layer, None).unwrap();
    }
    commit(driver, "one", "a", None).unwrap();
    commit(driver, "two", "b", Some("one")).unwrap();
}

#[test]
fn quotas_are_refused_in_dockers_words() {
    let home = Home::new("quota");
    let driver = home.open();
    let request = Prepare {
        key: "container".into(),
        parent: None,
        size: Some(10 << 30),
    };
    let error = driver.prepare(&CALL, request).unwrap_err();
    assert_eq!(
        error.message,
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
    );
    assert!(driver.list(&CALL, ()).unwrap().is_empty());
}

#[test]
fn a_container_sees_its_layers_topmost_first() {
    let home = Home::new("plan");
    let driver = home.open();
    two_layers(&driver);
    let plan = prepare(&driver, "container", Some("two")).unwrap();
    let s = home.0.join("s");
    let [
        Mount::Overlay {
            lower, upper, work, ..
        },
    ] = plan.mounts.as_slice()
    else {
        panic!("{plan:?}");
    };
    assert_eq!(lower, &[s.join("2/fs"), s.join("1/fs")]);
    assert_eq!(upper.as_deref(), Some(s.join("3/fs").as_path()));
    assert_eq!(work.as_deref(), Some(s.join("3/work").as_path()));
    assert_eq!(prepare(&driver, "container", Some("two")).unwrap(), plan);
}

#[test]
fn snapshots_survive_a_restart_and_numbers_are_not_used_twice() {
    let home = Home::new("restart");
    let driver = home.open();
    two_layers(&driver);
    let plan = prepare(&driver, "container", Some("two")).unwrap();
    drop(driver);
    let driver = home.open();
    let key = SnapshotKey {
        key: "container".into(),
    };
    assert_eq!(driver.mounts(&CALL, key).unwrap(), plan);
    assert_eq!(
        remove(&driver, "one").unwrap_err().code,
        ErrorCode::Conflict
    );
    remove(&driver, "container").unwrap();
    remove(&driver, "container").unwrap();
    prepare(&driver, "other", None).unwrap();
    assert!(home.0.join("s/4/fs").exists());
}

#[test]
fn what_a_crash_left_is_swept_away() {
    let home = Home::new("crash");
    let driver = home.open();
    two_layers(&driver);
    prepare(&driver, "gone", Some("two")).unwrap();
    // A prepare that was cut off before its record, one whose record was torn, a removal that was cut off.
    fs::create_dir_all(home.0.join("s/7/fs")).unwrap();
    fs::create_dir_all(home.0.join("s/8/fs")).unwrap();
    fs::write(home.0.join("s/8/meta"), b"{\"key\":").unwrap();
    fs::create_dir_all(home.0.join("d/9/fs/deep")).unwrap();
    drop(driver);
    let driver = home.open();
    let live = vec!["one".into(), "two".into()];
    let request = Reconcile {
        live,
        endpoints: Vec::new(),
    };
    driver.reconcile(&CALL, request).unwrap();
    let mut left: Vec<_> = fs::read_dir(home.0.join("s"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["1", "2"]);
    let end = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(home.0.join("d")).unwrap().count() > 0 {
        assert!(Instant::now() < end, "deletion goes on in the background");
        std::thread::sleep(Duration::from_millis(5));
    }
    prepare(&driver, "next", None).unwrap();
    assert!(home.0.join("s/10").exists());
}

#[test]
fn a_second_commit_of_one_layer_gives_way() {
    let home = Home::new("twice");
    let driver = home.open();
    two_layers(&driver);
    prepare(&driver, "again", None).unwrap();
    commit(&driver, "two", "again", Some("one")).unwrap();
    assert_eq!(driver.list(&CALL, ()).unwrap().len(), 2);
    assert!(!home.0.join("s/3").exists());
}

#[test]
fn refusals_change_nothing() {
    let home = Home::new("refuse");
    let driver = home.open();
    two_layers(&driver);
    prepare(&driver, "x", Some("one")).unwrap();
    let code = |result: DriverResult<()>| result.unwrap_err().code;
    assert_eq!(
        code(prepare(&driver, "x", None).map(drop)),
        ErrorCode::AlreadyExists
    );
    assert_eq!(
        code(prepare(&driver, "y", Some("none")).map(drop)),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(prepare(&driver, "y", Some("x")).map(drop)),
        ErrorCode::FailedPrecondition
    );
    assert_eq!(
        code(prepare(&driver, "../y", None).map(drop)),
        ErrorCode::InvalidArgument
    );
    assert_eq!(
        code(commit(&driver, "three", "x", Some("two"))),
        ErrorCode::FailedPrecondition
    );
    assert_eq!(
        code(commit(&driver, "three", "none", None)),
        ErrorCode::NotFound
    );
    assert_eq!(driver.list(&CALL, ()).unwrap().len(), 3);
    // A failed commit with a late parent does not hold that parent.
    prepare(&driver, "late", None).unwrap();
    assert_eq!(
        code(commit(&driver, "four", "late", Some("x"))),
        ErrorCode::FailedPrecondition
    );
    remove(&driver, "x").unwrap();
}

#[test]
fn the_root_directory_is_like_its_parents() {
    let home = Home::new("mode");
    let driver = home.open();
    prepare(&driver, "a", None).unwrap();
    let fs_dir = home.0.join("s/1/fs");
    fs::set_permissions(&fs_dir, Permissions::from_mode(0o1711)).unwrap();
    chown(&fs_dir, Some(12), Some(13)).unwrap();
    fs::set_permissions(&fs_dir, Permissions::from_mode(0o1711)).unwrap();
    commit(&driver, "one", "a", None).unwrap();
    prepare(&driver, "b", Some("one")).unwrap();
    let metadata = fs::metadata(home.0.join("s/2/fs")).unwrap();
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        (0o1711, 12, 13)
    );
}
