//! Sending blobs: several at once, none that the registry has.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gantry_driver_api::registry::{BeginUpload, FinishUpload, StatBlob};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode};
use gantry_model::Reference;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::Pusher;
use super::document::{Document, Layer};
use crate::record::Descriptor;
use crate::{Error, Message, Result};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// What a pipe to the driver holds; the most that is allowed without privileges.
const PIPE_SIZE: usize = 1 << 20;
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

    fn upload(&self, blob: &Descriptor, id: Option<&str>) -> Result<()> {
        self.persist(|| {
            let request = BeginUpload {
                at: self.at.clone(),
                digest: blob.digest.to_string(),
                mount_from: String::new(),
            };
            let upload = self.registry.begin_upload(&Call::new("push"), request)?;
            self.send(&upload.location, blob, id)
        })
    }

    /// One call of the driver, which reads a pipe that is filled here.
    fn send(&self, location: &str, blob: &Descriptor, id: Option<&str>) -> DriverResult<()> {
        let io = |error: rustix::io::Errno| DriverError::io("a pipe", &error.into());
        let file = self
            .shared
            .content
            .open_blob(&blob.digest)
            .map_err(|error| DriverError::internal(error.to_string()))?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
        // A smaller pipe is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
        let request = FinishUpload {
            at: self.at.clone(),
            location: location.into(),
            digest: blob.digest.to_string(),
            size: blob.size,
        };
        std::thread::scope(|scope| {
            let call = std::thread::Builder::new()
                .name("send".into())
                .spawn_scoped(scope, move || {
                    let fds = [reader.as_fd()];
                    let call = Call::new("push").with_fds(&fds);
                    self.registry.finish_upload(&call, request)
                })
                .map_err(|error| DriverError::io("starting a thread", &error))?;
            let filled = self.fill(&file, writer, blob.size, id);
            let sent = call
                .join()
                .unwrap_or_else(|_| Err(DriverError::internal("the registry driver panicked")));
            match (sent, filled) {
                (Ok(()), _) => Ok(()),
                // What stopped us here is the reason for what the driver says.
                (Err(_), Err(error)) => Err(error),
                (Err(error), Ok(())) => Err(error),
            }
        })
    }

    /// Hands a blob to the driver without copying it. A driver that reads no more has its reason.
    fn fill(
        &self,
        file: &std::fs::File,
        writer: OwnedFd,
        size: u64,
        id: Option<&str>,
    ) -> DriverResult<()> {
        let mut sent = 0;
        let mut told = Instant::now();
        while sent < size {
            if self.gone() {
                return Err(DriverError::new(ErrorCode::Cancelled, "context canceled"));
            }
            match splice(file, None, &writer, None, PIPE_SIZE, SpliceFlags::empty()) {
                Ok(0) => return Err(DriverError::internal("a blob is shorter than it was")),
                Ok(count) => sent += count as u64,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::PIPE) => return Ok(()),
                Err(error) => return Err(DriverError::io("reading a blob", &error.into())),
            }
            if let Some(id) = id
                && (told.elapsed() >= TICK || sent == size)
            {
                told = Instant::now();
                self.progress
                    .report(Message::moving(id, "Pushing", sent, size));
            }
        }
        Ok(())
    }
}
