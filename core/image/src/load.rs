//! Load: images from an archive, in one pass over a stream.
//!
//! Two forms are read, plain or compressed: the docker-archive (`manifest.json` names configurations and layers by the
//! archive's own paths, in the old form with links between them) and the OCI layout (`index.json`, `blobs/`). Every file
//! goes into the content store under its digest as it passes; what it is, the documents at the end say. An archive that is
//! both is read as OCI layout, so that its images keep their manifests, then as docker-archive, for those that only this
//! one names.

mod docker;
mod files;
mod layout;
mod local;

use std::io::Read;

use gantry_model::{Digest, Platform, Reference};

use crate::config::{ImageConfig, MAX_CONFIG};
use crate::install::Install;
use crate::manifest::{self, MAX_MANIFEST};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, LoadOptions, Loaded, Message, Progress, Result};
#[cfg(feature = "fuzz")]
pub(crate) use docker::ArchiveImage;
use files::{Files, take_in};
pub(crate) use local::Local;

pub(crate) fn load(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    // Never settled: files of the archive that belong to no image are to go.
    let _hold = shared.hold();
    let files = take_in(shared, input, progress)?;
    let loader = Loader {
        shared,
        files,
        options,
        progress,
    };
    loader.load()
}

struct Loader<'a> {
    shared: &'a Shared,
    files: Files,
    options: &'a LoadOptions,
    progress: &'a dyn Progress,
}

/// An image of the archive.
struct Planned {
    id: Digest,
    config: ImageConfig,
    /// Bottom first.
    layers: Vec<Descriptor>,
    manifest: Option<Digest>,
    /// What belongs to it beside these.
    more: Vec<Digest>,
    /// Its names, each with the index or manifest that it stood for.
    names: Vec<(Reference, Option<Digest>)>,
}

impl Loader<'_> {
    fn load(&self) -> Result<Vec<Loaded>> {
        let manifest = self.files.find("manifest.json").is_some();
        let layout = self.files.find("index.json").is_some()
            && (!manifest || self.files.find("oci-layout").is_some());
        let mut planned = Vec::new();
        if layout {
            self.layout(&mut planned)?;
        }
        if manifest {
            self.docker_archive(&mut planned)?;
        }
        if !layout && !manifest {
            return Err(Error::Malformed(
                "unrecognized image format: neither manifest.json nor index.json found".into(),
            ));
        }
        if planned.is_empty()
            && let Some(wanted) = self.options.platforms.first()
        {
            return Err(Error::WrongPlatform(format!(
                "no images providing the requested platform {wanted} found"
            )));
        }
        planned
            .into_iter()
            .map(|image| self.install(image))
            .collect()
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (digest, _) = self.files.must(path)?;
        let bytes = self.shared.content.read(digest, MAX_MANIFEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed(format!("invalid {path}: {error}")))
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
        let platforms = &self.options.platforms;
        platforms.is_empty()
            || platforms
                .iter()
                .any(|wanted| manifest::provides(platform, wanted))
    }

    fn install(&self, image: Planned) -> Result<Loaded> {
        let (id, shared) = (image.id, self.shared);
        let mut blobs: Vec<Digest> = image.layers.iter().map(|l| l.digest.clone()).collect();
        blobs.extend(image.manifest.clone());
        blobs.extend(image.more);
        for digest in &blobs {
            // What was here before the archive came stays, too. What is missing shows when it is needed.
            let _ = shared.content.claim(digest);
        }
        let event = shared.image_event(
            "load",
            id.to_string(),
            id.to_string(),
            image.config.config.labels.clone(),
        );
        let install = Install {
            shared,
            id: id.clone(),
            config: image.config,
            layers: image.layers,
            manifest: image.manifest,
            blobs,
            parent: None,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            source: &Local {
                progress: self.progress,
                quiet: self.options.quiet,
            },
        };
        let _turn = shared
            .pulls
            .lock(id.as_str(), || self.progress.cancelled())?;
        for (name, _) in &image.names {
            self.tell_of_loss(name, &id)?;
        }
        install.run(&image.names, vec![event])?;
        let names: Vec<Reference> = image.names.into_iter().map(|(name, _)| name).collect();
        if names.is_empty() {
            let line = format!("Loaded image ID: {id}\n");
            self.progress.report(Message::stream(line));
        }
        for name in &names {
            let line = format!("Loaded image: {}\n", name.familiar());
            self.progress.report(Message::stream(line));
        }
        Ok(Loaded { id, names })
    }

    /// Docker says it when a name goes from one image to another.
    fn tell_of_loss(&self, name: &Reference, id: &Digest) -> Result<()> {
        let before = self.shared.references.get(&name.to_string())?;
        if let Some(before) = before.filter(|before| before.image != *id) {
            self.progress.report(Message::stream(format!(
                "The image {} already exists, renaming the old one with ID {} to empty string\n",
                name.familiar(),
                before.image
            )));
        }
        Ok(())
    }
}
