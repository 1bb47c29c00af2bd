//! Snapshots of layers: which are there, making new ones, removing those that no image needs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gantry_driver_api::storage::{
    Commit, Prepare, Replace, SnapshotKey, SnapshotState, StorageInfo, WhiteoutStyle,
};
use gantry_driver_api::{Call, DriverResult, ErrorCode, Mount, MountPlan, Storage};
use gantry_model::Digest;
use gantry_store::Batch;
use parking_lot::{Condvar, Mutex};

use crate::record::layer_key;
use crate::service::Shared;
use crate::{Error, Result};

/// Prefix of the keys of layers that are being unpacked; no container has such an identifier.
const UNPACKING: &str = "unpack-";

/// Keys of snapshots that an operation has for a moment: layers being unpacked, trees to read.
pub(crate) type Temporary = Arc<Mutex<HashSet<String>>>;

/// The storage driver that an operation works with.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) name: String,
    pub(crate) driver: Arc<dyn Storage>,
    pub(crate) info: StorageInfo,
    temporary: Temporary,
}

/// A layer being unpacked: removed when dropped, unless it was committed.
pub(crate) struct Active<'a> {
    layers: &'a Layers,
    key: String,
    pub(crate) target: PathBuf,
    committed: bool,
}

/// A layer's tree, as long as this lives.
pub(crate) struct Tree<'a> {
    pub(crate) path: PathBuf,
    _view: Option<Active<'a>>,
}

impl Layers {
    pub(crate) fn open(shared: &Shared, name: String) -> Result<Self> {
        let driver = shared.drivers.storage(&name)?;
        let info = driver.info(&Call::new("info"), ())?;
        Ok(Self {
            name,
            driver,
            info,
            temporary: shared.temporary.clone(),
        })
    }

    pub(crate) fn style(&self) -> WhiteoutStyle {
        self.info.whiteouts
    }

    /// Whether the snapshot of a chain is there, whole.
    pub(crate) fn contains(&self, chain: &Digest) -> Result<bool> {
        let key = SnapshotKey {
            key: chain.to_string(),
        };
        match self.driver.stat(&Call::new("stat"), key) {
            Ok(info) => Ok(info.state == SnapshotState::Committed),
            // Without its parents a snapshot is as good as none.
            Err(error) if matches!(error.code, ErrorCode::NotFound | ErrorCode::DataLoss) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the tree of a layer can be read: its own changes, or all of it where the driver keeps it so. `None` for drivers
    /// that would have to mount something.
    pub(crate) fn tree(&self, chain: &Digest) -> Result<Option<Tree<'_>>> {
        let key = SnapshotKey {
            key: chain.to_string(),
        };
        let info = self.driver.stat(&Call::new("fsck"), key)?;
        if let Some(path) = info.upper {
            return Ok(Some(Tree { path, _view: None }));
        }
        let request = |key| Prepare {
            key,
            parent: Some(chain.to_string()),
            size: None,
        };
        let (view, plan) = self.make(|key| self.driver.view(&Call::new("fsck"), request(key)))?;
        Ok(plan.directory().map(|path| Tree {
            path: path.into(),
            _view: Some(view),
        }))
    }

    /// Makes a snapshot that goes when it is dropped.
    fn make(
        &self,
        make: impl FnOnce(String) -> DriverResult<MountPlan>,
    ) -> Result<(Active<'_>, MountPlan)> {
        let active = Active {
            layers: self,
            key: format!("{UNPACKING}{}", random()?),
            target: PathBuf::new(),
            committed: false,
        };
        self.temporary.lock().insert(active.key.clone());
        let plan = make(active.key.clone())?;
        Ok((active, plan))
    }

    /// Prepares a directory to unpack a layer into; without `parent` where the driver takes it at commit.
    pub(crate) fn begin(&self, parent: Option<&Digest>) -> Result<Active<'_>> {
        let request = |key| Prepare {
            key,
            parent: parent.map(Digest::to_string),
            size: None,
        };
        let (mut active, plan) =
            self.make(|key| self.driver.prepare(&Call::new("unpack"), request(key)))?;
        active.target = writable(&plan).ok_or_else(|| {
            Error::Layer(format!(
                "storage driver {} offers no directory to unpack into",
                self.name
            ))
        })?;
        Ok(active)
    }
}

impl Active<'_> {
    /// Makes the layer durable under its chain ID. A layer that somebody else has committed meanwhile is as good.
    pub(crate) fn commit(mut self, chain: &Digest, parent: Option<&Digest>) -> Result<()> {
        let request = Commit {
            name: chain.to_string(),
            key: self.key.clone(),
            parent: parent.map(Digest::to_string),
        };
        self.layers.driver.commit(&Call::new("commit"), request)?;
        self.committed = true;
        Ok(())
    }

    /// Puts its tree in the place of a damaged layer's.
    pub(crate) fn replace(mut self, chain: &Digest) -> Result<()> {
        let request = Replace {
            name: chain.to_string(),
            key: self.key.clone(),
        };
        self.layers.driver.replace(&Call::new("repair"), request)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let key = SnapshotKey {
                key: self.key.clone(),
            };
            if let Err(error) = self.layers.driver.remove(&Call::new("abandon"), key) {
                tracing::warn!(key = self.key, %error, "an unfinished layer cannot be removed");
            }
        }
        self.layers.temporary.lock().remove(&self.key);
    }
}

