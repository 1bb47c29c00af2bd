//! Import: one tar archive becomes an image of one layer.

use std::io::{self, Read};

use gantry_content::Hasher;
use gantry_model::{ImageId, Platform, Timestamp};

use crate::changes;
use crate::config::{ContainerDefaults, History, ImageConfig, RootFs};
use crate::install::Install;
use crate::load::Local;
use crate::manifest::{OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::unpack::{CHUNK, Compression, inflate};
use crate::{Error, ImportOptions, Message, Progress, Result};

pub(crate) fn import(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImageId> {
    let mut defaults = ContainerDefaults::default();
    changes::apply(&mut defaults, &options.changes)?;
    let hold = shared.content.hold();
    let mut ingest = shared.content.begin_unnamed()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => ingest.write(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("reading the archive", error)),
        }
    }
    let size = ingest.offset();
    let layer = ingest.finish()?;

    let (diff_id, compression) = diff_id(shared.content.open_blob(&layer)?)?;
    let config = configuration(options, defaults, diff_id);
    let json = serde_json::to_vec(&config)
        .map_err(|error| Error::Malformed(format!("image configuration: {error}")))?;
    let mut hasher = Hasher::sha256();
    hasher.update(&json);
    let id = hasher.finish();
    shared.content.write(&json)?;
    let name = options.name.clone().map(|name| name.with_default_tag());
    let install = Install {
        shared,
        id: id.clone(),
        config,
        layers: vec![Descriptor {
            media_type: media_type(compression).into(),
            digest: layer.clone(),
            size,
        }],
        manifest: None,
        blobs: vec![layer],
        parent: None,
        workers: 1,
        source: &Local {
            progress,
            quiet: true,
        },
    };
    let names: Vec<_> = name.iter().map(|name| (name.clone(), None)).collect();
    let shown = name.map_or_else(|| id.to_string(), |name| name.familiar());
    let event = shared.image_event("import", id.to_string(), shown, Default::default());
    let installed = install.run(&names, vec![event]);
    drop(hold);
    if let Err(error) = installed {
        shared.collect_blobs()?;
        return Err(error);
    }
    progress.report(Message::status(id.to_string()));
    Ok(id)
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER_TAR,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

fn diff_id(file: std::fs::File) -> Result<(gantry_model::Digest, Compression)> {
    let bad = |error: io::Error| Error::Malformed(format!("invalid archive: {error}"));
    let (mut plain, compression) = inflate(file).map_err(bad)?;
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = plain.read(&mut buffer).map_err(bad)?;
        if count == 0 {
            return Ok((hasher.finish(), compression));
        }
        hasher.update(&buffer[..count]);
    }
}

fn configuration(
    options: &ImportOptions,
    defaults: ContainerDefaults,
    diff_id: gantry_model::Digest,
) -> ImageConfig {
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let now = Timestamp::now();
    let message = if options.message.is_empty() {
        "Imported from -".into()
    } else {
        options.message.clone()
    };
    ImageConfig {
        created: Some(now),
        author: String::new(),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        os_version: String::new(),
        config: defaults,
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: vec![diff_id],
        },
        history: vec![History {
            created: Some(now),
            comment: message,
            ..History::default()
        }],
        comment: options.message.clone(),
        docker_version: String::new(),
    }
}
