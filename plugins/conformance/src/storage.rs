//! What is promised of a snapshotter.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_driver_api::storage::{
    Commit, Prepare, Replace, SnapshotInfo, SnapshotKey, SnapshotState, WhiteoutStyle,
};
use gantry_driver_api::{DriverResult, ErrorCode, MountPlan, Reconcile, Storage};

use crate::Subject;
use crate::report::{Problem, Report, expect, refused, skip};
use crate::subject::call;

/// A plan's tree, mounted nowhere but here.
struct Tree(OwnedFd);

impl Tree {
    fn of(plan: &MountPlan) -> Result<Self, Problem> {
        gantry_sys::mount::detached(plan)
            .map(Self)
            .map_err(|e| Problem::Failed(format!("mounting {plan:?}: {e}")))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Problem> {
        Ok(fs::write(self.path(name), text)?)
    }

    fn expect(&self, name: &str, text: Option<&str>) -> Result<(), Problem> {
        let found = fs::read_to_string(self.path(name)).ok();
        expect(found.as_deref() == text, || {
            format!("{name} holds {found:?} instead of {text:?}")
        })
    }
}

/// The driver with short words for its methods.
struct Driver(Arc<dyn Storage>);

impl Driver {
    fn of(subject: &Subject) -> Result<Self, Problem> {
        subject
            .storage()
            .map(Self)
            .map_err(|e| Problem::Failed(e.to_string()))
    }

    fn prepare(&self, key: &str, parent: Option<&str>) -> DriverResult<MountPlan> {
        self.0.prepare(&call(), request(key, parent))
    }

    fn view(&self, key: &str, parent: Option<&str>) -> DriverResult<MountPlan> {
        self.0.view(&call(), request(key, parent))
    }

    fn commit(&self, name: &str, key: &str, parent: Option<&str>) -> DriverResult<()> {
        let request = Commit {
            name: name.into(),
            key: key.into(),
            parent: parent.map(Into::into),
        };
        self.0.commit(&call(), request)
    }

    fn mounts(&self, key: &str) -> DriverResult<MountPlan> {
        self.0.mounts(&call(), SnapshotKey { key: key.into() })
    }

    fn stat(&self, key: &str) -> DriverResult<SnapshotInfo> {
        self.0.stat(&call(), SnapshotKey { key: key.into() })
    }

    fn remove(&self, key: &str) -> DriverResult<()> {
        self.0.remove(&call(), SnapshotKey { key: key.into() })
    }

