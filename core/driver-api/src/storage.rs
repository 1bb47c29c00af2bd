//! Storage drivers: a snapshotter, after containerd's model.
//!
//! A *snapshot* has a key. *Active* ones (made by `prepare`) are writable; `commit` turns one into an immutable
//! *committed* snapshot under a new name, which can be the parent of others. *Views* are read-only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{MountPlan, contract::contract};

/// How a deleted file is told in a layer directory that core's extractor fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhiteoutStyle {
    /// Overlay's own: a character device 0:0, `trusted.overlay.opaque=y`.
    Overlay,
    /// The deletion is carried out: the directory holds the whole tree, parents included. Core finds what changed by
    /// comparing it with a view of the parent, so views should cost little.
    Apply,
}

/// What kind of snapshotter this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageInfo {
    /// How core must write deletions into an active snapshot.
    pub whiteouts: WhiteoutStyle,
    /// Whether a layer may be prepared without its parent and get it at `commit`: lets layers unpack in parallel.
    pub late_parent: bool,
    /// The file system below, `ext4`.
    pub backing: String,
}

/// Make an active snapshot or a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The new snapshot's key, `[A-Za-z0-9_.:-]{1,200}`.
    pub key: String,
    /// A committed snapshot, or none for an empty tree.
    #[serde(default)]
    pub parent: Option<String>,
    /// Quota in bytes for what is written; refused with `NotImplemented` where the driver cannot.
    #[serde(default)]
    pub size: Option<u64>,
}

/// Names one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotKey {
    /// Its key or committed name.
    pub key: String,
}

/// Make an active snapshot immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The committed name.
    pub name: String,
    /// The active snapshot, which ceases to exist.
    pub key: String,
    /// With `late_parent`: the parent, for a snapshot prepared without one.
    #[serde(default)]
    pub parent: Option<String>,
}

/// Put a tree in the place of a committed snapshot's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    /// The committed snapshot.
    pub name: String,
    /// An active snapshot with the tree that the committed one should have; it ceases to exist.
    pub key: String,
}

/// Ask for what belongs to no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FindGarbage {}

/// Active, view or committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Writable.
    Active,
    /// Read-only, cannot be committed.
    View,
    /// Immutable.
    Committed,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Key or committed name.
    pub key: String,
    /// Its parent.
    #[serde(default)]
    pub parent: Option<String>,
    /// Its state.
    pub state: SnapshotState,
    /// The directory that holds this snapshot's own changes, where the driver has such a thing.
    #[serde(default)]
    pub upper: Option<PathBuf>,
    /// Where an active snapshot is a whole tree: when that was made, seconds and nanoseconds by the clock of change times
    /// (ctime). A file that is as it was before has an older one. Unknown: core compares contents to know.
    #[serde(default)]
    pub made: Option<(i64, i64)>,
}

/// What a snapshot occupies, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Lengths of the files and links, each once.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

contract! {
    /// A snapshotter. `NotFound` for absent keys except in `remove`; `AlreadyExists` when `prepare` or `view` names an
    /// existing key with another parent (with the same parent they return it as it is); crash-safe: after a crash
    /// every snapshot is there whole or not at all, once `reconcile` or `cleanup` has run.
    pub trait Storage: Driver {
        /// What kind of snapshotter this is. Constant.
        required fn info(()) -> StorageInfo;
        /// Makes an active snapshot.
        required fn prepare(Prepare) -> MountPlan;
        /// Makes a read-only view.
        required fn view(Prepare) -> MountPlan;
        /// The mounts of an existing active snapshot or view.
        required fn mounts(SnapshotKey) -> MountPlan;
        /// Makes an active snapshot immutable under a new name. Its data must be on disk when this returns. Succeeds
        /// when `name` is committed already (the active one is then removed).
        required fn commit(Commit) -> ();
        /// Removes a snapshot. `Conflict` when it is the parent of another.
        required fn remove(SnapshotKey) -> ();
        /// Looks one up.
        required fn stat(SnapshotKey) -> SnapshotInfo;
        /// All of them, in any order.
        required fn list(()) -> Vec<SnapshotInfo>;
        /// Measures what one takes on the disk. May walk the tree.
        required fn usage(SnapshotKey) -> Usage;
        /// Removes what crashes and removals left behind.
        required fn cleanup(()) -> ();
        /// What [`cleanup`](Self::cleanup) would remove now, as paths; nothing that is being made or removed.
        optional fn garbage(FindGarbage) -> Vec<PathBuf>;
        /// Gives a committed snapshot, whose tree was found damaged, another one, at once or not at all, and durably. Its
        /// children stay; no container that is mounted stands on it.
        optional fn replace(Replace) -> ();
    }
}
