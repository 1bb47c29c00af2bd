//! Pull: resolve, choose a platform, fetch, install.

mod attached;
mod endpoint;
pub(crate) mod fetch;
mod limits;
mod login;
pub(crate) mod resolve;
pub(crate) mod retry;
mod tags;
mod tee;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gantry_driver_api::ErrorCode;
use gantry_model::{Digest, Platform, Reference, Timestamp};
use gantry_store::Batch;

pub(crate) use endpoint::HUB_URL;
pub use limits::RateLimit;
pub(crate) use login::authenticate;
pub(crate) use tags::{pull_all, tags};

use crate::chunks::ChunkSender;
use crate::config::{ImageConfig, MAX_CONFIG};
use crate::hold::Held;
use crate::install::{BlobSource, Install, LayerPlan, Phase};
use crate::manifest::{self, Document, MAX_MANIFEST, Manifest};
use crate::query::wrong_platform;
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, Message, Progress, PullOptions, Pulled, Result};
use fetch::Fetcher;
use resolve::Resolver;

/// How long what a failed pull has fetched is kept for the next one.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// Where a reference led.
struct Found {
    /// Digest of what the reference names: an index or a manifest.
    target: Digest,
    manifest: Manifest,
    manifest_digest: Digest,
    /// Both documents.
    documents: Vec<Digest>,
    /// Whether an index had a choice of platforms.
    chosen: bool,
    /// Blobs of what is attested of the image.
    attached: Vec<Descriptor>,
}

pub(crate) fn pull(
    shared: &Shared,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let reference = reference.clone().with_default_tag();
    let registry = shared
        .drivers
        .registry_for(reference.domain(), reference.path())?;
    let mut resolver = Resolver {
        shared,
        registry: registry.as_ref(),
        reference: &reference,
        progress,
        servers: shared.servers(reference.domain(), &options.credentials)?,
    };
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    if let Some(pulled) = unchanged(&mut resolver, options)? {
        announce(&reference, progress);
        conclude(&reference, &pulled, progress);
        return Ok(pulled);
    }
    // Until there is a lease on what was found.
    let hold = shared.hold();
    let found = find(&mut resolver, &wanted).map_err(without_prompt)?;
    announce(&reference, progress);
    let abort = AtomicBool::new(false);
    let fetcher = Fetcher {
        shared,
        registry: registry.as_ref(),
        endpoints: resolver.endpoints(),
        repository: reference.path().into(),
        progress,
        abort: &abort,
    };
    let pulled = bring(&fetcher, &reference, &found, options, hold)?;
    conclude(&reference, &pulled, progress);
    limits::tell(shared, reference.domain(), progress);
    Ok(pulled)
}

/// As dockerd, which answers a pull that lacks credentials 500: at 401 its client would ask for a password.
fn without_prompt(error: Error) -> Error {
    match error {
        Error::Driver(mut error) if error.code == ErrorCode::Unauthenticated => {
            error.code = ErrorCode::Internal;
            Error::Driver(error)
        }
        other => other,
    }
}

/// Asks whether the name still stands for what is here.
fn unchanged(resolver: &mut Resolver<'_>, options: &PullOptions) -> Result<Option<Pulled>> {
    let shared = resolver.shared;
    let reference = resolver.reference;
    let name = canonical(reference);
    let Some(record) = shared.references.get(&name.to_string())? else {
        return Ok(None);
    };
    let (Some(target), Ok(image)) = (record.target, shared.image(&record.image)) else {
        return Ok(None);
    };
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    // A pull is also how an image gets back what it has lost.
    if !shared.is_whole(&record.image, &image)? {
        return Ok(None);
    }
    let config = ImageConfig::parse(&shared.content.read(&record.image, MAX_CONFIG)?)?;
    if !manifest::acceptable(&wanted).contains(&config.platform().normalized())
        || shared.drivers.storage(&image.driver).is_err()
    {
        return Ok(None);
    }
    let labels = image.labels;
    let current = match reference.digest() {
        Some(digest) => Some(digest.clone()),
        None => resolver.head(&tag_or_digest(reference)),
    };
    if current.as_ref() != Some(&target) {
        return Ok(None);
    }
    let (time, event) = pull_event(shared, reference, labels);
    let mut batch = Batch::new();
    batch.event(time, event);
    shared.store.commit(batch).wait()?;
    Ok(Some(Pulled {
        id: record.image,
        digest: target,
        newer: false,
    }))
}

fn pull_event(
    shared: &Shared,
    reference: &Reference,
    labels: BTreeMap<String, String>,
) -> (Timestamp, serde_json::Value) {
    shared.image_event(
        "pull",
        reference.familiar(),
        reference.familiar_name(),
        labels,
    )
}

/// The name under which a pull is recorded: a digest makes a tag beside it meaningless.
pub(crate) fn canonical(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()),
        None => reference.clone(),
    }
}

pub(crate) fn tag_or_digest(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").into(),
    }
}

fn announce(reference: &Reference, progress: &dyn Progress) {
    let id = match reference.digest() {
        Some(_) => canonical(reference).to_string(),
        None => tag_or_digest(reference),
    };
    progress.report(Message::about(
        &id,
        format!("Pulling from {}", reference.path()),
    ));
}

fn conclude(reference: &Reference, pulled: &Pulled, progress: &dyn Progress) {
    progress.report(Message::status(format!("Digest: {}", pulled.digest)));
    let name = reference.familiar();
    progress.report(Message::status(if pulled.newer {
        format!("Status: Downloaded newer image for {name}")
    } else {
        format!("Status: Image is up to date for {name}")
    }));
}

