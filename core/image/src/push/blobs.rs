//! What the registry lacks of an image: several blobs at once, none that it has or can take from elsewhere.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_driver_api::registry::{BeginUpload, StatBlob};
use gantry_driver_api::{Call, ErrorCode};
use gantry_model::Reference;

use super::Pusher;
use super::document::{Document, Layer};
use crate::record::Descriptor;
use crate::{Error, Message, Result};

/// Repositories that are tried for a layer before it is sent.
const MAX_MOUNTS: usize = 3;

impl Pusher<'_> {
    /// Sends what the registry lacks: layers and the configuration.
    pub(super) fn send_blobs(&self, tag: &Reference, document: &Document) -> Result<()> {
        let layers: Vec<&Layer> = document.unique_layers().collect();
        let workers = self.shared.settings().max_uploads.max(1);
        for layer in layers.iter().skip(workers) {
            self.progress.report(Message::step(layer.id(), "Waiting"));
        }
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.send_layer(tag, layer) {
                    // The first failure is the reason; the others are its consequences.
                    if !self.abort.swap(true, Ordering::Relaxed) {
                        *failure
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    }
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers.min(layers.len()) {
                let _ = std::thread::Builder::new()
                    .name("push".into())
                    .spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(error) = failure
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            return Err(error);
        }
        if !self.has_blob(&document.config)? {
            self.upload(&document.config, None)?;
        }
        Ok(())
    }

    fn send_layer(&self, tag: &Reference, layer: &Layer) -> Result<()> {
        if self.gone() {
            return Err(Error::Cancelled);
        }
        let step = |text: &str| self.progress.report(Message::step(layer.id(), text));
        if self.has_blob(&layer.blob)? {
            step("Layer already exists");
            return Ok(());
        }
        for source in self.repositories(tag, layer)? {
            if self.mount(&layer.blob, &source)? {
                step(&format!("Mounted from {source}"));
                return Ok(());
            }
        }
        self.upload(&layer.blob, Some(layer.id()))?;
        step("Pushed");
        Ok(())
    }

    fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let request = StatBlob {
            at: self.at.clone(),
            digest: blob.digest.to_string(),
        };
        let found =
            self.persist(
                || match self.registry.stat_blob(&Call::new("push"), request.clone()) {
                    Ok(_) => Ok(true),
                    Err(error) if error.code == ErrorCode::NotFound => Ok(false),
                    Err(error) => Err(error),
                },
            );
        // Some registries let nobody look before they have let him write.
        match found {
            Err(Error::Driver(error)) if error.code == ErrorCode::PermissionDenied => Ok(false),
            found => found,
        }
    }

    /// Other repositories of the same registry that an image with this layer came from or went to.
    fn repositories(&self, tag: &Reference, layer: &Layer) -> Result<Vec<String>> {
        let mut found = BTreeSet::new();
        for (image, names) in self.shared.all_names()? {
            let others = names.iter().filter(|name| {
                name.digest().is_some()
                    && name.domain() == tag.domain()
                    && name.path() != tag.path()
            });
            let paths: Vec<&str> = others.map(Reference::path).collect();
            if !paths.is_empty()
                && self
                    .shared
                    .image(&image)?
                    .blobs
                    .contains(&layer.blob.digest)
            {
                found.extend(paths.into_iter().map(str::to_owned));
            }
        }
        Ok(found.into_iter().take(MAX_MOUNTS).collect())
    }

    /// Whether the server took the blob from another repository. What it refuses is sent instead.
    fn mount(&self, blob: &Descriptor, source: &str) -> Result<bool> {
        let request = BeginUpload {
            at: self.at.clone(),
            digest: blob.digest.to_string(),
            mount_from: source.into(),
        };
        match self.registry.begin_upload(&Call::new("push"), request) {
            Ok(upload) => Ok(upload.mounted),
            Err(error) => {
                tracing::debug!(%error, source, server = self.endpoint().url, "a layer cannot be mounted");
                Ok(false)
            }
        }
    }
}
