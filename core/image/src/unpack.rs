//! From a layer as it came to a directory: inflate and hash on one thread, extract on another.

use std::io::{self, BufReader, Read};
use std::path::Path;

use gantry_content::Hasher;
use gantry_driver_api::storage::WhiteoutStyle;
use gantry_model::Digest;

use crate::chunks::{CHUNK, ChunkSender, chunks};
use crate::extract::{Extracted, extract};
use crate::inflate::inflate;

/// What a layer was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) extracted: Extracted,
    pub(crate) plain: Plain,
}

/// The uncompressed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) diff_id: Digest,
    pub(crate) length: u64,
}

/// Unpacks a layer into `target`; the caller compares the diff ID. Reads `input` to its end unless it fails. `plain` is the
/// digest of an input that is not compressed, where somebody else verifies it.
///
/// # Errors
/// Those of the input, of the decompressor and of [`extract`].
pub(crate) fn unpack(
    input: impl Read + Send,
    target: &Path,
    style: WhiteoutStyle,
    plain: Option<&Digest>,
) -> io::Result<Unpacked> {
    if let Some(digest) = plain {
        return extract_plain(input, target, style, digest);
    }
    let (sender, mut reader) = chunks();
    std::thread::scope(|scope| {
        let inflater = std::thread::Builder::new()
            .name("inflate".into())
            .spawn_scoped(scope, move || inflate_and_hash(input, &sender))?;
        let extracted = extract(target, style, &mut reader);
        // Lets the inflater go where the extractor has given up.
        drop(reader);
        let plain = inflater
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the inflater panicked")));
        Ok(Unpacked {
            extracted: extracted?,
            plain: plain?,
        })
    })
}

fn extract_plain(
    input: impl Read,
    target: &Path,
    style: WhiteoutStyle,
    digest: &Digest,
) -> io::Result<Unpacked> {
    let mut input = Measured {
        inner: BufReader::with_capacity(CHUNK, input),
        length: 0,
    };
    let extracted = extract(target, style, &mut input)?;
    let plain = Plain {
        diff_id: digest.clone(),
        length: input.length,
    };
    Ok(Unpacked { extracted, plain })
}

/// Counts what is read.
struct Measured<R> {
    inner: R,
    length: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.length += count as u64;
        Ok(count)
    }
}

fn inflate_and_hash(input: impl Read + Send, sender: &ChunkSender) -> io::Result<Plain> {
    let mut hasher = Hasher::sha256();
    let mut length = 0;
    let inflated = inflate(input).and_then(|(mut plain, _)| {
        loop {
            let mut chunk = sender.buffer();
            let filled = fill(&mut plain, &mut chunk)?;
            if filled == 0 {
                return Ok(());
            }
            chunk.truncate(filled);
            hasher.update(&chunk);
            length += filled as u64;
            sender.send(chunk)?;
        }
    });
    inflated.map_err(|error| {
        let copy = io::Error::new(error.kind(), error.to_string());
        // The extractor must not take what came for the whole.
        sender.fail(error);
        copy
    })?;
    Ok(Plain {
        diff_id: hasher.finish(),
        length,
    })
}

/// Reads until the buffer is full or the input ends.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_compression_gives_the_same_diff_id() {
        let mut header = tar::Header::new_gnu();
        header.set_path("f").unwrap();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        let mut plain = header.as_bytes().to_vec();
        plain.extend_from_slice(b"hello");
        plain.resize(2048, 0);
        let mut hasher = Hasher::sha256();
        hasher.update(&plain);
        let wanted = hasher.finish();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for bytes in [plain.clone(), gzip.finish().unwrap(), zstd] {
            let dir = tempfile::tempdir().unwrap();
            let unpacked = unpack(&bytes[..], dir.path(), WhiteoutStyle::Overlay, None).unwrap();
            assert_eq!(unpacked.extracted.bytes, 5);
            assert_eq!(unpacked.plain.diff_id, wanted);
            assert_eq!(unpacked.plain.length, plain.len() as u64);
            assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"hello");
        }
        let dir = tempfile::tempdir().unwrap();
        let trusted = unpack(
            &plain[..],
            dir.path(),
            WhiteoutStyle::Overlay,
            Some(&wanted),
        );
        let trusted = trusted.unwrap().plain;
        assert_eq!(
            (trusted.diff_id, trusted.length),
            (wanted, plain.len() as u64)
        );
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"hello");
        for bad in [&b"BZh91AY"[..], b"\xfd7zXZ\0\0\0", b"\x1f\x8b\x08nonsense"] {
            let dir = tempfile::tempdir().unwrap();
            assert!(unpack(bad, dir.path(), WhiteoutStyle::Overlay, None).is_err());
        }
        let dir = tempfile::tempdir().unwrap();
        let cut = &zstd::encode_all(&plain[..], 1).unwrap()[..20];
        assert!(unpack(cut, dir.path(), WhiteoutStyle::Overlay, None).is_err());
    }
}
