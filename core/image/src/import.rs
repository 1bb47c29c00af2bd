//! Import: one tar archive becomes an image of one layer.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use gantry_content::Hasher;
use gantry_model::{Digest, ImageId, Platform, Timestamp};

use crate::changes;
use crate::chunks::CHUNK;
use crate::config::{ContainerDefaults, History, ImageConfig, RootFs};
use crate::inflate::inflate;
use crate::install::Install;
use crate::load::Local;
use crate::manifest::OCI_LAYER_TAR;
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, ImportOptions, Message, Progress, Result};

/// How often it is told how far an archive has come.
const TELL_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn import(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImageId> {
    let mut defaults = ContainerDefaults::default();
    changes::apply(&mut defaults, &options.changes)?;
    let hold = shared.hold();
    let mut ingest = shared.content.begin_unnamed()?;
    let mut buffer = vec![0; CHUNK];
    let mut told = Instant::now();
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        if let Some(total) = options.remote
            && told.elapsed() > TELL_EVERY
        {
            told = Instant::now();
            progress.report(Message {
                id: None,
                ..Message::moving("", "Importing", ingest.offset(), total)
            });
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

    let (layer, size, diff_id, media_type) = as_layer(shared, layer, size)?;
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
            media_type: media_type.into(),
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
    let event = |action: &'static str, shown: String| {
        shared.image_event(action, id.to_string(), shown, Default::default())
    };
    let tagged = name.map(|name| event("tag", name.familiar()));
    let events = tagged.into_iter().chain([event("import", id.to_string())]);
    install.run(&names, events.collect())?;
    hold.settle();
    progress.report(Message::status(id.to_string()));
    Ok(id)
}

/// The blob to keep of an archive that came as `archive`: itself, or its plain bytes where no media type of layers says
/// how it is compressed. With its length, its diff ID and its media type.
fn as_layer(
    shared: &Shared,
    archive: Digest,
    size: u64,
) -> Result<(Digest, u64, Digest, &'static str)> {
    let bad = |error: io::Error| Error::Malformed(format!("invalid archive: {error}"));
    let (mut plain, compression) = inflate(shared.content.open_blob(&archive)?).map_err(bad)?;
    let (mut ingest, media_type) = match compression.media_type() {
        Some(kept) => (None, kept),
        None => (Some(shared.content.begin_unnamed()?), OCI_LAYER_TAR),
    };
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = plain.read(&mut buffer).map_err(bad)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        if let Some(ingest) = &mut ingest {
            ingest.write(&buffer[..count])?;
        }
    }
    let diff_id = hasher.finish();
    let Some(ingest) = ingest else {
        return Ok((archive, size, diff_id, media_type));
    };
    let size = ingest.offset();
    Ok((ingest.finish()?, size, diff_id, media_type))
}

fn configuration(
    options: &ImportOptions,
    defaults: ContainerDefaults,
    diff_id: Digest,
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
            comment: message.clone(),
            ..History::default()
        }],
        comment: message,
        docker_version: String::new(),
    }
}