/// The directory in which a plan's changes go.
fn writable(plan: &MountPlan) -> Option<PathBuf> {
    if let Some(directory) = plan.directory() {
        return Some(directory.into());
    }
    match plan.mounts.as_slice() {
        [Mount::Overlay { upper, .. }] => upper.clone(),
        _ => None,
    }
}

/// Sixteen random hex digits.
pub(crate) fn random() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::io("reading random bytes", std::io::Error::other(error)))?;
    Ok(hex::encode(bytes))
}

/// Layers in use by operations that have no record yet, and layers on their way out.
#[derive(Default)]
pub(crate) struct Pins {
    state: Mutex<PinState>,
    removed: Condvar,
}

#[derive(Default)]
struct PinState {
    pinned: HashMap<String, usize>,
    removing: HashSet<String>,
}

/// Keeps layers from being removed while an image is on its way.
pub(crate) struct Pin<'a> {
    pins: &'a Pins,
    keys: Vec<String>,
}

impl Pins {
    /// Pins layers; waits for those that are being removed at this moment.
    fn pin(&self, keys: Vec<String>) -> Pin<'_> {
        let mut state = self.state.lock();
        while keys.iter().any(|key| state.removing.contains(key)) {
            self.removed.wait(&mut state);
        }
        for key in &keys {
            *state.pinned.entry(key.clone()).or_default() += 1;
        }
        Pin { pins: self, keys }
    }

    pub(crate) fn is_pinned(&self, key: &str) -> bool {
        self.state.lock().pinned.contains_key(key)
    }

    /// Runs `remove` for a layer that nobody has pinned or is removing; `None` otherwise.
    fn unless_pinned<R>(&self, key: &str, remove: impl FnOnce() -> R) -> Option<R> {
        {
            let mut state = self.state.lock();
            if state.pinned.contains_key(key) || !state.removing.insert(key.to_owned()) {
                return None;
            }
        }
        let result = remove();
        self.state.lock().removing.remove(key);
        self.removed.notify_all();
        Some(result)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock();
        for key in &self.keys {
            if let Some(count) = state.pinned.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(key);
                }
            }
        }
    }
}

impl Shared {
    /// Pins layers, there or not. After that, what [`Layers::contains`] says stays true.
    pub(crate) fn pin(&self, driver: &str, chain: &[Digest]) -> Pin<'_> {
        self.pins
            .pin(chain.iter().map(|id| layer_key(driver, id)).collect())
    }

    /// Layers that no image needs, there or half there; some may be needed by a container or an operation on its way.
    pub(crate) fn unneeded_layers(&self) -> Result<Vec<String>> {
        let mut needed: HashSet<String> = HashSet::new();
        self.images.for_each("", |_, record| {
            needed.extend(record.chain.iter().map(|id| layer_key(&record.driver, id)));
            true
        })?;
        // Layers of an operation that failed have no record.
        let mut keys: BTreeSet<String> = self.fresh.lock().keys().cloned().collect();
        self.layers.for_each("", |key, _| {
            keys.insert(key.to_owned());
            true
        })?;
        Ok(keys
            .into_iter()
            .filter(|key| !needed.contains(key))
            .collect())
    }

    /// Removes layers that no image needs, topmost first, and returns their chain IDs when that is durable. Those under a
    /// container or under an operation on its way stay.
    pub(crate) fn collect_layers(&self) -> Result<Vec<Digest>> {
        let mut candidates = self.unneeded_layers()?;
        let mut removed = Vec::new();
        // A layer can go when those above it are gone: go round until nothing moves.
        loop {
            let before = candidates.len();
            let mut left = Vec::new();
            for key in candidates {
                // An image that came meanwhile had its layers pinned until it had its record.
                let gone = self.pins.unless_pinned(&key, || {
                    if self.is_needed(&key)? {
                        return Ok(None);
                    }
                    self.remove_layer(&key)
                });
                match gone.transpose()?.flatten() {
                    Some(chain) => removed.push(chain),
                    None => left.push(key),
                }
            }
            candidates = left;
            if candidates.is_empty() || candidates.len() == before {
                break;
            }
        }
        self.orphans
            .store(!candidates.is_empty(), Ordering::Relaxed);
        if !removed.is_empty() {
            self.store.commit(Batch::new()).wait()?;
        }
        Ok(removed)
    }

    /// Whether an image has this layer.
    fn is_needed(&self, key: &str) -> Result<bool> {
        let mut needed = false;
        self.images.for_each("", |_, record| {
            needed = key
                .strip_prefix(&record.driver)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|chain| record.chain.iter().any(|id| id.as_str() == chain));
            !needed
        })?;
        Ok(needed)
    }

    /// Removes one layer; `None` when something stands on it or its driver is missing.
    fn remove_layer(&self, key: &str) -> Result<Option<Digest>> {
        let Some((driver, chain)) = key.split_once('/') else {
            return Ok(None);
        };
        let (Ok(storage), Ok(chain)) = (self.drivers.storage(driver), chain.parse::<Digest>())
        else {
            return Ok(None);
        };
        let snapshot = SnapshotKey {
            key: chain.to_string(),
        };
        match storage.remove(&Call::new("remove"), snapshot) {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::Conflict => return Ok(None),
            Err(error) => {
                tracing::warn!(key, %error, "a layer cannot be removed");
                return Ok(None);
            }
        }
        self.fresh.lock().remove(key);
        // Before anybody can pin it, and so before its next record.
        self.layers.delete(key).detach();
        Ok(Some(chain))
    }
}
