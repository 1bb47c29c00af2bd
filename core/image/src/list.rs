//! Listing images, with what they share and what belongs to them.

use std::collections::{HashMap, HashSet};

use gantry_model::{Digest, ImageId, Reference, Timestamp};

use crate::filter::Filters;
use crate::query::split_names;
use crate::record::{ImageRecord, layer_key};
use crate::service::Shared;
use crate::{ImageSummary, ListQuery, Result};

impl Shared {
    pub(crate) fn list(&self, query: &ListQuery) -> Result<Vec<ImageSummary>> {
        let filters = Filters::parse(self, &query.filters)?;
        let names = self.all_names()?;
        let records: Vec<(ImageId, ImageRecord)> = self
            .images
            .list()?
            .into_iter()
            .filter_map(|(id, record)| Some((id.parse().ok()?, record)))
            .collect();
        let shared = query
            .shared_size
            .then(|| self.shared_layers(&records))
            .transpose()?;
        let parents: HashSet<&ImageId> = records
            .iter()
            .filter_map(|(_, r)| r.parent.as_ref())
            .collect();
        let mut list = Vec::new();
        for (id, record) in &records {
            let all = names.get(id).map_or(&[][..], Vec::as_slice);
            // Only a step of another.
            if !query.all && all.is_empty() && parents.contains(id) {
                continue;
            }
            let Some(shown) = filters.accept(record, all) else {
                continue;
            };
            let mut summary = summary(id, record, &shown);
            if let Some(shared) = &shared {
                summary.shared_size = shared.get(id).copied().unwrap_or(0);
            }
            if let Some(uses) = &query.uses {
                let count = uses.iter().filter(|user| user.image == *id).count();
                summary.containers = i64::try_from(count).unwrap_or(i64::MAX);
            }
            self.describe(&mut summary, record, query)?;
            list.push((record.created.unwrap_or_default(), summary));
        }
        list.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.id.cmp(&y.id)));
        Ok(list.into_iter().map(|(_, summary)| summary).collect())
    }

    /// Bytes that each image shares with others.
    fn shared_layers(&self, records: &[(ImageId, ImageRecord)]) -> Result<HashMap<ImageId, i64>> {
        let mut users: HashMap<String, usize> = HashMap::new();
        for (_, record) in records {
            for chain in &record.chain {
                *users.entry(layer_key(&record.driver, chain)).or_default() += 1;
            }
        }
        let sizes: HashMap<String, u64> = self
            .layers
            .list()?
            .into_iter()
            .map(|(key, layer)| (key, layer.size))
            .collect();
        Ok(records
            .iter()
            .map(|(id, record)| {
                let shared: u64 = record
                    .chain
                    .iter()
                    .map(|chain| layer_key(&record.driver, chain))
                    .filter(|key| users.get(key).is_some_and(|count| *count > 1))
                    .map(|key| sizes.get(&key).copied().unwrap_or(0))
                    .sum();
                (id.clone(), i64::try_from(shared).unwrap_or(i64::MAX))
            })
            .collect())
    }

    /// Adds the document that the image came as, and on request what is in it.
    fn describe(
        &self,
        summary: &mut ImageSummary,
        record: &ImageRecord,
        query: &ListQuery,
    ) -> Result<()> {
        let mut target = None;
        for name in summary.repo_tags.iter().chain(&summary.repo_digests) {
            if let Ok(name) = Reference::parse(name)
                && let Some(found) = self.lookup(&name)?.and_then(|record| record.target)
            {
                target = Some(found);
                break;
            }
        }
        if !query.manifests {
            let target = target.or_else(|| record.manifest.clone());
            let descriptor = target.and_then(|target| self.described(&target));
            summary.descriptor = descriptor.map(|found| serde_json::json!(found));
            return Ok(());
        }
        if let Some(tree) = self.tree_of(target.as_ref(), &summary.id)? {
            let uses = query.uses.as_deref().unwrap_or_default();
            summary.manifests = Some(self.manifest_summaries(&tree, uses)?);
            summary.descriptor = Some(serde_json::json!(tree.descriptor));
        }
        Ok(())
    }
}

fn summary(id: &ImageId, record: &ImageRecord, names: &[Reference]) -> ImageSummary {
    let (repo_tags, repo_digests) = split_names(names);
    ImageSummary {
        id: id.clone(),
        parent_id: record
            .parent
            .as_ref()
            .map(Digest::to_string)
            .unwrap_or_default(),
        repo_tags,
        repo_digests,
        created: record.created.unwrap_or_else(Timestamp::zero).seconds(),
        size: record.size,
        shared_size: -1,
        labels: record.labels.clone(),
        containers: -1,
        descriptor: None,
        manifests: None,
    }
}
