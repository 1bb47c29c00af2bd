//! Snapshots on the kernel's overlay file system.
//!
//! Each snapshot is a directory `s/<number>` with its own changes in `fs`, overlay's `work` beside it, and a small
//! record `meta` that says its key, parent and state. What is not told by a valid record does not exist: it is swept
//! away by `cleanup`. Numbers are short because the kernel takes all lower directories of a mount as one string.
//!
//! Invariants:
//! - A committed snapshot's data and record are on disk before `commit` returns. Active ones are not synced: they are on
//!   the start path, and what a power cut takes of them is found missing, never half there.
//! - A parent is committed, exists, and stays for as long as it has children.
//! - A record's directory is renamed away before its tree is deleted, so that a crash leaves no half-deleted snapshot.
//! - Overlay is mounted by core, without `volatile`: what containers write survives.
//!
//! It mounts nothing and knows nothing of images.

mod index;
mod kernel;
mod record;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use gantry_plugin_sdk::storage::{
    Commit, Prepare, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo, Usage, WhiteoutStyle,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Mount,
    MountPlan, Reconcile, Storage, tree,
};

use index::{Index, Number};
use record::Record;

/// The most lower directories that the kernel stacks.
const MAX_DEPTH: usize = 500;

/// The driver.
pub struct Overlayfs {
    /// Where snapshots are.
    snapshots: PathBuf,
    /// Where they go to be deleted.
    graveyard: PathBuf,
    index: Index,
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
        let snapshots = config.root.join("s");
        let graveyard = config.root.join("d");
        for dir in [&snapshots, &graveyard] {
            make_dir(dir, 0o700, true).map_err(|e| doing("making", dir, &e))?;
        }
        let backing =
            kernel::backing(&snapshots).map_err(|e| doing("looking at", &snapshots, &e))?;
        if !kernel::carries_overlay(backing) {
            let text = format!("'overlayfs' is not supported over {backing}");
            return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
        }
        let index = Index::load(&snapshots, &graveyard, &log)
            .map_err(|e| doing("reading", &snapshots, &e))?;
        Ok(Self {
            snapshots,
            graveyard,
            index,
            options: kernel::mount_options(),
            backing,
            log,
        })
    }

    fn dir(&self, number: Number) -> PathBuf {
        self.snapshots.join(number.to_string())
    }

    fn fs(&self, number: Number) -> PathBuf {
        self.dir(number).join("fs")
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
        let record = Record {
            key: request.key.clone(),
            parent: request.parent,
            state,
        };
        if let Some((number, depth)) = self.index.insert(&record)? {
            let made = if depth > MAX_DEPTH {
                Err(DriverError::new(
                    ErrorCode::FailedPrecondition,
                    "max depth exceeded",
                ))
            } else {
                self.make_dirs(number, &record)
            };
            if let Err(error) = made {
                self.index.forget(&record.key);
                self.bury(number);
                return Err(error);
            }
        }
        self.plan(&request.key)
    }

    fn make_dirs(&self, number: Number, record: &Record) -> DriverResult<()> {
        let dir = self.dir(number);
        let fs = dir.join("fs");
        let make = || {
            make_dir(&dir, 0o700, false)?;
            make_dir(&fs, 0o755, false)?;
            if record.state == SnapshotState::Active {
                make_dir(&dir.join("work"), 0o700, false)?;
            }
            // The topmost directory's owner and mode are those of the merged tree.
            if let Some(parent) = record.parent.as_ref().and_then(|p| self.index.number(p)) {
                let above = fs::metadata(self.fs(parent))?;
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
        let (number, record, parents) = self.index.chain(key)?;
        let lower: Vec<_> = parents.iter().map(|n| self.fs(*n)).collect();
        let mount = match record.state {
            SnapshotState::Committed => {
                let text = format!("snapshot {key} is committed");
                return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
            }
            SnapshotState::Active if lower.is_empty() => Mount::Bind {
                source: self.fs(number),
                read_only: false,
            },
            SnapshotState::Active => Mount::Overlay {
                lower,
                upper: Some(self.fs(number)),
                work: Some(self.dir(number).join("work")),
                options: self.options.clone(),
            },
            // The kernel wants two directories at least.
            SnapshotState::View => match <[PathBuf; 1]>::try_from(lower) {
                Ok([source]) => Mount::Bind {
                    source,
                    read_only: true,
                },
                Err(lower) if lower.is_empty() => Mount::Bind {
                    source: self.fs(number),
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

    /// Deletes a snapshot's tree. What cannot be deleted now is left to `cleanup`.
    fn bury(&self, number: Number) {
        let (dir, grave) = (self.dir(number), self.graveyard.join(number.to_string()));
        let buried = match fs::rename(&dir, &grave) {
            Ok(()) => fs::remove_dir_all(&grave),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(error) = buried {
            self.log
                .warn(format!("deleting {}: {error}", dir.display()));
        }
    }
}

impl Driver for Overlayfs {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let status = [
            (
                "Backing Filesystem",
                if self.backing == "ext4" {
                    "extfs"
                } else {
                    self.backing
                },
            ),
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

    fn reconcile(&self, call: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        // Children before parents: each round removes what has no children left.
        let mut garbage = self.index.except(&request.live);
        loop {
            let before = garbage.len();
            garbage.retain(|key| {
                let removed = self.remove(call, SnapshotKey { key: key.clone() });
                removed.is_err()
            });
            if garbage.is_empty() || garbage.len() == before {
                return self.cleanup(call, ());
            }
        }
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

    fn commit(&self, call: &Call<'_>, request: Commit) -> DriverResult<()> {
        check_key(&request.name)?;
        let key = SnapshotKey {
            key: request.key.clone(),
        };
        if self.index.is_committed(&request.name) {
            // Either this very call came before, or another has unpacked the same layer meanwhile.
            if request.name == request.key {
                return Ok(());
            }
            return self.remove(call, key);
        }
        let (number, record) = self.index.committable(&request)?;
        let dir = self.dir(number);
        let write = || {
            rustix::fs::syncfs(File::open(&dir)?)?;
            record.write(&dir, true)
        };
        if let Err(error) = write() {
            self.index.disown(&request);
            return Err(doing("committing", &dir, &error));
        }
        if !self.index.replace(&request.key, number, record) {
            self.bury(number);
            return Ok(());
        }
        // What is never mounted as an upper directory again needs none.
        if let Err(error) = fs::remove_dir_all(dir.join("work")) {
            self.log
                .debug(format!("deleting {}/work: {error}", dir.display()));
        }
        Ok(())
    }

    fn remove(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<()> {
        if let Some(number) = self.index.remove(&request.key)? {
            self.bury(number);
        }
        Ok(())
    }

    fn stat(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<SnapshotInfo> {
        let (number, record, _) = self.index.chain(&request.key)?;
        Ok(self.describe(number, record))
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<SnapshotInfo>> {
        let all = self.index.all().into_iter();
        Ok(all
            .map(|(number, record)| self.describe(number, record))
            .collect())
    }

    fn usage(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<Usage> {
        let (number, _, _) = self.index.chain(&request.key)?;
        let fs = self.fs(number);
        tree::measure(&fs).map_err(|e| doing("measuring", &fs, &e))
    }

    fn cleanup(&self, _: &Call<'_>, (): ()) -> DriverResult<()> {
        let orphans = self
            .index
            .orphans(&self.snapshots)
            .map_err(|e| doing("reading", &self.snapshots, &e))?;
        for number in orphans {
            self.bury(number);
        }
        let graves =
            fs::read_dir(&self.graveyard).map_err(|e| doing("reading", &self.graveyard, &e))?;
        for grave in graves.flatten() {
            if let Err(error) = fs::remove_dir_all(grave.path()) {
                self.log
                    .warn(format!("deleting {}: {error}", grave.path().display()));
            }
        }
        Ok(())
    }
}

impl Overlayfs {
    fn describe(&self, number: Number, record: Record) -> SnapshotInfo {
        SnapshotInfo {
            key: record.key,
            parent: record.parent,
            state: record.state,
            upper: Some(self.fs(number)),
        }
    }
}

/// Makes a directory with exactly this mode, whatever the umask.
fn make_dir(path: &Path, mode: u32, may_exist: bool) -> io::Result<()> {
    DirBuilder::new()
        .recursive(may_exist)
        .mode(mode)
        .create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn check_key(key: &str) -> DriverResult<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if key.is_empty() || key.len() > 200 || !key.chars().all(ok) {
        return Err(DriverError::invalid(format!(
            "invalid snapshot key {key:?}"
        )));
    }
    Ok(())
}

fn doing(what: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::io(format!("{what} {}", path.display()), error)
}

gantry_plugin_sdk::plugin! { kind: storage, driver: Overlayfs, name: "overlayfs" }
