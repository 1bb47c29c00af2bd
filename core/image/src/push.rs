//! Push: an image's blobs, as they came, to where the registry does not have them; then its manifest.
//!
//! What was pulled is sent byte for byte, its manifest included. Layers that exist only as plain archives (loaded,
//! imported or committed ones) are compressed once, and remembered under their diff ID.

mod blobs;
mod document;
mod index;
mod upload;

use std::sync::atomic::AtomicBool;

use gantry_driver_api::registry::{Endpoint, GetManifest, PutManifest, Repository, StatBlob};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode, Registry};
use gantry_model::{Digest, ImageId, Reference};
use gantry_store::Batch;

use crate::pull::retry;
use crate::record::ReferenceRecord;
use crate::service::Shared;
use crate::{Error, Message, Progress, PushOptions, Result};
use document::Document;

/// One push to one repository.
pub(crate) struct Pusher<'a> {
    shared: &'a Shared,
    registry: &'a dyn Registry,
    at: Repository,
    progress: &'a dyn Progress,
    /// Set when another part of the same operation has failed.
    abort: AtomicBool,
}

pub(crate) fn push(
    shared: &Shared,
    reference: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<()> {
    progress.report(Message::status(format!(
        "The push refers to repository [{}]",
        reference.name()
    )));
    let tags = tags(shared, reference)?;
    let registry = shared
        .drivers
        .registry_for(reference.domain(), reference.path())?;
    // What is being sent stays, whatever happens to its image.
    let hold = shared.hold();
    for (tag, image) in tags {
        let document = document::of(shared, options.platform.as_ref(), &tag)?;
        let layers = document.layers.iter().map(|layer| &layer.blob.digest);
        for digest in layers.chain([&document.config.digest]) {
            // What is not here, the registry may have.
            let _ = shared.content.claim(digest);
        }
        let pusher = Pusher {
            shared,
            registry: registry.as_ref(),
            at: endpoint(shared, registry.as_ref(), &tag, options, &document)?,
            progress,
            abort: AtomicBool::new(false),
        };
        pusher.push(&tag, &document)?;
        record(shared, &tag, &image, &document)?;
    }
    hold.settle();
    Ok(())
}

/// The tags meant, each with its image: one, or all of a repository.
fn tags(shared: &Shared, reference: &Reference) -> Result<Vec<(Reference, ImageId)>> {
    if reference.digest().is_some() {
        return Err(Error::Invalid("cannot push a digest reference".into()));
    }
    if reference.tag().is_some() {
        let record = shared.lookup(reference)?.ok_or_else(|| {
            Error::NotHere(format!("tag does not exist: {}", reference.familiar()))
        })?;
        return Ok(vec![(reference.clone(), record.image)]);
    }
    let mut tags: Vec<(Reference, ImageId)> = shared
        .all_names()?
        .into_iter()
        .flat_map(|(id, names)| names.into_iter().map(move |name| (name, id.clone())))
        .filter(|(name, _)| name.tag().is_some() && name.name() == reference.name())
        .collect();
    tags.sort();
    if tags.is_empty() {
        return Err(Error::NotHere(format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        )));
    }
    Ok(tags)
}

/// The server to push to: the registry itself, on the scheme that it speaks.
fn endpoint(
    shared: &Shared,
    registry: &dyn Registry,
    tag: &Reference,
    options: &PushOptions,
    document: &Document,
) -> Result<Repository> {
    let servers = shared.push_servers(tag.domain(), &options.credentials)?;
    let found = shared.ask(servers, |endpoint| {
        let at = Repository {
            endpoint: endpoint.clone(),
            repository: tag.path().into(),
        };
        let request = StatBlob {
            at: at.clone(),
            digest: document.config.digest.to_string(),
        };
        match registry.stat_blob(&Call::new("push"), request) {
            Err(error) if error.code != ErrorCode::NotFound => Err(error),
            _ => Ok(at),
        }
    });
    found.map_err(refused)
}

/// The registry's answer in the words that clients match on.
fn refused(error: DriverError) -> Error {
    match error.code {
        ErrorCode::Unauthenticated | ErrorCode::PermissionDenied
            if !error.message.starts_with("denied:") =>
        {
            let message = format!(
                "denied: requested access to the resource is denied ({})",
                error.message
            );
            Error::Driver(DriverError::new(error.code, message))
        }
        _ => error.into(),
    }
}

