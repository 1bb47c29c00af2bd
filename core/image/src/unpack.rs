//! From a layer as it came to a directory: inflate and hash on one thread, extract on another.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gantry_content::Hasher;
use gantry_driver_api::storage::WhiteoutStyle;
use gantry_model::Digest;

use crate::extract::{Extracted, extract};

/// Bytes that pass between two threads at once.
pub(crate) const CHUNK: usize = 128 << 10;
/// Chunks that may wait between two threads.
const DEPTH: usize = 8;

/// One end of a stream between threads: bytes, or why there are no more.
pub(crate) type ChunkSender = SyncSender<io::Result<Vec<u8>>>;

/// The other end. The stream ends when the sender is dropped.
pub(crate) struct ChunkReader {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

pub(crate) fn chunks() -> (ChunkSender, ChunkReader) {
    let (sender, receiver) = sync_channel(DEPTH);
    let reader = ChunkReader {
        receiver,
        chunk: Vec::new(),
        at: 0,
    };
    (sender, reader)
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.at..])
    }
    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// How a stream is compressed, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// # Errors
    /// `InvalidData` for compressions that are recognised and not supported.
    pub(crate) fn of(start: &[u8]) -> io::Result<Self> {
        let unsupported = |name: &str| {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{name} compression is not supported"),
            ))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0x42, 0x5a, 0x68, ..] => unsupported("bzip2"),
            [0xfd, 0x37, 0x7a, 0x58, 0x5a, ..] => unsupported("xz"),
            _ => Ok(Self::None),
        }
    }
}

/// A reader of the plain bytes of a stream that may be compressed.
///
/// # Errors
/// Those of reading the start, and of [`Compression::of`].
pub(crate) fn inflate<'a>(
    input: impl Read + Send + 'a,
) -> io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
    const MAGIC: usize = 8;
    let mut input = BufReader::with_capacity(CHUNK, input);
    let mut start = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start)?;
    let compression = Compression::of(&start)?;
    let whole = io::Cursor::new(start).chain(input);
    Ok((
        match compression {
            Compression::None => Box::new(whole),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        },
        compression,
    ))
}

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

/// Unpacks a layer into `target`; the caller compares the diff ID. Reads `input` to its end unless it fails.
///
/// # Errors
/// Those of the input, of the decompressor and of [`extract`].
pub(crate) fn unpack(
    input: impl Read + Send,
    target: &Path,
    style: WhiteoutStyle,
) -> io::Result<Unpacked> {
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

fn inflate_and_hash(input: impl Read + Send, sender: &ChunkSender) -> io::Result<Plain> {
    let mut hasher = Hasher::sha256();
    let mut length = 0;
    let mut plain = match inflate(input) {
        Ok((plain, _)) => plain,
        Err(error) => {
            let copy = io::Error::new(error.kind(), error.to_string());
            // The extractor fails with the error itself; a gone extractor needs no error.
            let _ = sender.send(Err(error));
            return Err(copy);
        }
    };
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        let mut failed = None;
        while filled < chunk.len() {
            match plain.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failed {
            let copy = io::Error::new(error.kind(), error.to_string());
            let _ = sender.send(Err(error));
            return Err(copy);
        }
        chunk.truncate(filled);
        hasher.update(&chunk);
        length += filled as u64;
        if filled == 0 {
            return Ok(Plain {
                diff_id: hasher.finish(),
                length,
            });
        }
        if sender.send(Ok(chunk)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
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
            let unpacked = unpack(&bytes[..], dir.path(), WhiteoutStyle::Overlay).unwrap();
            assert_eq!(unpacked.extracted.bytes, 5);
            assert_eq!(unpacked.plain.diff_id, wanted);
            assert_eq!(unpacked.plain.length, plain.len() as u64);
            assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"hello");
        }
        for bad in [&b"BZh91AY"[..], b"\xfd7zXZ\0\0\0", b"\x1f\x8bnonsense"] {
            let dir = tempfile::tempdir().unwrap();
            assert!(unpack(bad, dir.path(), WhiteoutStyle::Overlay).is_err());
        }
        let dir = tempfile::tempdir().unwrap();
        let cut = &zstd::encode_all(&plain[..], 1).unwrap()[..20];
        assert!(unpack(cut, dir.path(), WhiteoutStyle::Overlay).is_err());
    }
}
