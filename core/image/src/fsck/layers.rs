//! Layers, their snapshots, and those of containers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gantry_driver_api::storage::{FindGarbage, SnapshotKey};
use gantry_driver_api::{Call, ErrorCode, Kind, Storage};
use gantry_driver_registry::DriverState;
use gantry_model::{Digest, ImageId};

use super::{Check, Flaw, SnapshotUse, compare, once};
use crate::chunks::ChunkSender;
use crate::install::{BlobSource, Install, LayerPlan, Phase};
use crate::layers::Layers;
use crate::record::{Descriptor, ImageRecord, layer_key};
use crate::service::Shared;
use crate::{Error, Result};

/// Blobs that are here, and no others.
struct Kept;

impl BlobSource for Kept {
    fn fetch(&self, layer: &LayerPlan, _: Option<&ChunkSender>) -> Result<bool> {
        Err(Error::NotHere(format!(
            "its blob {} is missing too",
            layer.blob.digest
        )))
    }
    fn report(&self, _: &LayerPlan, _: Phase) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn abort(&self) {}
}

impl Check<'_> {
    /// Layers of images whose snapshot is lost or, as far as contents are read, damaged.
    pub(super) fn lost_layers(&mut self) -> Result<()> {
        let shared = self.shared;
        // Images share layers.
        let (mut missing, mut compared) = (HashSet::new(), HashSet::new());
        for (id, record) in shared.images.list()? {
            let Ok(id) = id.parse::<ImageId>() else {
                continue;
            };
            if shared.drivers.storage(&record.driver).is_err() {
                continue;
            }
            let layers = Layers::open(shared, record.driver.clone())?;
            let Some(install) = anew(shared, &id, &record) else {
                continue;
            };
            let plans = install.plans()?;
            for plan in &plans {
                let key = layer_key(&layers.name, &plan.chain);
                let known = shared.layers.contains(&key)?;
                if (known && layers.contains(&plan.chain)?) || !missing.insert(key.clone()) {
                    continue;
                }
                let detail = match known {
                    true => "its snapshot is missing",
                    false => "nothing is known of it",
                };
                self.found(Flaw::LayerMissing, key, detail, || {
                    install.run(&[], Vec::new()).map(drop)
                });
            }
            if self.options.quick {
                continue;
            }
            for plan in &plans {
                if compared.insert(layer_key(&layers.name, &plan.chain)) {
                    self.compare(&install, &layers, plan)?;
                }
            }
        }
        Ok(())
    }

    /// Unpacks a layer again and compares its snapshot with that.
    fn compare(&mut self, install: &Install<'_>, layers: &Layers, plan: &LayerPlan) -> Result<()> {
        let content = &self.shared.content;
        if !layers.contains(&plan.chain)? || !content.contains(&plan.blob.digest) {
            return Ok(());
        }
        let _pin = self
            .shared
            .pin(&layers.name, std::slice::from_ref(&plan.chain));
        let parent = plan.parent.as_ref().filter(|_| !layers.info.late_parent);
        let (fresh, _) = match install.unpack_layer(layers, plan, parent) {
            Ok(unpacked) => unpacked,
            Err(error) if error.is_disk_full() => return Err(error),
            Err(error) => {
                tracing::warn!(layer = %plan.chain, %error, "a layer cannot be unpacked again");
                return Ok(());
            }
        };
        let Some(there) = layers.tree(&plan.chain)? else {
            return Ok(());
        };
        let difference = compare::first_difference(&there.path, &fresh.target)
            .map_err(|error| Error::io(format!("comparing {}", there.path.display()), error))?;
        drop(there);
        let Some(path) = difference else {
            return Ok(());
        };
        let in_use = self.is_mounted(&layers.name, &plan.chain)?;
        let detail = format!("/{} is not as in its blob", path.display());
        self.found(
            Flaw::LayerDamaged,
            layer_key(&layers.name, &plan.chain),
            detail,
            || {
                if in_use {
                    return Err(Error::Conflict("a running container stands on it".into()));
                }
                fresh.replace(&plan.chain)
            },
        );
        Ok(())
    }

    /// Whether a running container may stand on a layer.
    fn is_mounted(&self, driver: &str, chain: &Digest) -> Result<bool> {
        for used in self.uses.all() {
            if used.driver != driver || !used.running {
                continue;
            }
            let record = self.shared.images.get(used.image.as_str())?;
            if record.is_none_or(|record| record.chain.contains(chain)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Layers that neither an image nor a container needs.
    pub(super) fn unreferenced_layers(&mut self) -> Result<()> {
        let shared = self.shared;
        let mut standing = HashSet::new();
        for (driver, storage) in shared.storage_drivers() {
            let list = storage.list(&Call::new("fsck"), ())?;
            let parents: HashMap<&str, &str> = list
                .iter()
                .filter_map(|info| Some((info.key.as_str(), info.parent.as_deref()?)))
                .collect();
            for info in list.iter().filter(|info| self.uses.is_wanted(&info.key)) {
                let mut at = info.key.as_str();
                while let Some(parent) = parents.get(at) {
                    // A circle is damage, too.
                    if !standing.insert(format!("{driver}/{parent}")) {
                        break;
                    }
                    at = parent;
                }
            }
        }
        let mut collected = false;
        for key in shared.unneeded_layers()? {
            if standing.contains(&key) || shared.pins.is_pinned(&key) {
                continue;
            }
            let detail = "no image and no container has it";
            self.found(Flaw::LayerUnreferenced, key, detail, || {
                once(&mut collected, || shared.collect_layers().map(drop))
            });
        }
        Ok(())
    }

    /// Snapshots that nobody knows, what drivers have left, and containers without a snapshot.
    pub(super) fn snapshots(&mut self) -> Result<()> {
        for (driver, storage) in self.shared.storage_drivers() {
            let mut list = storage.list(&Call::new("fsck"), ())?;
            list.retain(|info| !self.is_known(&driver, &info.key));
            // Children before parents, as they can be removed.
            let parents: HashMap<String, String> = list
                .iter()
                .filter_map(|info| Some((info.key.clone(), info.parent.clone()?)))
                .collect();
            let above = |key: &String| parents.get(key).cloned();
            // A circle is damage, too.
            let depth = |key: &str| {
                let chain = std::iter::successors(parents.get(key).cloned(), above);
                chain.take(parents.len()).count()
            };
            list.sort_by_key(|info| std::cmp::Reverse(depth(&info.key)));
            for info in list {
                let object = format!("{driver}/{}", info.key);
                let detail = format!("{:?}, and nobody's", info.state).to_lowercase();
                self.found(Flaw::SnapshotUnknown, object, detail, || {
                    let key = SnapshotKey { key: info.key };
                    Ok(storage.remove(&Call::new("repair"), key)?)
                });
            }
            let leftovers = match storage.garbage(&Call::new("fsck"), FindGarbage {}) {
                Err(error) if error.code == ErrorCode::NotImplemented => Vec::new(),
                other => other?,
            };
            let mut cleaned = false;
            for path in leftovers {
                let detail = "it belongs to no snapshot";
                self.found(
                    Flaw::SnapshotLeftover,
                    path.display().to_string(),
                    detail,
                    || {
                        once(&mut cleaned, || {
                            Ok(storage.cleanup(&Call::new("repair"), ())?)
                        })
                    },
                );
            }
        }
        self.missing_roots()
    }

    fn missing_roots(&mut self) -> Result<()> {
        let shared = self.shared;
        for used in self.uses.all() {
            let Ok(storage) = shared.drivers.storage(&used.driver) else {
                continue;
            };
            let key = SnapshotKey {
                key: used.key.clone(),
            };
            let lost = match storage.stat(&Call::new("fsck"), key) {
                Ok(_) => false,
                Err(error) => matches!(error.code, ErrorCode::NotFound | ErrorCode::DataLoss),
            };
            if lost && self.uses.is_wanted(&used.key) {
                let SnapshotUse {
                    key, image, view, ..
                } = used;
                let detail = "what the container had written is lost";
                self.found(Flaw::RootMissing, key.as_str(), detail, || {
                    match view {
                        true => shared.prepare_view(&key, &image)?,
                        false => shared.prepare_container(&key, &image, None)?,
                    };
                    Ok(())
                });
            }
        }
        Ok(())
    }

    fn is_known(&self, driver: &str, key: &str) -> bool {
        let layer = format!("{driver}/{key}");
        let shared = self.shared;
        shared.temporary.lock().contains(key)
            || shared.pins.is_pinned(&layer)
            || shared.fresh.lock().contains_key(&layer)
            || self.uses.is_wanted(key)
            // What cannot be read is not garbage.
            || shared.layers.contains(&layer).unwrap_or(true)
    }
}

impl Shared {
    /// The storage drivers that answer; those that are not loaded have nothing to tell.
    pub(super) fn storage_drivers(&self) -> Vec<(String, Arc<dyn Storage>)> {
        let all = self.drivers.list().into_iter();
        all.filter(|driver| driver.kind == Kind::Storage && driver.state != DriverState::Idle)
            .filter_map(|driver| {
                let storage = self.drivers.storage(&driver.name).ok()?;
                Some((driver.name, storage))
            })
            .collect()
    }
}

/// What installs an image once more from what is here; `None` when it is not known what that would be.
fn anew<'a>(shared: &'a Shared, id: &ImageId, record: &ImageRecord) -> Option<Install<'a>> {
    let config = shared.config(id).ok()?;
    let manifest = record.manifest.as_ref();
    let named = manifest.and_then(|digest| shared.manifest_here(digest));
    let named = named.map(|manifest| manifest.layers);
    let blob = |(at, chain): (usize, &Digest)| -> Option<Descriptor> {
        match shared.layers.get(&layer_key(&record.driver, chain)).ok()? {
            Some(layer) => Some(layer.blob),
            None => named.as_ref()?.get(at).cloned(),
        }
    };
    let layers = record
        .chain
        .iter()
        .enumerate()
        .map(blob)
        .collect::<Option<Vec<_>>>()?;
    (config.rootfs.diff_ids.len() == layers.len()).then(|| Install {
        shared,
        id: id.clone(),
        config,
        layers,
        manifest: None,
        blobs: Vec::new(),
        parent: None,
        workers: 1,
        source: &Kept,
    })
}
