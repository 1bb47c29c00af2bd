//! The end of an installation: what is durable gets its records.

use gantry_model::{Digest, Reference, Timestamp};
use gantry_store::Batch;

use super::{Install, LayerPlan};
use crate::Result;
use crate::record::{Descriptor, ImageRecord, LayerRecord, ReferenceRecord, layer_key};

impl Install<'_> {
    /// Commits everything that tells of the image, after its blobs have become durable.
    pub(super) fn record(
        &self,
        driver: &str,
        plans: &[LayerPlan],
        existing: Option<ImageRecord>,
        names: &[(Reference, Option<Digest>)],
        events: Vec<(Timestamp, serde_json::Value)>,
    ) -> Result<bool> {
        let shared = self.shared;
        shared.content.sync()?;
        let mut batch = Batch::new();
        let mut total = 0;
        let mut fresh = Vec::new();
        for plan in plans {
            let key = layer_key(driver, &plan.chain);
            let Some(sizes) = shared.fresh.lock().get(&key).copied() else {
                let Some(mut record) = shared.layers.get(&key)? else {
                    continue;
                };
                total += record.size;
                let held = |blob: &Descriptor| shared.content.contains(&blob.digest);
                if !held(&record.blob) && held(&plan.blob) {
                    record.blob = plan.blob.clone();
                    batch.put(&shared.layers, &key, &record)?;
                }
                continue;
            };
            total += sizes.files;
            let record = LayerRecord {
                diff_id: plan.diff_id.clone(),
                blob: plan.blob.clone(),
                size: sizes.files,
                plain_size: sizes.plain,
            };
            batch.put(&shared.layers, &key, &record)?;
            fresh.push(key);
        }
        let _guard = shared.naming.lock();
        let mut changed = existing.is_none();
        let mut record = existing.unwrap_or_else(|| ImageRecord {
            driver: driver.into(),
            created: self.config.created,
            size: total,
            chain: plans.iter().map(|plan| plan.chain.clone()).collect(),
            labels: self.config.config.labels.clone(),
            parent: self.parent.clone(),
            last_tagged: Timestamp::zero(),
            manifest: self.manifest.clone(),
            blobs: Vec::new(),
        });
        record.driver = driver.into();
        record.manifest = self.manifest.clone().or(record.manifest);
        // Of a layer that was there before, the blob that is kept is the one that its record names.
        let held = |digest: &&Digest| shared.content.contains(digest);
        for digest in self.blobs.iter().chain([&self.id]).filter(held) {
            if !record.blobs.contains(digest) {
                record.blobs.push(digest.clone());
            }
        }
        for (name, target) in names {
            let key = name.to_string();
            let before = shared.references.get(&key)?;
            if before.as_ref().map(|b| &b.image) != Some(&self.id) {
                changed = true;
                record.last_tagged = Timestamp::now();
            }
            let reference = ReferenceRecord {
                image: self.id.clone(),
                target: target.clone(),
            };
            batch.put(&shared.references, &key, &reference)?;
        }
        batch.put(&shared.images, self.id.as_str(), &record)?;
        for (time, event) in events {
            batch.event(time, event);
        }
        shared.store.commit(batch).wait()?;
        let mut waiting = shared.fresh.lock();
        for key in fresh {
            waiting.remove(&key);
        }
        Ok(changed)
    }
}
