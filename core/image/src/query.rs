//! Finding, listing and showing images.

use std::collections::{BTreeMap, HashMap};

use gantry_driver_api::storage::SnapshotKey;
use gantry_driver_api::{Call, Mount};
use gantry_model::{Digest, ImageId, Reference, Timestamp};

use crate::config::MAX_CONFIG;
use crate::filter::Filters;
use crate::record::{ImageRecord, ReferenceRecord, layer_key};
use crate::service::Shared;
use crate::{
    Error, GraphDriver, HistoryEntry, Image, ImageConfig, ImageInspect, ImageSummary, ListQuery,
    Metadata, Result, RootFsInspect,
};

/// Names of images, by image.
pub(crate) type Names = HashMap<ImageId, Vec<Reference>>;

impl Shared {
    /// The image that `name` means: an identifier, a reference, or the beginning of an identifier, in this order.
    pub(crate) fn find(&self, name: &str) -> Result<ImageId> {
        if let Some(id) = full_id(name) {
            return match self.images.contains(id.as_str())? {
                true => Ok(id),
                false => Err(Error::NoSuchImage(name.into())),
            };
        }
        let reference = Reference::parse(name)?;
        if let Some(record) = self.lookup(&reference)? {
            return Ok(record.image);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = None;
            let mut ambiguous = false;
            self.images
                .for_each(&format!("sha256:{prefix}"), |key, _| {
                    ambiguous = found.is_some();
                    found = Some(key.to_owned());
                    !ambiguous
                })?;
            if let Some(id) = found.filter(|_| !ambiguous) {
                return id.parse().map_err(|_| Error::NoSuchImage(name.into()));
            }
        }
        Err(Error::no_such(reference))
    }

    /// The record of a reference; a digest beside a tag decides alone.
    pub(crate) fn lookup(&self, reference: &Reference) -> Result<Option<ReferenceRecord>> {
        let name = crate::pull::canonical(reference).with_default_tag();
        if let Some(record) = self.references.get(&name.to_string())? {
            return Ok(Some(record));
        }
        // `name@<image identifier>` is understood too.
        if let Some(digest) = reference.digest() {
            let names = self.names_of(digest)?;
            if names.iter().any(|n| n.name() == reference.name()) {
                return Ok(Some(ReferenceRecord {
                    image: digest.clone(),
                    target: None,
                }));
            }
        }
        Ok(None)
    }

    pub(crate) fn config(&self, id: &ImageId) -> Result<ImageConfig> {
        ImageConfig::parse(&self.content.read(id, MAX_CONFIG)?)
    }

    pub(crate) fn get(&self, name: &str) -> Result<Image> {
        let id = self.find(name)?;
        let record = self.image(&id)?;
        let mut tags = self.names_of(&id)?;
        tags.retain(|name| name.digest().is_none());
        Ok(Image {
            config: self.config(&id)?,
            tags,
            driver: record.driver,
            id,
        })
    }

    pub(crate) fn all_names(&self) -> Result<Names> {
        let mut names = Names::new();
        self.references.for_each("", |name, record| {
            if let Ok(name) = Reference::parse(name) {
                names.entry(record.image).or_default().push(name);
            }
            true
        })?;
        Ok(names)
    }

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
        let mut list = Vec::new();
        for (id, record) in &records {
            let all = names.get(id).map_or(&[][..], Vec::as_slice);
            if !query.all && all.is_empty() && is_intermediate(id, &records) {
                continue;
            }
            let Some(shown) = filters.accept(record, all) else {
                continue;
            };
            let mut summary = summary(id, record, &shown);
            if let Some(shared) = &shared {
                summary.shared_size = shared.get(id).copied().unwrap_or(0);
            }
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

    pub(crate) fn inspect(&self, name: &str) -> Result<ImageInspect> {
        let id = self.find(name)?;
        let record = self.image(&id)?;
        let config = self.config(&id)?;
        let (repo_tags, repo_digests) = split_names(&self.names_of(&id)?);
        Ok(ImageInspect {
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

    pub(crate) fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let id = self.find(name)?;
        let record = self.image(&id)?;
        let config = self.config(&id)?;
        let mut chain = record.chain.iter();
        let mut entries = Vec::new();
        for step in &config.history {
            let size = match chain.next() {
                _ if step.empty_layer => None,
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
        if let Some(newest) = entries.first_mut() {
            newest.id = id.to_string();
            let (tags, _) = split_names(&self.names_of(&id)?);
            newest.tags = (!tags.is_empty()).then_some(tags);
        }
        Ok(entries)
    }
}

/// `overlayfs` is what Docker calls `overlay2`, and scripts compare.
pub(crate) fn shown_driver(name: &str) -> String {
    match name {
        "overlayfs" => "overlay2".into(),
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

fn full_id(name: &str) -> Option<ImageId> {
    let id = if name.starts_with("sha256:") {
        name.parse()
    } else {
        format!("sha256:{name}").parse()
    };
    id.ok()
}

/// Whether the image is only a step of another.
fn is_intermediate(id: &ImageId, records: &[(ImageId, ImageRecord)]) -> bool {
    records
        .iter()
        .any(|(_, record)| record.parent.as_ref() == Some(id))
}

/// Names as clients see them: with tags, with digests.
pub(crate) fn split_names(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let familiar = |digest: bool| {
        let mut list: Vec<String> = names
            .iter()
            .filter(|name| name.digest().is_some() == digest)
            .map(Reference::familiar)
            .collect();
        list.sort();
        list
    };
    (familiar(false), familiar(true))
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
    }
}
