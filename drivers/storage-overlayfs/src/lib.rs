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
    Deletion, Draft, Layout, Number, Record, Snapshots, Snapshotter, doing, make_dir, not_mountable,
};
use gantry_plugin_sdk::storage::{Commit, SnapshotInfo, SnapshotState, StorageInfo, WhiteoutStyle};
use gantry_plugin_sdk::{
    DriverConfig, DriverError, DriverResult, ErrorCode, Log, Mount, MountPlan, tree,
};

/// The most lower directories that the kernel stacks.
const MAX_DEPTH: usize = 500;

/// The driver.
pub type Overlayfs = Snapshotter<Layers>;

/// Snapshots with their own changes.
pub struct Layers {
    snapshots: Snapshots,
    /// Options of every writable overlay.
    options: Vec<String>,
    backing: &'static str,
    log: Log,
}

impl Layout for Layers {
    const NO_QUOTA: &'static str =
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";

    fn open(config: &DriverConfig, log: Log) -> DriverResult<Self> {
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

    fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    fn info(&self) -> StorageInfo {
        StorageInfo {
            whiteouts: WhiteoutStyle::Overlay,
            late_parent: true,
            backing: self.backing.to_owned(),
        }
    }

    fn status(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("Backing Filesystem", tree::shown_file_system(self.backing)),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        ]
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

    fn mounts(&self, key: &str) -> DriverResult<MountPlan> {
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

    fn commit(&self, request: &Commit) -> DriverResult<()> {
        let committed = self.snapshots.commit(request, |_| Ok(()))?;
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
