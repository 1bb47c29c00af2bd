use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_plugin_sdk::storage::{Prepare, SnapshotKey};
use gantry_plugin_sdk::{Call, Driver, Reconcile, Storage};

use super::*;

struct Home(PathBuf);

impl Home {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("gantry-nat-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn open(&self) -> Native {
        let config = DriverConfig {
            name: "native".into(),
            root: self.0.clone(),
            run: self.0.clone(),
            tag: "00000000".into(),
            options: gantry_plugin_sdk::serde_json::Value::Null,
        };
        Native::new(config, Log::none()).unwrap()
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

fn prepare(driver: &Native, key: &str, parent: Option<&str>) -> DriverResult<PathBuf> {
    let request = Prepare {
        key: key.into(),
        parent: parent.map(Into::into),
        size: None,
    };
    Ok(directory(&driver.prepare(&CALL, request)?))
}

fn directory(plan: &MountPlan) -> PathBuf {
    plan.directory().unwrap().to_owned()
}

fn commit(driver: &Native, name: &str, key: &str, parent: Option<&str>) -> DriverResult<()> {
    let request = Commit {
        name: name.into(),
        key: key.into(),
        parent: parent.map(Into::into),
    };
    driver.commit(&CALL, request)
}

/// A committed layer with one file.
fn layer(driver: &Native, name: &str, parent: Option<&str>, file: &str) {
    let dir = prepare(driver, "unpack", parent).unwrap();
    fs::write(dir.join(file), name).unwrap();
    commit(driver, name, "unpack", None).unwrap();
}

/// Deletion goes on in the background.
fn wait_until_empty(dir: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(dir).unwrap().count() > 0 {
        assert!(Instant::now() < end, "{} is not emptied", dir.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_child_is_a_copy_and_a_view_is_none() {
    let home = Home::new("copy");
    let driver = home.open();
    layer(&driver, "one", None, "a");
    layer(&driver, "two", Some("one"), "b");
    let container = prepare(&driver, "container", Some("two")).unwrap();
    assert_eq!(fs::read(container.join("a")).unwrap(), b"one");
    fs::write(container.join("a"), "changed").unwrap();
    let request = Prepare {
        key: "view".into(),
        parent: Some("two".into()),
        size: None,
    };
    let plan = driver.view(&CALL, request).unwrap();
    let shown = home.0.join("s/2/fs");
    let wanted = Mount::Bind {
        source: shown.clone(),
        read_only: true,
    };
    assert_eq!(plan.mounts, [wanted]);
    assert_eq!(fs::read(shown.join("a")).unwrap(), b"one");
    let key = SnapshotKey { key: "view".into() };
    assert!(driver.usage(&CALL, key).unwrap().inodes == 1);
}

#[test]
fn what_a_crash_left_is_swept_away() {
    let home = Home::new("crash");
    let driver = home.open();
    layer(&driver, "one", None, "a");
    prepare(&driver, "gone", Some("one")).unwrap();
    // A copy that was cut off, and a deletion.
    fs::create_dir_all(home.0.join("s/7/fs/half")).unwrap();
    fs::create_dir_all(home.0.join("d/9/fs/deep")).unwrap();
    drop(driver);
    let driver = home.open();
    let request = Reconcile {
        live: vec!["one".into()],
        endpoints: Vec::new(),
    };
    driver.reconcile(&CALL, request).unwrap();
    assert_eq!(fs::read_dir(home.0.join("s")).unwrap().count(), 1);
    wait_until_empty(&home.0.join("d"));
    prepare(&driver, "next", None).unwrap();
    assert!(home.0.join("s/10").exists(), "numbers are not used twice");
}

#[test]
fn a_failed_copy_leaves_nothing() {
    let home = Home::new("failed");
    let driver = home.open();
    layer(&driver, "one", None, "a");
    // Deeper than a copy goes.
    let mut deep = home.0.join("s/1/fs");
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let error = prepare(&driver, "container", Some("one")).unwrap_err();
    assert!(error.message.contains("too deep"), "{error:?}");
    assert_eq!(driver.list(&CALL, ()).unwrap().len(), 1);
    assert!(!home.0.join("s/2").exists());
    wait_until_empty(&home.0.join("d"));
}

#[test]
fn a_layer_keeps_the_parent_it_was_unpacked_on() {
    let home = Home::new("late");
    let driver = home.open();
    layer(&driver, "one", None, "a");
    prepare(&driver, "late", None).unwrap();
    let error = commit(&driver, "two", "late", Some("one")).unwrap_err();
    assert_eq!(error.code, ErrorCode::FailedPrecondition);
    prepare(&driver, "early", Some("one")).unwrap();
    commit(&driver, "two", "early", Some("one")).unwrap();
}

#[test]
fn a_copy_that_a_power_cut_may_have_torn_is_missing() {
    let home = Home::new("torn");
    let driver = home.open();
    layer(&driver, "one", None, "a");
    prepare(&driver, "torn", Some("one")).unwrap();
    prepare(&driver, "whole", Some("one")).unwrap();
    let mark = |number: u32| home.0.join(format!("s/{number}/unsynced"));
    assert!(mark(2).exists() && mark(3).exists() && !mark(1).exists());
    drop(driver);
    fs::write(mark(2), "another boot").unwrap();
    let driver = home.open();
    let keys = |driver: &Native| {
        let mut keys: Vec<_> = driver
            .list(&CALL, ())
            .unwrap()
            .into_iter()
            .map(|s| s.key)
            .collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&driver), ["one", "whole"]);
    let end = Instant::now() + Duration::from_secs(60);
    while mark(3).exists() {
        assert!(Instant::now() < end, "the copy is not flushed");
        std::thread::sleep(Duration::from_millis(20));
    }
    prepare(&driver, "torn", Some("one")).unwrap();
}

#[test]
fn quotas_are_refused_in_dockers_words() {
    let home = Home::new("quota");
    let driver = home.open();
    let request = Prepare {
        key: "container".into(),
        parent: None,
        size: Some(1 << 30),
    };
    let error = driver.prepare(&CALL, request).unwrap_err();
    let wanted = "Filesystem does not support, or has not enabled quotas";
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::NotImplemented, wanted)
    );
}
