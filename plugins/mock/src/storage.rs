//! A snapshotter that copies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_plugin_sdk::storage::{
    Commit, Prepare, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo, Usage, WhiteoutStyle,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Mount, MountPlan,
    Reconcile, Storage, serde_json, tree,
};
use parking_lot::Mutex;

use crate::Script;

/// The driver. A snapshot is a directory `<key>` with the whole tree, and a file `<key>.json` beside it.
pub struct MockStorage {
    script: Script,
    root: PathBuf,
    /// One call at a time.
    lock: Mutex<()>,
}

impl MockStorage {
    /// See [`Script`].
    ///
    /// # Errors
    /// What the script says.
    pub fn new(config: DriverConfig, _: Log) -> DriverResult<Self> {
        Ok(Self {
            script: Script::parse(&config.options)?,
            root: config.root,
            lock: Mutex::default(),
        })
    }

    fn find(&self, key: &str) -> DriverResult<SnapshotInfo> {
        fs::read(self.root.join(format!("{key}.json")))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| DriverError::not_found(format!("no snapshot {key}")))
    }

    fn save(&self, info: &SnapshotInfo) -> DriverResult<()> {
        let write = || {
            fs::write(
                self.root.join(format!("{}.json", info.key)),
                serde_json::to_vec(info)?,
            )
        };
        write().map_err(|e| DriverError::io("writing", &e))
    }

    fn everything(&self) -> DriverResult<Vec<SnapshotInfo>> {
        let entries = fs::read_dir(&self.root).map_err(|e| DriverError::io("listing", &e))?;
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| self.find(name.strip_suffix(".json")?).ok())
            .collect())
    }

    fn make(&self, request: Prepare, state: SnapshotState) -> DriverResult<MountPlan> {
        let _lock = self.lock.lock();
        let tree = self.root.join(&request.key);
        if let Ok(present) = self.find(&request.key) {
            if present.parent == request.parent && present.state == state {
                return Ok(plan(&present));
            }
            return Err(DriverError::new(ErrorCode::AlreadyExists, "it exists"));
        }
        let made = match &request.parent {
            None => fs::create_dir_all(&tree),
            Some(parent) if self.find(parent)?.state == SnapshotState::Committed => {
                copy(&self.root.join(parent), &tree)
            }
            Some(_) => {
                return Err(DriverError::new(
                    ErrorCode::FailedPrecondition,
                    "not committed",
                ));
            }
        };
        made.map_err(|e| DriverError::io("copying", &e))?;
        let info = SnapshotInfo {
            key: request.key,
            parent: request.parent,
            state,
            upper: Some(tree),
            made: None,
        };
        self.save(&info)?;
        Ok(plan(&info))
    }

    fn delete(&self, key: &str) -> DriverResult<()> {
        if self.find(key).is_err() {
            return Ok(());
        }
        if self
            .everything()?
            .iter()
            .any(|s| s.parent.as_deref() == Some(key))
        {
            return Err(DriverError::new(ErrorCode::Conflict, "it has children"));
        }
        fs::remove_file(self.root.join(format!("{key}.json")))
            .and_then(|()| fs::remove_dir_all(self.root.join(key)))
            .map_err(|e| DriverError::io("removing", &e))
    }
}

fn plan(info: &SnapshotInfo) -> MountPlan {
    MountPlan::single(Mount::Bind {
        source: info.upper.clone().unwrap_or_default(),
        read_only: info.state == SnapshotState::View,
    })
}

/// Copies directories and plain files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Driver for MockStorage {
    fn reconcile(&self, _: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.script.gate("reconcile")?;
        let _lock = self.lock.lock();
        loop {
            let all = self.everything()?;
            let garbage = all.iter().filter(|s| !request.live.contains(&s.key));
            // Those with children go in a later round.
            let removed = garbage.filter(|s| self.delete(&s.key).is_ok()).count();
            if removed == 0 {
                return Ok(());
            }
        }
    }
}

impl Storage for MockStorage {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<StorageInfo> {
        self.script.gate("info")?;
        Ok(StorageInfo {
            whiteouts: WhiteoutStyle::Apply,
            late_parent: false,
            backing: "mock".to_owned(),
        })
    }

    fn prepare(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.script.gate("prepare")?;
        self.make(request, SnapshotState::Active)
    }

    fn view(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.script.gate("view")?;
        self.make(request, SnapshotState::View)
    }

    fn mounts(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<MountPlan> {
        self.script.gate("mounts")?;
        Ok(plan(&self.find(&request.key)?))
    }

    fn commit(&self, _: &Call<'_>, request: Commit) -> DriverResult<()> {
        self.script.gate("commit")?;
        let _lock = self.lock.lock();
        if self
            .find(&request.name)
            .is_ok_and(|s| s.state == SnapshotState::Committed)
        {
            return self.delete(&request.key);
        }
        let mut info = self.find(&request.key)?;
        if info.state != SnapshotState::Active {
            return Err(DriverError::new(
                ErrorCode::FailedPrecondition,
                "not active",
            ));
        }
        let tree = self.root.join(&request.name);
        fs::rename(self.root.join(&request.key), &tree)
            .and_then(|()| fs::remove_file(self.root.join(format!("{}.json", request.key))))
            .map_err(|e| DriverError::io("renaming", &e))?;
        info.key = request.name;
        info.state = SnapshotState::Committed;
        info.upper = Some(tree);
        self.save(&info)
    }

    fn remove(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<()> {
        self.script.gate("remove")?;
        let _lock = self.lock.lock();
        self.delete(&request.key)
    }

    fn stat(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<SnapshotInfo> {
        self.script.gate("stat")?;
        self.find(&request.key)
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<SnapshotInfo>> {
        self.script.gate("list")?;
        self.everything()
    }

    fn usage(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<Usage> {
        self.script.gate("usage")?;
        self.find(&request.key)?;
        tree::measure(&self.root.join(&request.key)).map_err(|e| DriverError::io("measuring", &e))
    }

    fn cleanup(&self, _: &Call<'_>, (): ()) -> DriverResult<()> {
        self.script.gate("cleanup")
    }
}