impl Pusher<'_> {
    fn push(&self, tag: &Reference, document: &Document) -> Result<()> {
        for layer in document.unique_layers() {
            self.progress.report(Message::step(layer.id(), "Preparing"));
        }
        let name = tag.tag().unwrap_or_default();
        let named = self.is_there(name, &document.digest);
        if named || self.is_there(document.digest.as_str(), &document.digest) {
            for layer in document.unique_layers() {
                self.progress
                    .report(Message::step(layer.id(), "Layer already exists"));
            }
        } else {
            self.send_blobs(tag, document)?;
        }
        if !named {
            for part in &document.parts {
                let digest = part.digest.as_str();
                self.put(digest, &part.media_type, &part.bytes)?;
            }
            self.put(name, &document.media_type, &document.bytes)?;
        }
        let (digest, size) = (&document.digest, document.bytes.len());
        self.progress.report(Message::status(format!(
            "{name}: digest: {digest} size: {size}"
        )));
        self.progress.report(Message {
            aux: Some(serde_json::json!({"Tag": name, "Digest": digest, "Size": size})),
            ..Message::default()
        });
        if let Some(index) = &document.instead_of {
            let manifest = serde_json::json!({
                "mediaType": document.media_type, "digest": digest, "size": size,
            });
            self.progress.report(Message {
                aux: Some(serde_json::json!({
                    "manifestPushedInsteadOfIndex": true, "originalIndex": index, "selectedManifest": manifest,
                })),
                ..Message::default()
            });
        }
        Ok(())
    }

    fn put(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let request = PutManifest {
            at: self.at.clone(),
            reference: reference.into(),
            media_type: media_type.into(),
            bytes: bytes.to_vec(),
        };
        self.persist(|| {
            self.registry
                .put_manifest(&Call::new("push"), request.clone())
        })?;
        Ok(())
    }

    /// Whether a tag or digest stands for this manifest there. A registry that has a manifest has all that it names.
    fn is_there(&self, reference: &str, digest: &Digest) -> bool {
        let request = GetManifest {
            at: self.at.clone(),
            reference: reference.into(),
        };
        let by_digest = reference == digest.as_str();
        self.registry
            .resolve(&Call::new("push"), request)
            .is_ok_and(|reply| {
                reply.digest == digest.as_str() || (by_digest && reply.digest.is_empty())
            })
    }

    /// Tries again what may pass.
    fn persist<T>(&self, attempt: impl FnMut() -> DriverResult<T>) -> Result<T> {
        let settings = self.shared.settings();
        let done = retry::persist(
            settings.max_attempts,
            settings.retry_base,
            || self.gone(),
            attempt,
        );
        done.map_err(|error| match retry::is_transient(&error) && self.gone() {
            true => Error::Cancelled,
            false => refused(error),
        })
    }

    fn gone(&self) -> bool {
        self.abort.load(std::sync::atomic::Ordering::Relaxed) || self.progress.cancelled()
    }

    fn endpoint(&self) -> &Endpoint {
        &self.at.endpoint
    }
}

/// The image is known by its digest in that repository from now on, and keeps the manifest that was made for it.
fn record(shared: &Shared, tag: &Reference, id: &ImageId, document: &Document) -> Result<()> {
    let _guard = shared.naming.lock();
    let Ok(mut image) = shared.image(id) else {
        // Removed meanwhile.
        return Ok(());
    };
    let mut batch = Batch::new();
    let record = ReferenceRecord {
        image: id.clone(),
        target: Some(document.digest.clone()),
    };
    let by_digest = tag.with_digest(document.digest.clone()).to_string();
    batch.put(&shared.references, &by_digest, &record)?;
    // A pull need not ask again for what is known to be there.
    if shared
        .references
        .get(&tag.to_string())?
        .is_some_and(|named| named.image == *id)
    {
        batch.put(&shared.references, &tag.to_string(), &record)?;
    }
    if document.made {
        shared.content.write(&document.bytes)?;
        shared.content.sync()?;
        image.manifest = Some(document.digest.clone());
        let blobs = document.layers.iter().map(|layer| &layer.blob.digest);
        for digest in blobs.chain([&document.digest]) {
            if shared.content.contains(digest) && !image.blobs.contains(digest) {
                image.blobs.push(digest.clone());
            }
        }
    }
    let labels = image.labels.clone();
    batch.put(&shared.images, id.as_str(), &image)?;
    let (time, event) = shared.image_event("push", tag.familiar(), tag.familiar_name(), labels);
    batch.event(time, event);
    shared.store.commit(batch).wait()?;
    Ok(())
}
