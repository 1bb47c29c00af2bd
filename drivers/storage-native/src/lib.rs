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

use gantry_plugin_sdk::snapshots::{
    Deletion, Draft, Layout, Number, Record, Snapshots, Snapshotter, doing, make_dir, not_mountable,
};
use gantry_plugin_sdk::storage::{Commit, SnapshotInfo, SnapshotState, StorageInfo, WhiteoutStyle};
use gantry_plugin_sdk::sys::copy;
use gantry_plugin_sdk::{
    DriverConfig, DriverError, DriverResult, ErrorCode, Log, Mount, MountPlan, tree,
};

use torn::Flusher;

/// The driver.
pub type Native = Snapshotter<Copies>;

/// Snapshots with their whole trees.
pub struct Copies {
    snapshots: Snapshots,
    flusher: Flusher,
    backing: &'static str,
    /// Whether copies share their data with the original.
    shares: bool,
}

impl Copies {
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
}

impl Layout for Copies {
    const NO_QUOTA: &'static str = "Filesystem does not support, or has not enabled quotas";

    fn open(config: &DriverConfig, log: Log) -> DriverResult<Self> {
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

    fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    fn info(&self) -> StorageInfo {
        StorageInfo {
            whiteouts: WhiteoutStyle::Apply,
            late_parent: false,
            backing: self.backing.to_owned(),
        }
    }

    fn status(&self) -> Vec<(&'static str, &'static str)> {
        let shares = if self.shares { "true" } else { "false" };
        vec![
            ("Backing Filesystem", tree::shown_file_system(self.backing)),
            ("Copies Share Data", shares),
        ]
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

    fn mounts(&self, key: &str) -> DriverResult<MountPlan> {
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

    fn commit(&self, request: &Commit) -> DriverResult<()> {
        if !self.snapshots.index.is_committed(&request.name) {
            let (_, present, _) = self.snapshots.index.chain(&request.key)?;
            if request.parent.is_some() && request.parent != present.parent {
                let text = "native: a layer cannot get another parent after it was unpacked";
                return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
            }
        }
        self.snapshots.commit(request, torn::unmark).map(drop)
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

gantry_plugin_sdk::plugin! { kind: storage, driver: Native, name: "native", capabilities: ["garbage", "replace"] }
