//! A bounded reader of tar archives.
//!
//! The `tar` crate decodes header fields; reading the stream is done here, so that everything an archive can make us hold
//! in memory has a limit, and because extended attributes, fractional times and all forms of sparse files are wanted.
//! Source: POSIX.1-2017 `pax`, GNU tar manual *Basic Tar Format* and *Storing Sparse Files*.

mod entry;
mod pax;
mod sparse;

pub(crate) use entry::{Entry, Kind};
pub(crate) use sparse::Segment;

use std::io::{self, Read};

use tar::{EntryType, Header};

use entry::Pending;

const BLOCK: usize = 512;
/// An extended header, long name or sparse map of more bytes is refused.
const MAX_META: u64 = 1 << 20;

/// Reads one archive from front to back. `Read` gives the data of the current entry.
pub(crate) struct TarReader<R> {
    input: R,
    /// Bytes of the current entry's data that have not been read.
    remaining: u64,
    /// Bytes between the end of that data and the next header.
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            remaining: 0,
            padding: 0,
        }
    }

    /// The next entry, its data not read yet; `None` at the archive's end.
    ///
    /// # Errors
    /// `InvalidData` for what is no tar archive, `UnexpectedEof` for one that is cut off.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if pending.is_empty() {
                    return Ok(None);
                }
                return Err(invalid("an extended header without an entry"));
            };
            let size = match pending.size() {
                Some(size) => size,
                None => size_of(&header)?,
            };
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.meta(size_of(&header)?)?;
                    pending.pax(&bytes)?;
                }
                EntryType::GNULongName => {
                    pending.name = Some(until_nul(self.meta(size_of(&header)?)?));
                }
                EntryType::GNULongLink => {
                    pending.link = Some(until_nul(self.meta(size_of(&header)?)?));
                }
                // Global headers carry comments (git's commit); nothing in them concerns a file.
                EntryType::XGlobalHeader => {
                    self.meta(size_of(&header)?)?;
                }
                // A volume's label.
                other if other.as_byte() == b'V' => self.expect(size_of(&header)?)?,
                _ => {
                    self.expect(size)?;
                    return self.finish(pending, &header, size).map(Some);
                }
            }
        }
    }

    /// Reads what is left after the archive's end, so that whoever hashes the stream sees all of it.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(|_| ())
    }

    fn finish(&mut self, pending: Pending, header: &Header, size: u64) -> io::Result<Entry> {
        let mut entry = pending.entry(header, size)?;
        if header.entry_type() == EntryType::GNUSparse {
            sparse::old_gnu(self, header, &mut entry)?;
        } else if entry.sparse_in_data {
            sparse::version_1(self, &mut entry)?;
        }
        if let Some(sparse) = &entry.sparse {
            sparse.check(self.remaining)?;
        }
        Ok(entry)
    }

    /// The next header block; `None` at the end mark or the end of input between entries.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => have += count,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = block
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum::<u32>();
        if number(&header.as_old().cksum)? != u64::from(sum) {
            return Err(invalid("invalid tar header"));
        }
        Ok(Some(header))
    }

    /// Sets up the data of an entry.
    fn expect(&mut self, size: u64) -> io::Result<()> {
        if size > u64::MAX / 2 {
            return Err(invalid("an entry's size is out of range"));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Reads the whole data of a header entry.
    fn meta(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_META {
            return Err(invalid("an extended header is too large"));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let (data, rest) = (self.remaining, self.remaining + self.padding);
        (self.remaining, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())?;
        // Some writers (umoci 0.4) leave out what follows the last entry's data: its padding, and the end mark.
        if skipped < data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the current entry's data; `UnexpectedEof` when the archive ends in the middle of it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn size_of(header: &Header) -> io::Result<u64> {
    number(&header.as_old().size)
}

/// A numeric field as the programs in use write them: octal with blanks or nulls around it, nothing at all for zero, or
/// base-256 with the first bit set (negative values are refused).
fn number(field: &[u8]) -> io::Result<u64> {
    let bad = || invalid("invalid number in a tar header");
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for byte in &field[1..] {
            value = value.checked_mul(256).ok_or_else(bad)? | u64::from(*byte);
        }
        return Ok(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field
        .iter()
        .skip_while(|byte| blank(byte))
        .take_while(|byte| !blank(byte));
    let mut value = 0_u64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad());
        }
        value = value.checked_mul(8).ok_or_else(bad)? | u64::from(digit - b'0');
    }
    Ok(value)
}

/// As [`number`], of a field that base-256 may make negative, as two's complement; `None` for what is out of range.
fn signed(field: &[u8]) -> Option<i64> {
    if field[0] != 0xff {
        return number(field).ok()?.try_into().ok();
    }
    field[1..].iter().try_fold(-1_i64, |value, byte| {
        value.checked_mul(256)?.checked_add(i64::from(*byte))
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests;
