//! Load: images from an archive, in one pass over a stream.
//!
//! Two forms are read, plain or compressed: the docker-archive (`manifest.json` names configurations and layers by the
//! archive's own paths, in the old form with links between them) and the OCI layout (`index.json`, `blobs/`). Every file
//! goes into the content store under its digest as it passes; what it is, the documents at the end say.

mod files;

use std::collections::BTreeMap;
use std::io::Read;

use gantry_model::{Digest, Platform, Reference};
use serde::Deserialize;

use crate::config::{ImageConfig, MAX_CONFIG, MAX_LAYERS};
use crate::install::{BlobSource, Install, LayerPlan, Phase};
use crate::manifest::{self, Document, IndexEntry, MAX_MANIFEST, Manifest, OCI_LAYER_TAR};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::unpack::ChunkSender;
use crate::{Error, LoadOptions, Loaded, Message, Progress, Result};
use files::{Files, take_in};

/// Annotations that name an image of an OCI layout: containerd's full name, then the specification's.
const NAME_ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

pub(crate) fn load(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let loaded = {
        let _hold = shared.content.hold();
        take_in(shared, input, progress).and_then(|files| {
            Loader {
                shared,
                files,
                options,
                progress,
            }
            .images()
        })
    };
    // Files of the archive that belong to no image.
    shared.collect_blobs()?;
    let loaded = loaded?;
    for image in &loaded {
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        if names.is_empty() {
            progress.report(Message::stream(format!("Loaded image ID: {}\n", image.id)));
        }
        for name in names {
            progress.report(Message::stream(format!("Loaded image: {name}\n")));
        }
    }
    Ok(loaded)
}

struct Loader<'a> {
    shared: &'a Shared,
    files: Files,
    options: &'a LoadOptions,
    progress: &'a dyn Progress,
}

