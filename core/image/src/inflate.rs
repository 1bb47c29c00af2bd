//! Plain bytes from compressed ones: layers, archives of images, archives that go into containers.

use std::io::{self, BufReader, Read};

use crate::gunzip::Gunzip;
use crate::manifest::{OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD};

/// Bytes read at once.
const CHUNK: usize = 128 << 10;
/// An xz stream that needs more memory is refused, in KiB; `xz -9` makes streams that need 65 MiB.
const XZ_MEMORY: u32 = 96 << 10;

/// How a stream is compressed, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            // A frame, or a skippable frame before one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// OCI's media type of layers that are compressed so; none where there is none.
    pub(crate) fn media_type(self) -> Option<&'static str> {
        match self {
            Self::None => Some(OCI_LAYER_TAR),
            Self::Gzip => Some(OCI_LAYER_GZIP),
            Self::Zstd => Some(OCI_LAYER_ZSTD),
            Self::Bzip2 | Self::Xz => None,
        }
    }
}

/// A reader of the plain bytes of a stream that may be compressed. Streams that follow one another are read as one, as the
/// programs of each format do.
///
/// # Errors
/// Those of reading the start.
pub(crate) fn inflate<'a>(
    input: impl Read + Send + 'a,
) -> io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
    const MAGIC: usize = 8;
    let mut input = BufReader::with_capacity(CHUNK, input);
    let mut start = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start)?;
    let compression = Compression::of(&start);
    let whole = io::Cursor::new(start).chain(input);
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(Gunzip::new(whole)?),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY)),
    };
    Ok((plain, compression))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn by_program(program: &str, flag: &str, plain: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(["-c", flag])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(plain).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    fn read(bytes: &[u8]) -> io::Result<(Vec<u8>, Compression)> {
        let (mut plain, compression) = inflate(bytes)?;
        let mut all = Vec::new();
        plain.read_to_end(&mut all)?;
        Ok((all, compression))
    }

    #[test]
    fn what_the_programs_write_is_read() {
        let plain = b"a little text ".repeat(500);
        for (program, flag, kind) in [
            ("gzip", "-1", Compression::Gzip),
            ("zstd", "-9", Compression::Zstd),
            ("bzip2", "-9", Compression::Bzip2),
            ("xz", "-9", Compression::Xz),
        ] {
            let once = by_program(program, flag, &plain);
            assert_eq!(read(&once).unwrap(), (plain.clone(), kind), "{program}");
            let twice = once.repeat(2);
            assert_eq!(read(&twice).unwrap(), (plain.repeat(2), kind), "{program}");
            let cut = &once[..once.len() - 9];
            assert!(read(cut).is_err(), "{program}");
        }
        assert_eq!(read(&plain).unwrap(), (plain, Compression::None));
        assert_eq!(read(b"").unwrap(), (Vec::new(), Compression::None));
    }

    #[test]
    fn an_xz_stream_cannot_ask_for_all_memory() {
        // The block's header follows the stream's 12 bytes: its length, flags, the filter LZMA2 (0x21), the length of the
        // filter's properties, and these: 40 is a dictionary of 4 GiB.
        let mut greedy = by_program("xz", "-1", b"text");
        assert_eq!(greedy[14..16], [0x21, 1]);
        greedy[16] = 40;
        let header = 12..usize::from(greedy[12]) * 4 + 12;
        let sum = crc32(&greedy[header.clone()]);
        greedy[header.end..header.end + 4].copy_from_slice(&sum.to_le_bytes());
        let error = read(&greedy).unwrap_err();
        assert!(error.to_string().contains("mem"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        sum.sum()
    }
}
