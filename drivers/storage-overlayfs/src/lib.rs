//! Snapshots on the kernel's overlay file system.
//!
//! Each snapshot is a directory ([`Snapshots`]) with its own changes in `fs` and overlay's `work` beside it. What is not
//! told by a valid record does not exist: it is swept away by `cleanup`.
//!
//! Invariants:
//! - A committed snapshot's data and record are on disk before `commit` returns. Active ones are not synced: they are on
//!   the start path, and what a power cut takes of them is found missing, never half there.
//! - A parent is committed, exists, and stays for as long as it has children.
//! - A record's directory is renamed away before its tree is deleted, so that a crash leaves no half-deleted snapshot.
//! - Overlay is mounted by core, without `volatile`: what containers write survives.
//!
//! It mounts nothing and knows nothing of images.

mod kernel;
#[cfg(test)]
mod tests;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use gantry_plugin_sdk::snapshots::{
    Deletion, Draft, Number, Record, Snapshots, check_key, doing, make_dir, not_mountable,
};
use gantry_plugin_sdk::storage::{
    Commit, FindGarbage, Prepare, Replace, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo,
    Usage, WhiteoutStyle,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Mount,
    MountPlan, Reconcile, Storage, tree,
};

/// The most lower directories that the kernel stacks.
const MAX_DEPTH: usize = 500;

/// The driver.
pub struct Overlayfs {
    snapshots: Snapshots,
    /// Options of every writable overlay.
    options: Vec<String>,
    backing: &'static str,
    log: Log,
}

impl Overlayfs {
    /// Opens the snapshots below the configuration's root. It has no options.
    ///
    /// # Errors
    /// When the directories cannot be made or read, or their file system cannot carry an overlay.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        if let Some(option) = config.options.as_object().and_then(|o| o.keys().next()) {
            return Err(DriverError::invalid(format!(
                "overlayfs: Unknown option {option}"
            )));
        }
        let snapshots = Snapshots::open(&config.root, Deletion::AtOnce, log.clone())?;
        let root = snapshots.root();
        let backing = tree::file_system(root).map_err(|e| doing("looking at", root, &e))?;
        if !kernel::carries_overlay(backing) {
            let text = format!("'overlayfs' is not supported over {backing}");
            return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
        }
        Ok(Self {
            snapshots,
            options: kernel::mount_options(),
            backing,
            log,
        })
    }

    /// Makes an active snapshot or a view, unless it is there.
    fn make(&self, request: Prepare, state: SnapshotState) -> DriverResult<MountPlan> {
        check_key(&request.key)?;
        if request.size.is_some() {
            return Err(DriverError::new(
                ErrorCode::NotImplemented,
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            ));
        }
        let key = request.key.clone();
        self.snapshots
            .create(request, state, |draft| self.fill(draft))?;
        self.plan(&key)
    }

    fn fill(&self, draft: &Draft) -> DriverResult<()> {
        if draft.depth > MAX_DEPTH {
            return Err(DriverError::new(
                ErrorCode::FailedPrecondition,
                "max depth exceeded",
            ));
        }
        let record = &draft.record;
        let (dir, fs) = (
            self.snapshots.dir(draft.number),
            self.snapshots.fs(draft.number),
        );
        let make = || {
            make_dir(&dir, 0o700, false)?;
            make_dir(&fs, 0o755, false)?;
            if record.state == SnapshotState::Active {
                make_dir(&dir.join("work"), 0o700, false)?;
            }
            // The topmost directory's owner and mode are those of the merged tree.
            if let Some(parent) = record
                .parent
                .as_ref()
                .and_then(|p| self.snapshots.index.number(p))
            {
                let above = fs::metadata(self.snapshots.fs(parent))?;
                if (above.uid(), above.gid()) != (0, 0) {
                    chown(&fs, Some(above.uid()), Some(above.gid()))?;
                }
                if above.mode() & 0o7777 != 0o755 {
                    fs::set_permissions(&fs, Permissions::from_mode(above.mode() & 0o7777))?;
                }
            }
            record.write(&dir, false)
        };
        make().map_err(|e| doing("making", &dir, &e))
    }

    /// The mounts of an active snapshot or view.
    fn plan(&self, key: &str) -> DriverResult<MountPlan> {
        let (number, record, parents) = self.snapshots.index.chain(key)?;
        let lower: Vec<_> = parents.iter().map(|n| self.snapshots.fs(*n)).collect();
        if let Some(error) = not_mountable(&record) {
            return Err(error);
        }
        let mount = match record.state {
            SnapshotState::Active if lower.is_empty() => Mount::Bind {
                source: self.snapshots.fs(number),
                read_only: false,
            },
            SnapshotState::Active => Mount::Overlay {
                lower,
                upper: Some(self.snapshots.fs(number)),
                work: Some(self.snapshots.dir(number).join("work")),
                options: self.options.clone(),
            },
            // The kernel wants two directories at least.
            SnapshotState::View | SnapshotState::Committed => match <[PathBuf; 1]>::try_from(lower)
            {
                Ok([source]) => Mount::Bind {
                    source,
                    read_only: true,
                },
                Err(lower) if lower.is_empty() => Mount::Bind {
                    source: self.snapshots.fs(number),
                    read_only: true,
                },
                Err(lower) => Mount::Overlay {
                    lower,
                    upper: None,
                    work: None,
                    options: Vec::new(),
                },
            },
        };
        Ok(MountPlan::single(mount))
    }
}

impl Driver for Overlayfs {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let status = [
            ("Backing Filesystem", tree::shown_file_system(self.backing)),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
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

impl Storage for Overlayfs {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<StorageInfo> {
        Ok(StorageInfo {
            whiteouts: WhiteoutStyle::Overlay,
            late_parent: true,
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
        let committed = self.snapshots.commit(&request, |_| Ok(()))?;
        let Some(number) = committed else {
            return Ok(());
        };
        // What is never mounted as an upper directory again needs none.
        let dir = self.snapshots.dir(number);
        if let Err(error) = fs::remove_dir_all(dir.join("work")) {
            self.log
                .debug(format!("deleting {}/work: {error}", dir.display()));
        }
        Ok(())
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
        let fs = self.snapshots.fs(number);
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

impl Overlayfs {
    fn describe(&self, number: Number, record: Record) -> SnapshotInfo {
        SnapshotInfo {
            key: record.key,
            parent: record.parent,
            state: record.state,
            upper: Some(self.snapshots.fs(number)),
            made: None,
        }
    }
}

gantry_plugin_sdk::plugin! { kind: storage, driver: Overlayfs, name: "overlayfs", capabilities: ["garbage", "replace"] }
