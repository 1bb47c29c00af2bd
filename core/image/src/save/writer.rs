//! The archive as tar.

use std::fs::File;
use std::io::{self, Read, Write};

use gantry_model::Digest;
use serde_json::json;
use tar::{EntryType, Header};

use super::{Documents, blob_path};
use crate::{Error, Result};

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Writes entries; nothing in them depends on when or where, so that the same images make the same archive.
pub(super) struct Writer<'a> {
    output: &'a mut (dyn Write + Send),
}

fn failed(error: io::Error) -> Error {
    Error::io("writing the archive", error)
}

impl<'a> Writer<'a> {
    pub(super) fn new(output: &'a mut (dyn Write + Send)) -> Self {
        Self { output }
    }

    pub(super) fn documents(&mut self, documents: &Documents) -> Result<()> {
        let manifest = json!(documents.archive).to_string();
        self.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.bytes("index.json", documents.index().to_string().as_bytes())?;
        self.bytes("manifest.json", manifest.as_bytes())?;
        if !documents.repositories.is_empty() {
            let repositories = json!(documents.repositories).to_string();
            self.bytes("repositories", repositories.as_bytes())?;
        }
        self.header("blobs/", EntryType::Directory, 0o755, 0)?;
        self.header("blobs/sha256/", EntryType::Directory, 0o755, 0)
    }

    pub(super) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.header(path, EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    pub(super) fn blob(&mut self, digest: &Digest, size: u64, file: File) -> Result<()> {
        self.header(&blob_path(digest), EntryType::Regular, 0o644, size)?;
        let mut file = file.take(size);
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
        let mut written = 0;
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("reading a blob", error)),
            };
            self.write(&buffer[..count])?;
            written += count as u64;
        }
        if written != size {
            return Err(Error::Layer(format!(
                "blob {digest} is shorter than it was"
            )));
        }
        self.pad(size)
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        self.write(&[0; 1024])?;
        self.output.flush().map_err(failed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(failed)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(failed)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = size.next_multiple_of(512) - size;
        self.write(&[0; 512][..usize::try_from(rest).unwrap_or(0)])
    }
}
