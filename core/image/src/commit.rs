//! Commit: what a container has changed becomes a layer, and its image with that layer another image.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_content::{Hasher, Ingest};
use gantry_model::{Digest, ImageId, Reference, Timestamp};

use crate::config::{ContainerDefaults, History, ImageConfig};
use crate::delta::Delta;
use crate::install::Install;
use crate::load::Local;
use crate::manifest::OCI_LAYER_GZIP;
use crate::pack::Sink;
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, Result, Silent};

/// What is made of a container.
#[derive(Debug)]
pub struct CommitOptions<'a> {
    /// The image that the container was made from.
    pub parent: ImageId,
    /// What it has changed; its processes do not write meanwhile.
    pub delta: Delta,
    /// Paths that the engine makes in every container.
    pub generated: &'a [&'a str],
    /// Defaults of containers made from the new image.
    pub config: ContainerDefaults,
    /// The name to give; an image without a name otherwise.
    pub name: Option<Reference>,
    /// For the history.
    pub created_by: String,
    /// For the history.
    pub author: String,
    /// For the history.
    pub comment: String,
}

/// The layer's archive on its way into the content store.
struct Layer {
    plain: Hasher,
    length: u64,
    gzip: GzEncoder<Blob>,
}

/// An ingest as a writer.
struct Blob(Ingest);

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| match error {
            gantry_content::Error::Io { source, .. } => source,
            other => io::Error::other(other),
        })?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Layer {
    fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.plain.update(piece);
        self.length += piece.len() as u64;
        self.gzip.write_all(piece)
    }
}

/// An empty archive: such a layer is none.
const EMPTY: u64 = 1024;

impl Shared {
    /// Makes the image. After a crash it is there whole, with its name, or not at all.
    pub(crate) fn commit(&self, options: CommitOptions<'_>) -> Result<ImageId> {
        let record = self.image(&options.parent)?;
        let parent = self.config(&options.parent)?;
        let hold = self.hold();
        let mut layers = self.descriptors(&record)?;
        let mut blobs: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let layer = self.write_layer(&options)?;
        let config = configuration(&options, parent, layer.as_ref().map(|(diff_id, _)| diff_id));
        if let Some((_, descriptor)) = layer {
            blobs.push(descriptor.digest.clone());
            layers.push(descriptor);
        }
        let json = serde_json::to_vec(&config)
            .map_err(|error| Error::Malformed(format!("image configuration: {error}")))?;
        let mut hasher = Hasher::sha256();
        hasher.update(&json);
        let id = hasher.finish();
        self.content.write(&json)?;
        let install = Install {
            shared: self,
            id: id.clone(),
            config,
            layers,
            manifest: None,
            blobs,
            parent: Some(options.parent),
            workers: 1,
            source: &Local {
                progress: &Silent,
                quiet: true,
            },
        };
        let name = options.name.map(Reference::with_default_tag);
        let shown = |name: &Reference| name.familiar();
        let mut events =
            vec![self.image_event("create", id.to_string(), id.to_string(), Default::default())];
        events.extend(
            name.as_ref().map(|name| {
                self.image_event("tag", id.to_string(), shown(name), Default::default())
            }),
        );
        let names: Vec<_> = name.into_iter().map(|name| (name, None)).collect();
        install.run(&names, events)?;
        hold.settle();
        Ok(id)
    }

    /// Writes the changes as a compressed archive; none when there are none.
    fn write_layer(&self, options: &CommitOptions<'_>) -> Result<Option<(Digest, Descriptor)>> {
        let failed = |error| Error::io("reading the container's changes", error);
        let blob = Blob(self.content.begin_unnamed()?);
        let mut layer = Layer {
            plain: Hasher::sha256(),
            length: 0,
            gzip: GzEncoder::new(blob, Compression::fast()),
        };
        let packed = options.delta.pack(options.generated, &mut layer);
        packed.map_err(failed)?;
        let (diff_id, length) = (layer.plain.finish(), layer.length);
        let blob = layer.gzip.finish().map_err(failed)?.0;
        if length == EMPTY {
            return Ok(None);
        }
        let size = blob.offset();
        let digest = blob.finish()?;
        let descriptor = Descriptor {
            media_type: OCI_LAYER_GZIP.into(),
            digest,
            size,
        };
        Ok(Some((diff_id, descriptor)))
    }
}

/// The parent's configuration with one more step.
fn configuration(
    options: &CommitOptions<'_>,
    parent: ImageConfig,
    layer: Option<&Digest>,
) -> ImageConfig {
    let now = Timestamp::now();
    let mut config = parent;
    config.created = Some(now);
    config.author.clone_from(&options.author);
    config.comment.clone_from(&options.comment);
    config.docker_version.clear();
    config.config = options.config.clone();
    config.rootfs.diff_ids.extend(layer.cloned());
    config.history.push(History {
        created: Some(now),
        created_by: options.created_by.clone(),
        author: options.author.clone(),
        comment: options.comment.clone(),
        empty_layer: layer.is_none(),
    });
    config
}
