//! The files of an archive, taken into the content store as they pass.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, Read};
use std::thread::ScopedJoinHandle;

use gantry_model::Digest;

use crate::archive::{Kind, TarReader};
use crate::chunks::{ChunkReader, ChunkSender, chunks};
use crate::inflate::inflate;
use crate::service::Shared;
use crate::unpack::fill;
use crate::{Error, Progress, Result};

/// An archive of more files is refused.
const MAX_FILES: usize = 20_000;
/// Links between files of an archive are followed so often.
const MAX_LINKS: usize = 8;
/// Files that are hashed, written and flushed at once while the archive is read on.
const WRITERS: usize = 3;

/// The files of an archive, now in the content store.
#[derive(Default)]
pub(super) struct Files {
    files: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

/// A file that is being hashed and written.
type Writing<'s> = (String, ScopedJoinHandle<'s, Result<(Digest, u64)>>);

/// Reads the whole archive into the content store.
pub(super) fn take_in(
    shared: &Shared,
    input: &mut (dyn Read + Send),
    progress: &dyn Progress,
) -> Result<Files> {
    let (plain, _) = inflate(input).map_err(bad)?;
    let mut archive = TarReader::new(plain);
    let mut files = Files::default();
    std::thread::scope(|scope| {
        let mut writing: VecDeque<Writing<'_>> = VecDeque::new();
        while let Some(entry) = archive.next().map_err(bad)? {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let path = tidy(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    // The last of one name counts.
                    let again = writing.iter().any(|(other, _)| *other == path);
                    while again && files.settle(&mut writing)? {}
                    if writing.len() == WRITERS {
                        files.settle(&mut writing)?;
                    }
                    let (sender, reader) = chunks();
                    let writer = std::thread::Builder::new()
                        .name("ingest".into())
                        .spawn_scoped(scope, move || write(shared, reader))
                        .map_err(|error| Error::io("starting a thread", error))?;
                    writing.push_back((path, writer));
                    hand_on(&mut archive, &sender, progress)?;
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
        while files.settle(&mut writing)? {}
        Ok(files)
    })
}

fn bad(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::Malformed(format!("invalid archive: {error}"))
        }
        _ => Error::io("reading the archive", error),
    }
}

/// Reads one file, as long as somebody writes it.
fn hand_on(archive: &mut impl Read, sender: &ChunkSender, progress: &dyn Progress) -> Result<()> {
    loop {
        let mut buffer = sender.buffer();
        let filled = match fill(archive, &mut buffer) {
            Ok(_) if progress.cancelled() => Err(Error::Cancelled),
            Ok(filled) => Ok(filled),
            Err(error) => Err(bad(error)),
        };
        let filled = filled.inspect_err(|_| {
            // What has come is not the file.
            sender.fail(io::ErrorKind::ConnectionAborted.into());
        })?;
        buffer.truncate(filled);
        if filled == 0 || sender.send(buffer).is_err() {
            return Ok(());
        }
    }
}

/// Hashes and writes one file.
fn write(shared: &Shared, mut reader: ChunkReader) -> Result<(Digest, u64)> {
    let mut ingest = shared.content.begin_unnamed()?;
    loop {
        let bytes = reader
            .fill_buf()
            .map_err(|error| Error::io("reading the archive", error))?;
        let count = bytes.len();
        if count == 0 {
            break;
        }
        ingest.write(bytes)?;
        reader.consume(count);
    }
    let size = ingest.offset();
    Ok((ingest.finish()?, size))
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
    /// Waits for the file that came first of those being written; `false` when there is none.
    fn settle(&mut self, writing: &mut VecDeque<Writing<'_>>) -> Result<bool> {
        let Some((path, writer)) = writing.pop_front() else {
            return Ok(false);
        };
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(Error::Layer("a writer has panicked".into())));
        self.files.insert(path, written?);
        Ok(true)
    }

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
