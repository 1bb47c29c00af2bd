//! gzip streams, one member after another. Source: RFC 1952.
//!
//! flate2 inflates; header and trailer are read here, because its own checksum costs a fifth of the whole.

use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use flate2::bufread::DeflateDecoder;

/// Flags of a member: fields that follow the fixed header, and bits that must be zero.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// Gives the plain bytes; fails at the end of a member whose checksum or length is wrong.
pub(crate) struct Gunzip<R> {
    /// Nothing after the last member, and after a failure.
    body: Option<DeflateDecoder<R>>,
    whole: bool,
    sum: Hasher,
    length: u32,
}

impl<R: BufRead> Gunzip<R> {
    /// Reads the header of the first member.
    ///
    /// # Errors
    /// `InvalidData` for what is no gzip stream; those of the input.
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        skip_header(&mut input)?;
        Ok(Self {
            body: Some(DeflateDecoder::new(input)),
            whole: false,
            sum: Hasher::new(),
            length: 0,
        })
    }

    /// Checks the member that has ended, and begins the next if there is one.
    fn next_member(&mut self, mut input: R) -> io::Result<()> {
        let mut trailer = [0; 8];
        input.read_exact(&mut trailer)?;
        let [s0, s1, s2, s3, l0, l1, l2, l3] = trailer;
        let sum = std::mem::take(&mut self.sum).finalize();
        let length = std::mem::take(&mut self.length);
        if sum != u32::from_le_bytes([s0, s1, s2, s3]) {
            return Err(invalid("gzip: invalid checksum"));
        }
        if length != u32::from_le_bytes([l0, l1, l2, l3]) {
            return Err(invalid("gzip: invalid length"));
        }
        if input.fill_buf()?.is_empty() {
            self.whole = true;
        } else {
            skip_header(&mut input)?;
            self.body = Some(DeflateDecoder::new(input));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            let Some(body) = &mut self.body else {
                return match self.whole {
                    true => Ok(0),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            };
            let count = body.read(buffer)?;
            if count > 0 {
                self.sum.update(&buffer[..count]);
                // The trailer has the length modulo 2^32.
                self.length = self.length.wrapping_add(count as u32);
                return Ok(count);
            }
            if let Some(body) = self.body.take() {
                self.next_member(body.into_inner())?;
            }
        }
        Ok(0)
    }
}

fn skip_header(input: &mut impl BufRead) -> io::Result<()> {
    let mut fixed = [0; 10];
    input.read_exact(&mut fixed)?;
    let [0x1f, 0x8b, 8, flags, ..] = fixed else {
        return Err(invalid("gzip: invalid header"));
    };
    if flags & RESERVED != 0 {
        return Err(invalid("gzip: invalid header"));
    }
    if flags & EXTRA != 0 {
        let mut length = [0; 2];
        input.read_exact(&mut length)?;
        skip(input, u64::from(u16::from_le_bytes(length)))?;
    }
    for field in [NAME, COMMENT] {
        if flags & field != 0 {
            input.skip_until(0)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        skip(input, 2)?;
    }
    Ok(())
}

fn skip(input: &mut impl BufRead, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut input.by_ref().take(count), &mut io::sink())?;
    match skipped == count {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn member(plain: &[u8]) -> Vec<u8> {
        let builder = GzBuilder::new().filename("a").comment("b").extra(*b"cdef");
        let mut encoder = builder.write(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Gunzip::new(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn members_follow_one_another() {
        let all = [member(b"one "), member(b""), member(&[7; 100_000])].concat();
        let plain = read(&all).unwrap();
        assert_eq!(plain, [&b"one "[..], &[7; 100_000]].concat());
        let bare = GzBuilder::new().write(Vec::new(), Compression::default());
        let mut bare = bare.finish().unwrap();
        bare.splice(3..4, [HEADER_CRC]);
        bare.splice(10..10, [1, 2]);
        assert_eq!(read(&bare).unwrap(), b"");
    }

    #[test]
    fn nothing_damaged_is_taken() {
        let good = member(b"some text");
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut to {cut}");
        }
        for at in good.len() - 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let error = read(&bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}");
        }
        let mut reserved = good.clone();
        reserved[3] |= 0x80;
        assert!(read(&reserved).is_err());
        let garbage = [good.clone(), b"no member".to_vec()].concat();
        let mut reader = Gunzip::new(&garbage[..]).unwrap();
        let mut plain = Vec::new();
        assert!(reader.read_to_end(&mut plain).is_err());
        assert!(reader.read(&mut [0; 9]).is_err(), "it has not ended well");
    }
}