    /// A committed snapshot with one file.
    fn layer(
        &self,
        name: &str,
        parent: Option<&str>,
        file: &str,
        text: &str,
    ) -> Result<(), Problem> {
        let key = format!("{name}-unpack");
        Tree::of(&self.prepare(&key, parent)?)?.write(file, text)?;
        Ok(self.commit(name, &key, None)?)
    }
}

fn request(key: &str, parent: Option<&str>) -> Prepare {
    Prepare {
        key: key.into(),
        parent: parent.map(Into::into),
        size: None,
    }
}

pub(crate) fn verify(subject: &Subject, report: &mut Report) {
    type Run = fn(&Driver) -> Result<(), Problem>;
    let checks: &[(&str, Run)] = &[
        ("info is constant", constant),
        ("a prepared snapshot is writable and empty", writable),
        (
            "prepare is idempotent, and refuses another parent",
            prepare_again,
        ),
        (
            "prepare refuses parents that are absent or not committed",
            bad_parents,
        ),
        (
            "commit makes the snapshot immutable and ends the active one",
            commit,
        ),
        (
            "commit is idempotent, and removes a second unpacking of the layer",
            commit_again,
        ),
        (
            "a child sees its parents and does not change them",
            children,
        ),
        ("a deletion in a child leaves the parent alone", deletion),
        ("a view is read-only", view),
        ("a layer can be unpacked before its parent", late_parent),
        ("a parent cannot be removed, what is absent can", removal),
        ("absent keys are NotFound", absent),
        ("a committed tree can be replaced", replace),
        ("list, stat and usage agree", list),
        (
            "different snapshots can be made and removed at once",
            concurrent,
        ),
    ];
    for &(promise, run) in checks {
        report.check(promise, || run(&Driver::of(subject)?));
    }
    report.check("committed and active snapshots survive a restart", || {
        restart(subject)
    });
    report.check(
        "reconcile and cleanup remove what core does not know, and no more",
        || reconcile(subject),
    );
}

fn constant(driver: &Driver) -> Result<(), Problem> {
    let (a, b) = (driver.0.info(&call(), ())?, driver.0.info(&call(), ())?);
    expect(a == b, || format!("{a:?}, then {b:?}"))
}

fn replace(driver: &Driver) -> Result<(), Problem> {
    driver.layer("replace-base", None, "f", "damaged")?;
    driver.layer("replace-child", Some("replace-base"), "g", "1")?;
    Tree::of(&driver.prepare("replace-fresh", None)?)?.write("f", "whole")?;
    let request = Replace {
        name: "replace-base".into(),
        key: "replace-fresh".into(),
    };
    match driver.0.replace(&call(), request) {
        Err(error) if error.code == ErrorCode::NotImplemented => driver.remove("replace-fresh")?,
        other => {
            other?;
            let tree = Tree::of(&driver.prepare("replace-look", Some("replace-base"))?)?;
            tree.expect("f", Some("whole"))?;
            driver.remove("replace-look")?;
            let left = driver.0.list(&call(), ())?;
            expect(left.iter().all(|s| s.key != "replace-fresh"), || {
                "the active snapshot is still there".into()
            })?;
        }
    }
    driver.remove("replace-child")?;
    Ok(driver.remove("replace-base")?)
}

fn writable(driver: &Driver) -> Result<(), Problem> {
    let tree = Tree::of(&driver.prepare("writable", None)?)?;
    expect(fs::read_dir(tree.path(""))?.count() == 0, || {
        "it is not empty".into()
    })?;
    tree.write("a", "1")?;
    let again = Tree::of(&driver.mounts("writable")?)?;
    again.expect("a", Some("1"))?;
    Ok(driver.remove("writable")?)
}

fn prepare_again(driver: &Driver) -> Result<(), Problem> {
    driver.layer("again-base", None, "base", "1")?;
    let plan = driver.prepare("again", None)?;
    Tree::of(&plan)?.write("a", "1")?;
    let second = driver.prepare("again", None)?;
    expect(plan == second, || format!("{plan:?}, then {second:?}"))?;
    Tree::of(&second)?.expect("a", Some("1"))?;
    refused(
        driver.prepare("again", Some("again-base")),
        ErrorCode::AlreadyExists,
    )?;
    refused(driver.view("again", None), ErrorCode::AlreadyExists)?;
    driver.remove("again")?;
    Ok(driver.remove("again-base")?)
}

fn bad_parents(driver: &Driver) -> Result<(), Problem> {
    driver.prepare("bad-parent", None)?;
    refused(
        driver.prepare("bad-child", Some("nobody")),
        ErrorCode::NotFound,
    )?;
    refused(
        driver.prepare("bad-child", Some("bad-parent")),
        ErrorCode::FailedPrecondition,
    )?;
    refused(driver.stat("bad-child"), ErrorCode::NotFound)?;
    Ok(driver.remove("bad-parent")?)
}

fn commit(driver: &Driver) -> Result<(), Problem> {
    driver.layer("committed", None, "a", "1")?;
    let info = driver.stat("committed")?;
    expect(info.state == SnapshotState::Committed, || {
        format!("{info:?}")
    })?;
    refused(driver.mounts("committed-unpack"), ErrorCode::NotFound)?;
    refused(
        driver.commit("other", "committed", None),
        ErrorCode::FailedPrecondition,
    )?;
    Ok(driver.remove("committed")?)
}

fn commit_again(driver: &Driver) -> Result<(), Problem> {
    driver.layer("twice", None, "a", "1")?;
    driver.commit("twice", "twice-unpack", None)?;
    Tree::of(&driver.prepare("twice-second", None)?)?.write("a", "2")?;
    driver.commit("twice", "twice-second", None)?;
    refused(driver.stat("twice-second"), ErrorCode::NotFound)?;
    Tree::of(&driver.view("twice-view", Some("twice"))?)?.expect("a", Some("1"))?;
    driver.remove("twice-view")?;
    Ok(driver.remove("twice")?)
}

fn children(driver: &Driver) -> Result<(), Problem> {
    driver.layer("lower", None, "below", "1")?;
    driver.layer("upper", Some("lower"), "above", "2")?;
    let (one, two) = (
        driver.prepare("one", Some("upper"))?,
        driver.prepare("two", Some("upper"))?,
    );
    let (one, two) = (Tree::of(&one)?, Tree::of(&two)?);
    one.expect("below", Some("1"))?;
    one.expect("above", Some("2"))?;
    one.write("below", "changed")?;
    two.expect("below", Some("1"))?;
    drop((one, two));
    Tree::of(&driver.mounts("one")?)?.expect("below", Some("changed"))?;
    for key in ["one", "two", "upper", "lower"] {
        driver.remove(key)?;
    }
    Ok(())
}

fn deletion(driver: &Driver) -> Result<(), Problem> {
    driver.layer("full", None, "file", "1")?;
    let tree = Tree::of(&driver.prepare("less-unpack", Some("full"))?)?;
    fs::remove_file(tree.path("file"))?;
    drop(tree);
    driver.commit("less", "less-unpack", None)?;
    Tree::of(&driver.view("less-view", Some("less"))?)?.expect("file", None)?;
    Tree::of(&driver.view("full-view", Some("full"))?)?.expect("file", Some("1"))?;
    for key in ["less-view", "full-view", "less", "full"] {
        driver.remove(key)?;
    }
    Ok(())
}

fn view(driver: &Driver) -> Result<(), Problem> {
    driver.layer("seen", None, "a", "1")?;
    driver.layer("seen-too", Some("seen"), "b", "2")?;
    for parent in ["seen", "seen-too"] {
        let tree = Tree::of(&driver.view("view", Some(parent))?)?;
        tree.expect("a", Some("1"))?;
        let written = fs::write(tree.path("c"), "3");
        expect(written.is_err(), || "it could be written to".into())?;
        refused(
            driver.commit("view-commit", "view", None),
            ErrorCode::FailedPrecondition,
        )?;
        driver.remove("view")?;
    }
    driver.remove("seen-too")?;
    Ok(driver.remove("seen")?)
}

fn late_parent(driver: &Driver) -> Result<(), Problem> {
    let info = driver.0.info(&call(), ())?;
    if !info.late_parent {
        return skip("it has no late parents");
    }
    if info.whiteouts != WhiteoutStyle::Overlay {
        return Err(Problem::Failed(
            "late parents need whiteouts that can be kept".into(),
        ));
    }
    // The upper layer is there first.
    Tree::of(&driver.prepare("late-unpack", None)?)?.write("b", "2")?;
    refused(
        driver.commit("late", "late-unpack", Some("early")),
        ErrorCode::NotFound,
    )?;
    driver.layer("early", None, "a", "1")?;
    driver.commit("late", "late-unpack", Some("early"))?;
    refused(driver.remove("early"), ErrorCode::Conflict)?;
    let tree = Tree::of(&driver.view("late-view", Some("late"))?)?;
    tree.expect("a", Some("1"))?;
    tree.expect("b", Some("2"))?;
    drop(tree);
    for key in ["late-view", "late", "early"] {
        driver.remove(key)?;
    }
    Ok(())
}

fn removal(driver: &Driver) -> Result<(), Problem> {
    driver.layer("kept", None, "a", "1")?;
    driver.prepare("keeper", Some("kept"))?;
    refused(driver.remove("kept"), ErrorCode::Conflict)?;
    driver.remove("keeper")?;
    driver.remove("kept")?;
    driver.remove("kept")?;
    Ok(driver.remove("nobody")?)
}

fn absent(driver: &Driver) -> Result<(), Problem> {
    let key = || SnapshotKey {
        key: "nobody".into(),
    };
    refused(driver.mounts("nobody"), ErrorCode::NotFound)?;
    refused(driver.stat("nobody"), ErrorCode::NotFound)?;
    refused(driver.0.usage(&call(), key()), ErrorCode::NotFound)?;
    refused(
        driver.commit("somebody", "nobody", None),
        ErrorCode::NotFound,
    )
}

fn list(driver: &Driver) -> Result<(), Problem> {
    driver.layer("listed", None, "a", &"x".repeat(100_000))?;
    driver.prepare("listed-child", Some("listed"))?;
    let all = driver.0.list(&call(), ())?;
    expect(all.len() == 2, || format!("{all:?}"))?;
    for info in all {
        let stat = driver.stat(&info.key)?;
        expect(stat == info, || {
            format!("list says {info:?}, stat {stat:?}")
        })?;
    }
    let usage = driver.0.usage(
        &call(),
        SnapshotKey {
            key: "listed".into(),
        },
    )?;
    expect(usage.bytes >= 100_000 && usage.inodes >= 2, || {
        format!("{usage:?}")
    })?;
    driver.remove("listed-child")?;
    Ok(driver.remove("listed")?)
}

fn concurrent(driver: &Driver) -> Result<(), Problem> {
    driver.layer("shared", None, "a", "1")?;
    let work = |thread: usize| -> Result<(), Problem> {
        for round in 0..8 {
            let key = format!("at-once-{thread}-{round}");
            Tree::of(&driver.prepare(&key, Some("shared"))?)?.expect("a", Some("1"))?;
            driver.remove(&key)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), Problem>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Problem::Failed("a check panicked".into())))
        };
        threads.into_iter().try_for_each(join)
    })?;
    Ok(driver.remove("shared")?)
}

