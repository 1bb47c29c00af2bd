//! A storage driver of snapshots in directories: the contract, but for what a directory holds.

use std::path::PathBuf;

use gantry_driver_api::storage::{
    Commit, FindGarbage, Prepare, Replace, SnapshotInfo, SnapshotKey, SnapshotState, StorageInfo,
    Usage,
};
use gantry_driver_api::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, MountPlan, Reconcile,
    Storage,
};

use super::{Draft, Number, Record, Snapshots, check_key, doing};
use crate::{Log, tree};

/// What the snapshots of a driver hold and how they are mounted. [`Snapshotter`] makes a storage driver of it.
///
/// As with drivers, methods may be entered by several threads at once.
pub trait Layout: Send + Sync + Sized + 'static {
    /// The words that refuse a snapshot with a limit of size.
    const NO_QUOTA: &'static str;

    /// Opens the snapshots below the configuration's root.
    ///
    /// # Errors
    /// When the directories cannot be made or read, or their file system does not do.
    fn open(config: &DriverConfig, log: Log) -> DriverResult<Self>;

    /// The directories.
    fn snapshots(&self) -> &Snapshots;

    /// What kind of snapshotter this is. Constant.
    fn info(&self) -> StorageInfo;

    /// What `docker info` shows of the driver: names and values.
    fn status(&self) -> Vec<(&'static str, &'static str)>;

    /// Makes the directory of a snapshot with everything in it, its record last.
    ///
    /// # Errors
    /// Those of the file system; the caller takes away what is there then.
    fn fill(&self, draft: &Draft) -> DriverResult<()>;

    /// The mounts of an active snapshot or view.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    fn mounts(&self, key: &str) -> DriverResult<MountPlan>;

    /// Makes an active snapshot immutable, under a name that the contract allows.
    ///
    /// # Errors
    /// As `commit` in the contract; the snapshot then stays as it was.
    fn commit(&self, request: &Commit) -> DriverResult<()>;

    /// What is told of a snapshot.
    fn describe(&self, number: Number, record: Record) -> SnapshotInfo;
}

/// The driver of a [`Layout`]. It has no options.
#[derive(Debug)]
pub struct Snapshotter<L>(L);

impl<L: Layout> Snapshotter<L> {
    /// Opens it.
    ///
    /// # Errors
    /// `InvalidArgument` for any option; as [`Layout::open`].
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        if let Some(option) = config.options.as_object().and_then(|o| o.keys().next()) {
            return Err(DriverError::invalid(format!(
                "{}: Unknown option {option}",
                config.name
            )));
        }
        L::open(&config, log).map(Self)
    }

    /// Makes an active snapshot or a view, unless it is there.
    fn make(&self, request: Prepare, state: SnapshotState) -> DriverResult<MountPlan> {
        check_key(&request.key)?;
        if request.size.is_some() {
            return Err(DriverError::new(ErrorCode::NotImplemented, L::NO_QUOTA));
        }
        let key = request.key.clone();
        let snapshots = self.0.snapshots();
        snapshots.create(request, state, |draft| self.0.fill(draft))?;
        self.0.mounts(&key)
    }
}

impl<L: Layout> Driver for Snapshotter<L> {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let status = self.0.status().into_iter();
        Ok(Health {
            healthy: true,
            message: String::new(),
            status: status.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        })
    }

    fn reconcile(&self, _: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.0.snapshots().keep_only(&request.live);
        self.0.snapshots().cleanup()
    }
}

impl<L: Layout> Storage for Snapshotter<L> {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<StorageInfo> {
        Ok(self.0.info())
    }

    fn prepare(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.make(request, SnapshotState::Active)
    }

    fn view(&self, _: &Call<'_>, request: Prepare) -> DriverResult<MountPlan> {
        self.make(request, SnapshotState::View)
    }

    fn mounts(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<MountPlan> {
        self.0.mounts(&request.key)
    }

    fn commit(&self, _: &Call<'_>, request: Commit) -> DriverResult<()> {
        check_key(&request.name)?;
        self.0.commit(&request)
    }

    fn remove(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<()> {
        self.0.snapshots().remove(&request.key)
    }

    fn stat(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<SnapshotInfo> {
        let (number, record, _) = self.0.snapshots().index.chain(&request.key)?;
        Ok(self.0.describe(number, record))
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<SnapshotInfo>> {
        let all = self.0.snapshots().index.all().into_iter();
        Ok(all
            .map(|(number, record)| self.0.describe(number, record))
            .collect())
    }

    fn usage(&self, _: &Call<'_>, request: SnapshotKey) -> DriverResult<Usage> {
        let (number, _, _) = self.0.snapshots().index.chain(&request.key)?;
        let fs = self.0.snapshots().fs(number);
        tree::measure(&fs).map_err(|e| doing("measuring", &fs, &e))
    }

    fn cleanup(&self, _: &Call<'_>, (): ()) -> DriverResult<()> {
        self.0.snapshots().cleanup()
    }

    fn garbage(&self, _: &Call<'_>, _: FindGarbage) -> DriverResult<Vec<PathBuf>> {
        self.0.snapshots().garbage()
    }

    fn replace(&self, _: &Call<'_>, request: Replace) -> DriverResult<()> {
        self.0.snapshots().replace(&request)
    }
}
