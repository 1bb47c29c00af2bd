//! Snapshots as plain copies of directory trees: for machines without overlay, and for file systems that share the data
//! of copies (xfs, btrfs, bcachefs).
//!
//! Each snapshot is a directory ([`Snapshots`]) with its whole tree in `fs`, which begins as a copy of its parent's. A view
//! has no tree of its own: it shows its parent's, read-only.
//!
//! Invariants:
//! - A record is written when the copy is complete: what a crash cuts off was never there.
//! - A committed snapshot's data and record are on disk before `commit` returns. Active ones are flushed a little later;
//!   one that a power cut may have torn before is found missing, never half there.
//! - A parent is committed, exists, and stays for as long as it has children; only copies of it are written to.
//! - A tree is renamed away before it is deleted, in the background.
//!
//! Deletions of layers are carried out in the copy, so a layer must have its parent before it is unpacked: there are no late
//! parents. It mounts nothing and knows nothing of images.

#[cfg(test)]
mod tests;
mod torn;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use gantry_plugin_sdk::snapshots::{
    Deletion, Draft, Number, Record, Snapshots, check_key, doing, make_dir, not_mountable,
};
use gantry_plugin_sdk::storage::{
    Commit, FindGarbage, Prepare, Replace, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo,
    Usage, WhiteoutStyle,
};
use gantry_plugin_sdk::sys::copy;
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Mount,
    MountPlan, Reconcile, Storage, tree,
};

use torn::Flusher;

/// The driver.
pub struct Native {
    snapshots: Snapshots,
    flusher: Flusher,
    backing: &'static str,
    /// Whether copies share their data with the original.
    shares: bool,
}

impl Native {
    /// Opens the snapshots below the configuration's root. It has no options.
    ///
    /// # Errors
    /// When the directories cannot be made or read.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        if let Some(option) = config.options.as_object().and_then(|o| o.keys().next()) {
            return Err(DriverError::invalid(format!(
                "native: Unknown option {option}"
            )));
        }
        let snapshots = Snapshots::open(&config.root, Deletion::Later, log.clone())?;
        let root = snapshots.root();
        let flusher = Flusher::new(root.to_owned(), log)
            .map_err(|e| doing("asking for the boot of", root, &e))?;
        let look = || {
            let shares = File::open(root).and_then(|dir| copy::can_share(dir.as_fd()));
            // Where files without a name cannot be made, each copy finds out for itself.
            Ok((tree::file_system(root)?, shares.unwrap_or(false)))
        };
        let (backing, shares) = look().map_err(|e| doing("looking at", root, &e))?;
        let driver = Self {
            snapshots,
            flusher,
            backing,
            shares,
        };
        driver.forget_torn()?;
        Ok(driver)
    }

    /// Takes the copies away that a power cut may have torn.
    fn forget_torn(&self) -> DriverResult<()> {
        let root = self.snapshots.root();
        let torn = self.flusher.torn();
        for dir in torn.map_err(|e| doing("reading", root, &e))? {
            let all = self.snapshots.index.all();
            let mut all = all.into_iter();
            if let Some((number, record)) = all.find(|(n, _)| self.snapshots.dir(*n) == dir) {
                self.snapshots.index.forget(&record.key);
                self.snapshots.bury(number);
            }
        }
        Ok(())
    }

    /// Makes an active snapshot or a view, unless it is there.
    fn make(&self, request: Prepare, state: SnapshotState) -> DriverResult<MountPlan> {
        check_key(&request.key)?;
        if request.size.is_some() {
            return Err(DriverError::new(
                ErrorCode::NotImplemented,
                "Filesystem does not support, or has not enabled quotas",
            ));
        }
        let key = request.key.clone();
        self.snapshots
            .create(request, state, |draft| self.fill(draft))?;
        self.plan(&key)
    }

    fn fill(&self, draft: &Draft) -> DriverResult<()> {
        let (number, record) = (draft.number, &draft.record);
        let (dir, fs) = (self.snapshots.dir(number), self.snapshots.fs(number));
        let parent = record.parent.as_ref();
        let parent = parent.and_then(|key| self.snapshots.index.number(key));
        let original = parent.filter(|_| record.state == SnapshotState::Active);
        let make = || {
            make_dir(&dir, 0o700, false)?;
            make_dir(&fs, 0o755, false)?;
            if let Some(original) = original {
                let original = File::open(self.snapshots.fs(original))?;
                copy::tree(original.as_fd(), File::open(&fs)?.as_fd())?;
                self.flusher.mark(&dir)?;
            }
            record.write(&dir, false)
        };
        make().map_err(|e| doing("copying to", &dir, &e))?;
        if original.is_some() {
            self.flusher.flush_later(dir);
        }
        Ok(())
    }

    /// The mounts of an active snapshot or view.
    fn plan(&self, key: &str) -> DriverResult<MountPlan> {
        let (number, record, parents) = self.snapshots.index.chain(key)?;
        if let Some(error) = not_mountable(&record) {
            return Err(error);
        }
        let read_only = record.state == SnapshotState::View;
        let shown = parents.first().filter(|_| read_only).unwrap_or(&number);
        Ok(MountPlan::single(Mount::Bind {
            source: self.snapshots.fs(*shown),
            read_only,
        }))
    }

    fn describe(&self, number: Number, record: Record) -> SnapshotInfo {
        // By the clock of the file system, which is that of change times.
        let made = fs::metadata(self.snapshots.dir(number).join("meta"));
        let made = made.ok().filter(|_| record.state == SnapshotState::Active);
        SnapshotInfo {
            key: record.key,
            parent: record.parent,
            state: record.state,
            upper: None,
            made: made.map(|meta| (meta.ctime(), meta.ctime_nsec())),
        }
    }
}

