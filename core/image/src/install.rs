//! Installing an image: its layers become snapshots, then its record is committed.
//!
//! Workers fetch and unpack layers in parallel, each as one stream from the network to the directory where the storage
//! driver takes a layer's parent late; commits follow in order from the bottom. A storage driver that must know the
//! parent first gets its layers one after the other, from blobs that are fetched in parallel meanwhile.

mod counted;
mod record;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use gantry_driver_api::Kind;
use gantry_model::{Digest, ImageId, Reference, Timestamp};

use crate::chunks::{ChunkSender, chunks};
use crate::config::{ImageConfig, chain_ids};
use crate::layers::{Active, Layers};
use crate::record::{Descriptor, layer_key};
use crate::service::Shared;
use crate::turns::Turn;
use crate::unpack::{Unpacked, unpack};
use crate::{Error, Result};
use counted::Counted;

/// One layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlan {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) chain: Digest,
    pub(crate) parent: Option<Digest>,
}

impl LayerPlan {
    /// The digest of a blob that is the plain archive itself: then it need not be taken twice.
    fn plain(&self) -> Option<&Digest> {
        (self.blob.digest == self.diff_id).then_some(&self.diff_id)
    }
}

/// Where a layer has got to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    /// Its snapshot is there.
    Exists,
    Queued,
    /// More layers come before it than are worked on at once.
    Waiting,
    Unpacking {
        done: u64,
        of: u64,
    },
    Complete,
}

/// Where the layers' blobs come from, and who is told of progress.
pub(crate) trait BlobSource: Sync {
    /// Brings the blob into the content store and its bytes to `tee`; see [`crate::pull::fetch::Fetcher::fetch`].
    fn fetch(&self, layer: &LayerPlan, tee: Option<&ChunkSender>) -> Result<bool>;
    fn report(&self, layer: &LayerPlan, phase: Phase);
    fn cancelled(&self) -> bool;
    /// The operation has failed: fetches under way should end.
    fn abort(&self);
}

/// An image about to be installed. Its blobs are leased.
pub(crate) struct Install<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) id: ImageId,
    pub(crate) config: ImageConfig,
    /// Bottom first, one for each diff ID.
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) manifest: Option<Digest>,
    /// Everything that belongs to the image in the content store.
    pub(crate) blobs: Vec<Digest>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) workers: usize,
    pub(crate) source: &'a dyn BlobSource,
}

/// How large an unpacked layer is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes of its files.
    files: u64,
    /// Bytes of its uncompressed archive.
    plain: u64,
}

/// How far a worker has brought a layer.
enum Worked<'a> {
    /// Another operation has made its snapshot meanwhile.
    Exists,
    Fetched,
    /// Unpacked; whoever else needs it waits until it is committed. Turns are only waited for by those that hold none
    /// of a lower layer, so that nobody waits in a circle.
    Unpacked(Active<'a>, Sizes, Turn<'a>),
}