fn restart(subject: &Subject) -> Result<(), Problem> {
    let driver = Driver::of(subject)?;
    driver.layer("lasting", None, "a", "1")?;
    Tree::of(&driver.prepare("lasting-child", Some("lasting"))?)?.write("b", "2")?;
    drop(driver);
    subject
        .restart()
        .map_err(|e| Problem::Failed(e.to_string()))?;
    let driver = Driver::of(subject)?;
    let tree = Tree::of(&driver.mounts("lasting-child")?)?;
    tree.expect("a", Some("1"))?;
    tree.expect("b", Some("2"))?;
    drop(tree);
    driver.remove("lasting-child")?;
    Ok(driver.remove("lasting")?)
}

fn reconcile(subject: &Subject) -> Result<(), Problem> {
    let driver = Driver::of(subject)?;
    driver.layer("known", None, "a", "1")?;
    driver.layer("unknown", Some("known"), "b", "2")?;
    driver.prepare("known-child", Some("known"))?;
    driver.prepare("unknown-child", Some("unknown"))?;
    let live = vec!["known".to_owned(), "known-child".to_owned()];
    let request = Reconcile {
        live: live.clone(),
        endpoints: Vec::new(),
    };
    driver.0.reconcile(&call(), request)?;
    driver.0.cleanup(&call(), ())?;
    let mut left: Vec<_> = driver
        .0
        .list(&call(), ())?
        .into_iter()
        .map(|s| s.key)
        .collect();
    left.sort();
    expect(left == live, || format!("left are {left:?}"))?;
    driver.remove("known-child")?;
    Ok(driver.remove("known")?)
}