impl Driver for Native {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let status = [
            ("Backing Filesystem", tree::shown_file_system(self.backing)),
            (
                "Copies Share Data",
                if self.shares { "true" } else { "false" },
            ),
        ];
        Ok(Health {
            healthy: true,
            message: String::new(),
            status: status.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        })
    }

    fn reconcile(&self, _: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.snapshots.keep_only(&request.live);
        self.snapshots.cleanup()
    }
}

impl Storage for Native {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<StorageInfo> {
        Ok(StorageInfo {
            whiteouts: WhiteoutStyle::Apply,
            late_parent: false,
            backing: self.backing.to_owned(),
        })
    }

    fn prepare(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.make(request, SnapshotState::Active)
    }

    fn view(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.make(request, SnapshotState::View)
    }

    fn mounts(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<MountPlan> {
        self.plan(&request.key)
    }

    fn commit(&self, _: &Call<'_>, request: Commit) -> DriverResult<()> {
        check_key(&request.name)?;
        if !self.snapshots.index.is_committed(&request.name) {
            let (_, present, _) = self.snapshots.index.chain(&request.key)?;
            if request.parent.is_some() && request.parent != present.parent {
                let text = "native: a layer cannot get another parent after it was unpacked";
                return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
            }
        }
        self.snapshots.commit(&request, torn::unmark).map(drop)
    }

    fn remove(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<()> {
        self.snapshots.remove(&request.key)
    }

    fn stat(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<SnapshotInfo> {
        let (number, record, _) = self.snapshots.index.chain(&request.key)?;
        Ok(self.describe(number, record))
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<SnapshotInfo>> {
        let all = self.snapshots.index.all().into_iter();
        Ok(all
            .map(|(number, record)| self.describe(number, record))
            .collect())
    }

    fn usage(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<Usage> {
        let (number, _, _) = self.snapshots.index.chain(&request.key)?;
        let fs: PathBuf = self.snapshots.fs(number);
        tree::measure(&fs).map_err(|e| doing("measuring", &fs, &e))
    }

    fn cleanup(&self, _: &Call<'_>, (): ()) -> DriverResult<()> {
        self.snapshots.cleanup()
    }

    fn garbage(&self, _: &Call<'_>, _: FindGarbage) -> DriverResult<Vec<PathBuf>> {
        self.snapshots.garbage()
    }

    fn replace(&self, _: &Call<'_>, request: Replace) -> DriverResult<()> {
        self.snapshots.replace(&request)
    }
}

gantry_plugin_sdk::plugin! { kind: storage, driver: Native, name: "native", capabilities: ["garbage", "replace"] }