impl Install<'_> {
    /// Installs the image under `names` (each with what it stood for where it came from) and returns whether any name
    /// means another image than before.
    pub(crate) fn run(
        &self,
        names: &[(Reference, Option<Digest>)],
        events: Vec<(Timestamp, serde_json::Value)>,
    ) -> Result<bool> {
        let driver = match self.shared.images.get(self.id.as_str())? {
            Some(record) if self.shared.drivers.storage(&record.driver).is_ok() => record.driver,
            _ => self.shared.drivers.default_name(Kind::Storage),
        };
        self.run_with(driver, names, events)
    }

    /// As [`Self::run`], with this storage driver, wherever the image may be.
    pub(crate) fn run_with(
        &self,
        driver: String,
        names: &[(Reference, Option<Digest>)],
        events: Vec<(Timestamp, serde_json::Value)>,
    ) -> Result<bool> {
        let plans = self.plans()?;
        let chain: Vec<Digest> = plans.iter().map(|plan| plan.chain.clone()).collect();
        let existing = self.shared.images.get(self.id.as_str())?;
        let layers = Layers::open(self.shared, driver)?;
        let pin = self.shared.pin(&layers.name, &chain);
        let installed = self
            .install_layers(&layers, &plans)
            .and_then(|()| self.record(&layers.name, &plans, existing, names, events));
        drop(pin);
        // Layers that are there already are of no use without the others: their blobs are what the next attempt needs.
        if installed.is_err()
            && let Err(error) = self.shared.collect_layers()
        {
            tracing::warn!(%error, "layers of a failed operation are left behind");
        }
        installed
    }

    pub(crate) fn plans(&self) -> Result<Vec<LayerPlan>> {
        let diff_ids = &self.config.rootfs.diff_ids;
        if diff_ids.len() != self.layers.len() {
            return Err(Error::Malformed(format!(
                "invalid image: {} layers, but {} diff IDs in its configuration",
                self.layers.len(),
                diff_ids.len()
            )));
        }
        let chain = chain_ids(diff_ids);
        Ok(self
            .layers
            .iter()
            .enumerate()
            .map(|(at, blob)| LayerPlan {
                blob: blob.clone(),
                diff_id: diff_ids[at].clone(),
                chain: chain[at].clone(),
                parent: at.checked_sub(1).map(|below| chain[below].clone()),
            })
            .collect())
    }

    /// Makes the snapshots that are missing.
    fn install_layers(&self, layers: &Layers, plans: &[LayerPlan]) -> Result<()> {
        let mut missing = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            if self.exists(layers, plan)? {
                self.restore_blob(layers, plan)?;
                self.source.report(plan, Phase::Exists);
            } else {
                self.source.report(plan, Phase::Queued);
                missing.push(at);
            }
        }
        for at in missing.iter().skip(self.workers) {
            self.source.report(&plans[*at], Phase::Waiting);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let (sender, results) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.workers.min(missing.len()) {
                let (next, missing, sender) = (&next, &missing, sender.clone());
                std::thread::Builder::new()
                    .name("layer".into())
                    .spawn_scoped(scope, move || {
                        while let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let worked = self.work(layers, &plans[*at]);
                            let failed = worked.is_err();
                            if sender.send((*at, worked)).is_err() || failed {
                                break;
                            }
                        }
                    })
                    .map_err(|error| Error::io("starting a thread", error))?;
            }
            drop(sender);
            let result = self.commit_in_order(layers, plans, &missing, &results);
            if result.is_err() {
                self.source.abort();
                next.store(missing.len(), Ordering::Relaxed);
            }
            drop(results);
            result
        })
    }

    /// Whether a layer's snapshot is there, and what is known of it.
    fn exists(&self, layers: &Layers, plan: &LayerPlan) -> Result<bool> {
        let key = layer_key(&layers.name, &plan.chain);
        let known =
            self.shared.layers.contains(&key)? || self.shared.fresh.lock().contains_key(&key);
        Ok(known && layers.contains(&plan.chain)?)
    }

    /// A layer that has lost its blob gets the one that comes with this image.
    fn restore_blob(&self, layers: &Layers, plan: &LayerPlan) -> Result<()> {
        let content = &self.shared.content;
        let record = self
            .shared
            .layers
            .get(&layer_key(&layers.name, &plan.chain))?;
        let lost = record.is_some_and(|record| !content.contains(&record.blob.digest));
        if lost && !content.contains(&plan.blob.digest) {
            self.source.fetch(plan, None)?;
        }
        Ok(())
    }

    /// A worker's part of one layer.
    fn work<'l>(&'l self, layers: &'l Layers, plan: &LayerPlan) -> Result<Worked<'l>> {
        if self.source.cancelled() {
            return Err(Error::Cancelled);
        }
        if layers.info.late_parent {
            return self.unpack_once(layers, plan, None);
        }
        if !self.shared.content.contains(&plan.blob.digest) {
            self.source.fetch(plan, None)?;
        }
        Ok(Worked::Fetched)
    }

    /// Unpacks a layer, unless another operation has done so when it is our turn.
    fn unpack_once<'l>(
        &'l self,
        layers: &'l Layers,
        plan: &LayerPlan,
        parent: Option<&Digest>,
    ) -> Result<Worked<'l>> {
        let key = layer_key(&layers.name, &plan.chain);
        let turn = self.shared.unpacks.lock(&key, || self.source.cancelled())?;
        if self.exists(layers, plan)? {
            return Ok(Worked::Exists);
        }
        let (active, sizes) = self.unpack_layer(layers, plan, parent)?;
        Ok(Worked::Unpacked(active, sizes, turn))
    }

    /// Unpacks a layer, fetching it on the way if it is not there.
    pub(crate) fn unpack_layer<'l>(
        &self,
        layers: &'l Layers,
        plan: &LayerPlan,
        parent: Option<&Digest>,
    ) -> Result<(Active<'l>, Sizes)> {
        if !self.shared.content.contains(&plan.blob.digest) {
            let active = layers.begin(parent)?;
            if let Some(size) = self.stream(layers, plan, &active)? {
                return Ok((active, size));
            }
        }
        let active = layers.begin(parent)?;
        let file = self.shared.content.open_blob(&plan.blob.digest)?;
        let counted = Counted {
            inner: file,
            done: 0,
            told: Instant::now(),
            report: |done| {
                self.source.report(
                    plan,
                    Phase::Unpacking {
                        done,
                        of: plan.blob.size,
                    },
                );
            },
            cancelled: || self.source.cancelled(),
        };
        let unpacked = unpack(counted, &active.target, layers.style(), plan.plain());
        let size = self.check(plan, unpacked)?;
        Ok((active, size))
    }

    /// Fetches and unpacks at once; `None` when the blob turned out to be there.
    fn stream(
        &self,
        layers: &Layers,
        plan: &LayerPlan,
        active: &Active<'_>,
    ) -> Result<Option<Sizes>> {
        let (sender, reader) = chunks();
        std::thread::scope(|scope| {
            let unpacker = std::thread::Builder::new()
                .name("unpack".into())
                .spawn_scoped(scope, || {
                    unpack(reader, &active.target, layers.style(), plan.plain())
                })
                .map_err(|error| Error::io("starting a thread", error))?;
            let fetched = self.source.fetch(plan, Some(&sender));
            if fetched.is_err() {
                // So that the unpacker does not take what came for the whole.
                sender.fail(io::ErrorKind::ConnectionAborted.into());
            }
            drop(sender);
            let unpacked = unpacker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the unpacker panicked")));
            if !fetched? {
                return Ok(None);
            }
            let of = plan.blob.size;
            self.source.report(plan, Phase::Unpacking { done: of, of });
            self.check(plan, unpacked).map(Some)
        })
    }

    fn check(&self, plan: &LayerPlan, unpacked: io::Result<Unpacked>) -> Result<Sizes> {
        let unpacked = unpacked.map_err(|error| {
            if self.source.cancelled() {
                return Error::Cancelled;
            }
            match error.kind() {
                io::ErrorKind::StorageFull => Error::NoSpace {
                    doing: "failed to register layer: write".into(),
                },
                _ => Error::Layer(error.to_string()),
            }
        })?;
        if unpacked.plain.diff_id != plan.diff_id {
            return Err(Error::Layer(format!(
                "layer {} unpacks to {}, not to the {} of the image's configuration",
                plan.blob.digest, unpacked.plain.diff_id, plan.diff_id
            )));
        }
        Ok(Sizes {
            files: unpacked.extracted.bytes,
            plain: unpacked.plain.length,
        })
    }

    fn commit_in_order<'l>(
        &'l self,
        layers: &'l Layers,
        plans: &[LayerPlan],
        missing: &[usize],
        results: &mpsc::Receiver<(usize, Result<Worked<'l>>)>,
    ) -> Result<()> {
        let mut early: HashMap<usize, Worked<'l>> = HashMap::new();
        for at in missing {
            let mut worked = loop {
                if let Some(worked) = early.remove(at) {
                    break worked;
                }
                let (index, worked) = results
                    .recv()
                    .map_err(|_| Error::Layer("a worker has panicked".into()))?;
                early.insert(index, worked?);
            };
            let plan = &plans[*at];
            if matches!(worked, Worked::Fetched) {
                worked = self.unpack_once(layers, plan, plan.parent.as_ref())?;
            }
            if let Worked::Unpacked(active, sizes, _turn) = worked {
                let parent = plan.parent.as_ref().filter(|_| layers.info.late_parent);
                active.commit(&plan.chain, parent)?;
                let key = layer_key(&layers.name, &plan.chain);
                self.shared.fresh.lock().insert(key, sizes);
            }
            self.source.report(plan, Phase::Complete);
        }
        Ok(())
    }
}
