//! A snapshotter on plain directories that takes a layer's parent at commit, as overlayfs does.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_driver_api::storage::{
    Commit, Prepare, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo, Usage, WhiteoutStyle,
};
use gantry_driver_api::{
    Call, Driver, DriverError, DriverResult, ErrorCode, Mount, MountPlan, Reconcile, Storage,
};

pub(crate) struct LateStorage {
    root: PathBuf,
    snapshots: Mutex<Vec<SnapshotInfo>>,
    /// How many directories have been asked for.
    pub(crate) prepared: AtomicUsize,
}

impl LateStorage {
    pub(crate) fn new(root: PathBuf) -> Self {
        let index = root.join("index.json");
        let snapshots = fs::read(index)
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .unwrap_or_default();
        Self {
            root,
            snapshots: Mutex::new(snapshots),
            prepared: AtomicUsize::new(0),
        }
    }

    fn find(&self, key: &str) -> Option<SnapshotInfo> {
        let snapshots = self.snapshots.lock().unwrap();
        snapshots.iter().find(|info| info.key == key).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<SnapshotInfo>)) {
        let mut snapshots = self.snapshots.lock().unwrap();
        change(&mut snapshots);
        let bytes = serde_json::to_vec(&*snapshots).unwrap();
        // A test may kill us at any point.
        let new = self.root.join("index.new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.root.join("index.json")).unwrap();
    }

    /// The directories of a snapshot and those below it, topmost first.
    fn stack(&self, key: &str) -> Vec<PathBuf> {
        let mut stack = Vec::new();
        let mut at = Some(key.to_owned());
        while let Some(key) = at {
            let info = self.find(&key).unwrap();
            stack.push(info.upper.clone().unwrap());
            at = info.parent;
        }
        stack
    }

    fn plan(&self, info: &SnapshotInfo) -> MountPlan {
        MountPlan::single(match &info.parent {
            None => Mount::Bind {
                source: info.upper.clone().unwrap(),
                read_only: false,
            },
            Some(parent) => Mount::Overlay {
                lower: self.stack(parent),
                upper: info.upper.clone(),
                work: Some(self.root.join("work")),
                options: Vec::new(),
            },
        })
    }
}

impl Driver for LateStorage {
    fn reconcile(&self, _: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.change(|snapshots| {
            snapshots.retain(|info| {
                let live = request.live.contains(&info.key);
                if !live {
                    let _ = fs::remove_dir_all(info.upper.as_ref().unwrap());
                }
                live
            });
        });
        Ok(())
    }
}

impl Storage for LateStorage {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<StorageInfo> {
        Ok(StorageInfo {
            whiteouts: WhiteoutStyle::Overlay,
            late_parent: true,
            backing: "test".into(),
        })
    }

    fn prepare(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        if let Some(info) = self.find(&request.key) {
            return Ok(self.plan(&info));
        }
        if let Some(parent) = &request.parent
            && self.find(parent).is_none()
        {
            return Err(DriverError::not_found(format!("no snapshot {parent}")));
        }
        self.prepared.fetch_add(1, Ordering::Relaxed);
        let upper = self.root.join(format!("dir-{}", request.key));
        fs::create_dir_all(&upper).unwrap();
        let info = SnapshotInfo {
            key: request.key,
            parent: request.parent,
            state: SnapshotState::Active,
            upper: Some(upper),
            made: None,
        };
        self.change(|snapshots| snapshots.push(info.clone()));
        Ok(self.plan(&info))
    }

    fn view(&self, call: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.prepare(call, request)
    }

    fn mounts(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<MountPlan> {
        self.find(&request.key)
            .map(|info| self.plan(&info))
            .ok_or_else(|| DriverError::not_found("gone"))
    }

    fn commit(&self, call: &Call<'_>, request: Commit) -> DriverResult<()> {
        if self.find(&request.name).is_some() {
            return self.remove(call, SnapshotKey { key: request.key });
        }
        if let Some(parent) = &request.parent
            && self.find(parent).is_none()
        {
            return Err(DriverError::not_found(format!("no parent {parent}")));
        }
        self.change(|snapshots| {
            let info = snapshots
                .iter_mut()
                .find(|info| info.key == request.key)
                .unwrap();
            info.key = request.name;
            info.state = SnapshotState::Committed;
            info.parent = info.parent.take().or(request.parent);
        });
        Ok(())
    }

    fn remove(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<()> {
        let Some(info) = self.find(&request.key) else {
            return Ok(());
        };
        let snapshots = self.snapshots.lock().unwrap().clone();
        if snapshots
            .iter()
            .any(|other| other.parent.as_ref() == Some(&request.key))
        {
            return Err(DriverError::new(ErrorCode::Conflict, "it has children"));
        }
        fs::remove_dir_all(info.upper.unwrap()).unwrap();
        self.change(|snapshots| snapshots.retain(|info| info.key != request.key));
        Ok(())
    }

    fn stat(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<SnapshotInfo> {
        self.find(&request.key)
            .ok_or_else(|| DriverError::not_found("gone"))
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<SnapshotInfo>> {
        Ok(self.snapshots.lock().unwrap().clone())
    }

    fn usage(&self, _: &Call<'_>, _: SnapshotKey) -> DriverResult<Usage> {
        Ok(Usage::default())
    }

    fn cleanup(&self, _: &Call<'_>, (): ()) -> DriverResult<()> {
        Ok(())
    }
}
