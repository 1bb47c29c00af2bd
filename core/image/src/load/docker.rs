//! The docker-archive.

use gantry_model::Reference;
use serde::Deserialize;

use super::{Loader, Planned};
use crate::config::MAX_LAYERS;
use crate::manifest::OCI_LAYER_TAR;
use crate::record::Descriptor;
use crate::{Error, Result};

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchiveImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Loader<'_> {
    /// Adds the images of `manifest.json`; to those that are planned already only their names.
    pub(super) fn docker_archive(&self, planned: &mut Vec<Planned>) -> Result<()> {
        let images: Option<Vec<ArchiveImage>> = self.read("manifest.json")?;
        let images = images.ok_or_else(|| {
            Error::Malformed("invalid manifest, manifest cannot be null (but can be [])".into())
        })?;
        for image in images {
            let names = image.repo_tags.unwrap_or_default();
            let names: Vec<Reference> = names
                .iter()
                .map(|name| Ok(Reference::parse(name)?.with_default_tag()))
                .collect::<Result<_>>()?;
            let (id, _) = self.files.must(&image.config)?;
            if let Some(known) = planned.iter_mut().find(|known| known.id == *id) {
                for name in names {
                    if !known.names.iter().any(|(there, _)| *there == name) {
                        known.names.push((name, known.manifest.clone()));
                    }
                }
                continue;
            }
            let config = self.config(id)?;
            if !self.wanted(&config.platform()) {
                continue;
            }
            let layers = image.layers.unwrap_or_default();
            let (expected, actual) = (layers.len(), config.rootfs.diff_ids.len());
            if expected > MAX_LAYERS {
                return Err(Error::Malformed("max depth exceeded".into()));
            }
            if expected != actual {
                return Err(Error::Malformed(format!(
                    "invalid manifest, layers length mismatch: expected {expected}, got {actual}"
                )));
            }
            let layers = layers.iter().map(|path| self.layer(path));
            planned.push(Planned {
                layers: layers.collect::<Result<_>>()?,
                id: id.clone(),
                config,
                manifest: None,
                more: Vec::new(),
                names: names.into_iter().map(|name| (name, None)).collect(),
            });
        }
        Ok(())
    }

    fn layer(&self, path: &str) -> Result<Descriptor> {
        let (digest, size) = self.files.must(path)?;
        Ok(Descriptor {
            media_type: OCI_LAYER_TAR.into(),
            digest: digest.clone(),
            size: *size,
        })
    }
}