impl Loader<'_> {
    fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (digest, _) = self.files.must(path)?;
        let bytes = self.shared.content.read(digest, MAX_MANIFEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed(format!("invalid {path}: {error}")))
    }

    fn images(&self) -> Result<Vec<Loaded>> {
        if self.files.find("manifest.json").is_some() {
            return self.docker_archive();
        }
        if self.files.find("index.json").is_some() {
            return self.oci_layout();
        }
        Err(Error::Malformed(
            "unrecognized image format: neither manifest.json nor index.json found".into(),
        ))
    }

    fn docker_archive(&self) -> Result<Vec<Loaded>> {
        let images: Vec<ArchiveImage> = self.read("manifest.json")?;
        let mut loaded = Vec::new();
        for image in images {
            let (id, _) = self.files.must(&image.config)?;
            let config = self.config(id)?;
            if !self.wanted(&config.platform()) {
                continue;
            }
            if image.layers.len() > MAX_LAYERS {
                return Err(Error::Malformed("max depth exceeded".into()));
            }
            let layers = image
                .layers
                .iter()
                .map(|path| {
                    let (digest, size) = self.files.must(path)?;
                    Ok(Descriptor {
                        media_type: OCI_LAYER_TAR.into(),
                        digest: digest.clone(),
                        size: *size,
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            let names = image
                .repo_tags
                .unwrap_or_default()
                .iter()
                .map(|name| Ok(Reference::parse(name)?.with_default_tag()))
                .collect::<Result<Vec<_>>>()?;
            loaded.push(self.install(id.clone(), config, layers, None, names)?);
        }
        Ok(loaded)
    }

    fn oci_layout(&self) -> Result<Vec<Loaded>> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<IndexEntry>,
        }
        let index: Index = self.read("index.json")?;
        // One image may stand under several names, one entry each.
        let mut images: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for entry in index.manifests {
            let name = NAME_ANNOTATIONS
                .iter()
                .find_map(|key| Reference::parse(entry.annotations.get(*key)?).ok())
                .map(Reference::with_default_tag);
            for digest in self.images_of(&entry)? {
                images.entry(digest).or_default().extend(name.clone());
            }
        }
        let mut loaded = Vec::new();
        for (digest, names) in images {
            let manifest = self.manifest(&digest)?;
            let id = manifest.config.digest.clone();
            let config = self.config(&id)?;
            loaded.push(self.install(id, config, manifest.layers, Some(digest), names)?);
        }
        if loaded.is_empty() {
            let platform = self.options.platform.clone();
            return Err(Error::NoPlatform(
                platform.unwrap_or_else(Platform::host).to_string(),
            ));
        }
        Ok(loaded)
    }

    /// The manifests of an entry: itself, or what suits the platform of the index that it is.
    fn images_of(&self, entry: &IndexEntry) -> Result<Vec<Digest>> {
        let bytes = self.blob(&entry.digest, MAX_MANIFEST)?;
        match manifest::parse(&bytes, &entry.media_type)? {
            Document::Manifest(manifest) => {
                let config = self.config(&manifest.config.digest)?;
                Ok(if self.wanted(&config.platform()) {
                    vec![entry.digest.clone()]
                } else {
                    Vec::new()
                })
            }
            Document::Index(entries) => {
                let wanted = self.options.platform.clone().unwrap_or_else(Platform::host);
                Ok(match manifest::choose(&entries, &wanted) {
                    Ok(entry) => vec![entry.digest.clone()],
                    Err(_) => Vec::new(),
                })
            }
        }
    }

    fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        match manifest::parse(&self.blob(digest, MAX_MANIFEST)?, "")? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::Malformed(
                "an index within an index is not supported".into(),
            )),
        }
    }

    /// A document of the archive; the content store has verified it against its digest.
    fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        self.shared
            .content
            .read(digest, limit)
            .map_err(|error| match error {
                gantry_content::Error::NotFound(digest) => {
                    Error::Malformed(format!("invalid archive: blob {digest} is missing"))
                }
                other => other.into(),
            })
    }

    fn config(&self, digest: &Digest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.blob(digest, MAX_CONFIG)?)
    }

    fn wanted(&self, platform: &Platform) -> bool {
        self.options.platform.as_ref().is_none_or(|wanted| {
            manifest::acceptable(wanted).contains(&platform.clone().normalized())
        })
    }

    fn install(
        &self,
        id: Digest,
        config: ImageConfig,
        layers: Vec<Descriptor>,
        manifest: Option<Digest>,
        names: Vec<Reference>,
    ) -> Result<Loaded> {
        let mut blobs: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        blobs.extend(manifest.clone());
        let labels = config.config.labels.clone();
        let install = Install {
            shared: self.shared,
            id: id.clone(),
            config,
            layers,
            manifest,
            blobs,
            parent: None,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            source: &Local {
                progress: self.progress,
                quiet: self.options.quiet,
            },
        };
        let _turn = self
            .shared
            .pulls
            .lock(id.as_str(), || self.progress.cancelled())?;
        let targets: Vec<_> = names.iter().map(|name| (name.clone(), None)).collect();
        let shown = names
            .first()
            .map_or_else(|| id.to_string(), Reference::familiar);
        let event = self
            .shared
            .image_event("load", id.to_string(), shown, labels);
        install.run(&targets, vec![event])?;
        Ok(Loaded { id, names })
    }
}

/// Layers that are in the content store.
pub(crate) struct Local<'a> {
    pub(crate) progress: &'a dyn Progress,
    pub(crate) quiet: bool,
}

impl BlobSource for Local<'_> {
    fn fetch(&self, layer: &LayerPlan, _: Option<&ChunkSender>) -> Result<bool> {
        Err(Error::Malformed(format!(
            "invalid archive: layer {} is missing",
            layer.blob.digest
        )))
    }

    fn report(&self, layer: &LayerPlan, phase: Phase) {
        if let Phase::Unpacking { done, of } = phase
            && !self.quiet
        {
            let id = layer.diff_id.short();
            self.progress
                .report(Message::moving(id, "Loading layer", done, of));
        }
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }

    fn abort(&self) {}
}