/// Fetches what the reference names and, where that is an index, the manifest for the platform.
fn find(resolver: &mut Resolver<'_>, wanted: &Platform) -> Result<Found> {
    let (reply, target) = resolver.fetch(&tag_or_digest(resolver.reference))?;
    let mut documents = vec![target.clone()];
    let document = manifest::parse(&reply.bytes, &reply.media_type)?;
    resolver.shared.content.write_as(&reply.bytes, &target)?;
    match document {
        Document::Manifest(manifest) => Ok(Found {
            manifest_digest: target.clone(),
            target,
            manifest,
            documents,
            chosen: false,
            attached: Vec::new(),
        }),
        Document::Index(entries) => {
            let entry = manifest::choose(&entries, wanted)?;
            if entry.size > MAX_MANIFEST {
                return Err(Error::Malformed("the image manifest is too large".into()));
            }
            let (bytes, media_type) = resolver.document(entry)?;
            documents.push(entry.digest.clone());
            match manifest::parse(&bytes, &media_type)? {
                Document::Manifest(manifest) => Ok(Found {
                    target,
                    manifest,
                    manifest_digest: entry.digest.clone(),
                    attached: attached::find(resolver, &entries, &entry.digest, &mut documents)?,
                    documents,
                    chosen: true,
                }),
                Document::Index(_) => Err(Error::Malformed(
                    "an index within an index is not supported".into(),
                )),
            }
        }
    }
}

/// Fetches configuration and layers, and installs the image.
fn bring(
    fetcher: &Fetcher<'_>,
    reference: &Reference,
    found: &Found,
    options: &PullOptions,
    hold: Held<'_>,
) -> Result<Pulled> {
    let content = &fetcher.shared.content;
    let id = &found.manifest.config.digest;
    let mut blobs = found.documents.clone();
    blobs.push(id.clone());
    let layers = found.manifest.layers.iter().chain(&found.attached);
    blobs.extend(layers.map(|blob| blob.digest.clone()));
    let lease = content.lease(&format!("pull/{id}"), blobs.clone(), LEASE)?;
    hold.settle();
    let brought = install(fetcher, reference, found, options, blobs);
    match &brought {
        Ok(_) => lease.release(),
        // It would only keep the disk full.
        Err(error) if error.is_disk_full() => {
            lease.release();
            fetcher.shared.sweep();
        }
        // Kept for the next attempt.
        Err(_) => drop(lease),
    }
    brought
}

/// As [`bring`], when the blobs are leased.
fn install(
    fetcher: &Fetcher<'_>,
    reference: &Reference,
    found: &Found,
    options: &PullOptions,
    blobs: Vec<Digest>,
) -> Result<Pulled> {
    let shared = fetcher.shared;
    let id = found.manifest.config.digest.clone();
    if !shared.content.contains(&id) {
        fetcher.fetch(&found.manifest.config, None, None)?;
    }
    let config = ImageConfig::parse(&shared.content.read(&id, MAX_CONFIG)?)?;
    check_platform(&config, reference, options, found.chosen)?;
    attached::fetch(fetcher, &found.attached);
    let install = Install {
        shared,
        id: id.clone(),
        config,
        layers: found.manifest.layers.clone(),
        manifest: Some(found.manifest_digest.clone()),
        blobs,
        parent: None,
        workers: shared.settings().max_downloads.max(1),
        source: &Remote { fetcher },
    };
    let _turn = shared
        .pulls
        .lock(id.as_str(), || fetcher.progress.cancelled())?;
    let mut names = vec![(canonical(reference), Some(found.target.clone()))];
    if reference.digest().is_none() {
        names.push((
            reference.with_digest(found.target.clone()),
            Some(found.target.clone()),
        ));
    }
    let labels = install.config.config.labels.clone();
    let event = pull_event(shared, reference, labels);
    let newer = install.run(&names, vec![event])?;
    Ok(Pulled {
        id,
        digest: found.target.clone(),
        newer,
    })
}

fn check_platform(
    config: &ImageConfig,
    reference: &Reference,
    options: &PullOptions,
    chosen: bool,
) -> Result<()> {
    if config.os != "linux" && !config.os.is_empty() {
        return Err(Error::WrongPlatform(format!(
            "image operating system \"{}\" cannot be used on this platform",
            config.os
        )));
    }
    let platform = config.platform().normalized();
    if let Some(wanted) = options.platform.as_ref().filter(|_| !chosen)
        && !manifest::provides(&platform, wanted)
    {
        return Err(wrong_platform(&reference.familiar(), wanted));
    }
    Ok(())
}

/// Layers from a registry, with Docker's words for each step.
struct Remote<'a> {
    fetcher: &'a Fetcher<'a>,
}

impl BlobSource for Remote<'_> {
    fn fetch(&self, layer: &LayerPlan, tee: Option<&ChunkSender>) -> Result<bool> {
        self.fetcher
            .fetch(&layer.blob, Some(layer.blob.digest.short()), tee)
    }

    fn report(&self, layer: &LayerPlan, phase: Phase) {
        let id = layer.blob.digest.short();
        self.fetcher.progress.report(match phase {
            Phase::Exists => Message::step(id, "Already exists"),
            Phase::Queued => Message::step(id, "Pulling fs layer"),
            Phase::Waiting => Message::step(id, "Waiting"),
            Phase::Unpacking { done, of } => Message::moving(id, "Extracting", done, of),
            Phase::Complete => Message::step(id, "Pull complete"),
        });
    }

    fn cancelled(&self) -> bool {
        self.fetcher.progress.cancelled()
    }

    fn abort(&self) {
        self.fetcher
            .abort
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
