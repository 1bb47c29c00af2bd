//! The files of an archive, taken into the content store as they pass.

use std::collections::HashMap;
use std::io::Read;

use gantry_model::Digest;

use crate::archive::{Kind, TarReader};
use crate::chunks::CHUNK;
use crate::inflate::inflate;
use crate::service::Shared;
use crate::{Error, Progress, Result};

/// An archive of more files is refused.
const MAX_FILES: usize = 20_000;
/// Links between files of an archive are followed so often.
const MAX_LINKS: usize = 8;
/// The files of an archive, now in the content store.
#[derive(Default)]
pub(super) struct Files {
    files: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

/// Reads the whole archive into the content store.
pub(super) fn take_in(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    progress: &dyn Progress,
) -> Result<Files> {
    let bad = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            Error::Malformed(format!("invalid archive: {error}"))
        }
        _ => Error::io("reading the archive", error),
    };
    let (plain, _) = inflate(input).map_err(bad)?;
    let mut archive = TarReader::new(plain);
    let mut files = Files::default();
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = archive.next().map_err(bad)? {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let path = tidy(&String::from_utf8_lossy(&entry.path));
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                let mut ingest = shared.content.begin_unnamed()?;
                loop {
                    let count = archive.read(&mut buffer).map_err(bad)?;
                    if count == 0 {
                        break;
                    }
                    ingest.write(&buffer[..count])?;
                    if progress.cancelled() {
                        return Err(Error::Cancelled);
                    }
                }
                let size = ingest.offset();
                let digest = ingest.finish()?;
                files.files.insert(path, (digest, size));
            }
            Kind::Symlink => {
                let link = String::from_utf8_lossy(&entry.link);
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = tidy(&format!("{directory}/{link}"));
                files.links.insert(path, target);
            }
            Kind::HardLink => {
                let target = tidy(&String::from_utf8_lossy(&entry.link));
                files.links.insert(path, target);
            }
            _ => {}
        }
        if files.files.len() + files.links.len() > MAX_FILES {
            return Err(Error::Malformed("the archive has too many files".into()));
        }
    }
    Ok(files)
}

/// The path without `.`, `..` and outer slashes.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Files {
    pub(super) fn find(&self, path: &str) -> Option<&(Digest, u64)> {
        let mut path = tidy(path);
        for _ in 0..MAX_LINKS {
            if let Some(found) = self.files.get(&path) {
                return Some(found);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    pub(super) fn must(&self, path: &str) -> Result<&(Digest, u64)> {
        self.find(path)
            .ok_or_else(|| Error::Malformed(format!("invalid archive: {path} is missing")))
    }
}
