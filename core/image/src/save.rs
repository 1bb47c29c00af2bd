//! Save: images as one archive that is a docker-archive and an OCI layout at once, as Docker writes since version 25.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use gantry_model::{Digest, ImageId, Reference};
use serde_json::json;
use tar::{EntryType, Header};

use crate::config::MAX_CONFIG;
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST};
use crate::record::{Descriptor, ImageRecord, layer_key};
use crate::service::Shared;
use crate::unpack::{CHUNK, inflate};
use crate::{Error, Result};

pub(crate) fn save(
    shared: &Shared,
    names: &[String],
    output: &mut (dyn Write + Send),
) -> Result<()> {
    let chosen = choose(shared, names)?;
    let mut writer = Writer {
        shared,
        output,
        written: BTreeSet::new(),
    };
    writer.directory("blobs/")?;
    writer.directory("blobs/sha256/")?;
    let mut manifests = Vec::new();
    let mut archive = Vec::new();
    let mut batch = gantry_store::Batch::new();
    for (id, tags) in &chosen {
        let record = shared.image(id)?;
        let config = shared.content.read(id, MAX_CONFIG)?;
        let layers = writer.layers(&record)?;
        writer.bytes(&blob_path(id), &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": id, "size": config.len()},
            "layers": layers,
        })
        .to_string();
        let mut hasher = gantry_content::Hasher::sha256();
        hasher.update(manifest.as_bytes());
        let digest = hasher.finish();
        writer.bytes(&blob_path(&digest), manifest.as_bytes())?;
        let entry = |annotations: Option<serde_json::Value>| {
            let mut entry =
                json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len()});
            if let Some(annotations) = annotations {
                entry["annotations"] = annotations;
            }
            entry
        };
        if tags.is_empty() {
            manifests.push(entry(None));
        }
        for tag in tags {
            manifests.push(entry(Some(json!({
                "io.containerd.image.name": tag.to_string(),
                "org.opencontainers.image.ref.name": tag.tag().unwrap_or_default(),
            }))));
        }
        archive.push(json!({
            "Config": blob_path(id),
            "RepoTags": if tags.is_empty() {
                serde_json::Value::Null
            } else {
                json!(tags.iter().map(Reference::familiar).collect::<Vec<_>>())
            },
            "Layers": layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
        }));
        let (time, event) =
            shared.image_event("save", id.to_string(), id.to_string(), record.labels);
        batch.event(time, event);
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    writer.bytes("index.json", index.to_string().as_bytes())?;
    writer.bytes("manifest.json", json!(archive).to_string().as_bytes())?;
    writer.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    writer.write(&[0; 1024])?;
    writer.output.flush().map_err(io_error)?;
    shared.store.commit(batch).wait()?;
    Ok(())
}

/// The images meant, each with the tags to write.
fn choose(shared: &Shared, names: &[String]) -> Result<BTreeMap<ImageId, Vec<Reference>>> {
    let mut chosen: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    for name in names {
        let parsed = Reference::parse(name).ok();
        let bare = parsed
            .as_ref()
            .filter(|name| name.tag().is_none() && name.digest().is_none());
        if let Some(bare) = bare {
            // A name alone means all of its tags.
            let tags: Vec<(ImageId, Reference)> = shared
                .all_names()?
                .into_iter()
                .flat_map(|(id, names)| names.into_iter().map(move |name| (id.clone(), name)))
                .filter(|(_, name)| name.tag().is_some() && name.name() == bare.name())
                .collect();
            if !tags.is_empty() {
                for (id, tag) in tags {
                    chosen.entry(id).or_default().push(tag);
                }
                continue;
            }
        }
        let id = shared.find(name)?;
        let tags = chosen.entry(id).or_default();
        if let Some(name) = parsed.filter(|name| name.tag().is_some() && name.digest().is_none())
            && shared.lookup(&name)?.is_some()
        {
            tags.push(name);
        }
    }
    for tags in chosen.values_mut() {
        tags.sort();
        tags.dedup();
    }
    Ok(chosen)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn io_error(error: io::Error) -> Error {
    Error::io("writing the archive", error)
}

struct Writer<'a> {
    shared: &'a Shared,
    output: &'a mut (dyn Write + Send),
    written: BTreeSet<String>,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(io_error)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(io_error)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        self.header(path, EntryType::Directory, 0o755, 0)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = size.next_multiple_of(512) - size;
        self.write(&[0; 512][..usize::try_from(rest).unwrap_or(0)])
    }

    /// Writes a small file once.
    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        if !self.written.insert(path.into()) {
            return Ok(());
        }
        self.header(path, EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Writes the layers of an image uncompressed, each once, under their diff IDs.
    fn layers(&mut self, record: &ImageRecord) -> Result<Vec<Descriptor>> {
        let mut layers = Vec::new();
        for chain in &record.chain {
            let key = layer_key(&record.driver, chain);
            let layer = self
                .shared
                .layers
                .get(&key)?
                .ok_or_else(|| Error::Layer(format!("layer {chain} is missing")))?;
            let size = layer.plain_size;
            let path = blob_path(&layer.diff_id);
            if self.written.insert(path.clone()) {
                self.header(&path, EntryType::Regular, 0o644, size)?;
                self.copy(&layer.blob, size)?;
                self.pad(size)?;
            }
            layers.push(Descriptor {
                media_type: OCI_LAYER_TAR.into(),
                digest: layer.diff_id,
                size,
            });
        }
        Ok(layers)
    }

    fn copy(&mut self, blob: &Descriptor, size: u64) -> Result<()> {
        let file = self.shared.content.open_blob(&blob.digest)?;
        let (mut plain, _) = inflate(file).map_err(io_error)?;
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = plain.read(&mut buffer[..want]).map_err(io_error)?;
            if count == 0 {
                return Err(Error::Layer(format!(
                    "layer {} is shorter than it was",
                    blob.digest
                )));
            }
            self.output.write_all(&buffer[..count]).map_err(io_error)?;
            left -= count as u64;
        }
        Ok(())
    }
}
