//! Showing one image.

use std::collections::BTreeMap;

use gantry_driver_api::storage::SnapshotKey;
use gantry_driver_api::{Call, Mount};
use gantry_model::{Digest, Platform};

use crate::query::split_names;
use crate::record::{ImageRecord, layer_key};
use crate::service::Shared;
use crate::tree::{NodeKind, Tree};
use crate::{
    GraphDriver, HistoryEntry, ImageInspect, ImageUse, InspectQuery, ManifestSummary, Metadata,
    Result, RootFsInspect,
};

impl Shared {
    pub(crate) fn inspect(&self, name: &str, query: &InspectQuery) -> Result<ImageInspect> {
        let id = self.find_for(name, query.platform.as_ref())?;
        let record = self.image(&id)?;
        let config = self.config(&id)?;
        let names = self.names_of(&id)?;
        let (repo_tags, repo_digests) = split_names(&names);
        let target = match names.first() {
            Some(name) => self.lookup(name)?.and_then(|record| record.target),
            None => None,
        };
        let tree = self.tree_of(target.as_ref(), &id)?;
        let manifests = match &tree {
            Some(tree) if query.manifests => Some(self.manifest_summaries(tree, &query.uses)?),
            _ => None,
        };
        Ok(ImageInspect {
            descriptor: tree.map(|tree| serde_json::json!(tree.descriptor)),
            manifests,
            repo_tags,
            repo_digests,
            parent: record
                .parent
                .as_ref()
                .map(Digest::to_string)
                .unwrap_or_default(),
            comment: config.comment,
            created: config.created,
            docker_version: config.docker_version,
            author: config.author,
            config: config.config,
            architecture: config.architecture,
            variant: config.variant,
            os: config.os,
            os_version: config.os_version,
            size: record.size,
            graph_driver: self.image_graph_driver(&record),
            root_fs: RootFsInspect {
                r#type: config.rootfs.kind,
                layers: config.rootfs.diff_ids,
            },
            metadata: Metadata {
                last_tag_time: record.last_tagged,
            },
            id,
        })
    }

    /// The directories of an image's layers, where the driver tells them.
    fn image_graph_driver(&self, record: &ImageRecord) -> GraphDriver {
        let mut data = BTreeMap::new();
        if let Ok(storage) = self.drivers.storage(&record.driver) {
            let mut paths = record.chain.iter().rev().filter_map(|chain| {
                let key = SnapshotKey {
                    key: chain.to_string(),
                };
                let info = storage.stat(&Call::new("inspect"), key).ok()?;
                Some(info.upper?.to_string_lossy().into_owned())
            });
            if let Some(top) = paths.next() {
                let lower: Vec<String> = paths.collect();
                data.insert("UpperDir".into(), top);
                if !lower.is_empty() {
                    data.insert("LowerDir".into(), lower.join(":"));
                }
            }
        }
        GraphDriver {
            data,
            name: shown_driver(&record.driver),
        }
    }

    pub(crate) fn history(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryEntry>> {
        let id = self.find_for(name, platform)?;
        let record = self.image(&id)?;
        let config = self.config(&id)?;
        let mut chain = record.chain.iter();
        let mut entries = Vec::new();
        for step in &config.history {
            let layer = match step.empty_layer {
                true => None,
                false => chain.next(),
            };
            let size = match layer {
                Some(layer) => self.layers.get(&layer_key(&record.driver, layer))?,
                None => None,
            };
            entries.push(HistoryEntry {
                id: "<missing>".into(),
                created: step.created.unwrap_or_default().seconds(),
                created_by: step.created_by.clone(),
                tags: None,
                size: size.map_or(0, |layer| layer.size),
                comment: step.comment.clone(),
            });
        }
        entries.reverse();
        // Steps that are images here, as those that a commit or a build stands on.
        let mut step = Some(id);
        for entry in &mut entries {
            let Some(id) = step else {
                break;
            };
            let (tags, _) = split_names(&self.names_of(&id)?);
            entry.tags = (!tags.is_empty()).then_some(tags);
            entry.id = id.to_string();
            let record = self.images.get(id.as_str())?;
            step = record.and_then(|record| record.parent);
        }
        Ok(entries)
    }

    /// The manifests of a document, with how much of each is here.
    pub(crate) fn manifest_summaries(
        &self,
        tree: &Tree,
        uses: &[ImageUse],
    ) -> Result<Vec<ManifestSummary>> {
        let summary = |node: &crate::tree::Node| {
            let sizes = node
                .blobs()
                .filter_map(|(digest, _)| self.content.size(digest));
            let content: u64 = sizes.sum();
            let image = node.image().filter(|_| node.kind == NodeKind::Image);
            let record = match image {
                Some(id) => self.images.get(id.as_str())?,
                None => None,
            };
            let unpacked = record.map_or(0, |record| record.size);
            let mut platform = node.described["platform"].clone();
            if let Some(id) = image.filter(|id| platform.is_null() && self.content.contains(id)) {
                platform = serde_json::json!(self.platform_of(id)?);
            }
            let used = |user: &&ImageUse| Some(&user.image) == image;
            let users = uses.iter().filter(used).map(|user| user.container.clone());
            Ok(ManifestSummary {
                id: node.entry.digest.clone(),
                descriptor: node.described.clone(),
                available: node.available,
                content,
                unpacked,
                kind: node.kind.clone(),
                platform,
                containers: users.collect(),
            })
        };
        tree.nodes.iter().map(summary).collect()
    }
}

/// `overlayfs` is what Docker calls `overlay2`, `native` its `vfs`, and scripts compare.
pub(crate) fn shown_driver(name: &str) -> String {
    match name {
        "overlayfs" => "overlay2".into(),
        "native" => "vfs".into(),
        other => other.into(),
    }
}

/// What a container shows as its `GraphDriver` for a plan.
pub(crate) fn graph_driver(driver: &str, mounts: &[Mount]) -> GraphDriver {
    let mut data = BTreeMap::new();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    if let [
        Mount::Overlay {
            lower, upper, work, ..
        },
    ] = mounts
    {
        let lower: Vec<String> = lower.iter().map(|path| text(path)).collect();
        data.insert("LowerDir".into(), lower.join(":"));
        if let Some(upper) = upper {
            data.insert("UpperDir".into(), text(upper));
        }
        if let Some(work) = work {
            data.insert("WorkDir".into(), text(work));
        }
    }
    GraphDriver {
        data,
        name: shown_driver(driver),
    }
}
