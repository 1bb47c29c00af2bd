//! Maps of sparse files.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, Header};

use super::{Entry, MAX_META, TarReader, invalid, number, pax};

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where an entry's data belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) real_size: u64,
    pub(crate) segments: Vec<Segment>,
}

/// As many runs as fit into the largest map of version 1.0.
const MAX_SEGMENTS: usize = 1 << 18;

impl Sparse {
    /// Runs must ascend, stay within the file, and hold exactly the data that is stored.
    pub(super) fn check(&self, stored: u64) -> io::Result<()> {
        let mut end = 0_u64;
        let mut data = 0_u64;
        for segment in &self.segments {
            let next = segment.offset.checked_add(segment.length);
            match next {
                Some(next) if segment.offset >= end && next <= self.real_size => end = next,
                _ => return Err(invalid("invalid map of a sparse file")),
            }
            data += segment.length;
        }
        if data != stored || self.real_size > i64::MAX as u64 {
            return Err(invalid("invalid map of a sparse file"));
        }
        Ok(())
    }
}

/// The oldest form: four runs in the header, 21 in each block that follows it.
pub(super) fn old_gnu<R: Read>(
    reader: &mut TarReader<R>,
    header: &Header,
    entry: &mut Entry,
) -> io::Result<()> {
    let gnu = header
        .as_gnu()
        .ok_or_else(|| invalid("a sparse entry without a GNU header"))?;
    let mut segments = Vec::new();
    for raw in gnu.sparse.iter().filter(|raw| !raw.is_empty()) {
        segments.push(Segment {
            offset: number(&raw.offset)?,
            length: number(&raw.numbytes)?,
        });
    }
    let mut extended = gnu.is_extended();
    while extended {
        let mut block = GnuExtSparseHeader::new();
        reader.input.read_exact(block.as_mut_bytes())?;
        for raw in block.sparse().iter().filter(|raw| !raw.is_empty()) {
            segments.push(Segment {
                offset: number(&raw.offset)?,
                length: number(&raw.numbytes)?,
            });
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(invalid("the map of a sparse file is too large"));
        }
        extended = block.is_extended();
    }
    entry.sparse = Some(Sparse {
        real_size: number(&gnu.realsize)?,
        segments,
    });
    Ok(())
}

/// Version 1.0: decimal numbers, one a line, before the data and padded to a block.
pub(super) fn version_1<R: Read>(reader: &mut TarReader<R>, entry: &mut Entry) -> io::Result<()> {
    let mut used = 0_u64;
    let mut block = [0; 512];
    let mut at = block.len();
    let mut line = Vec::new();
    let mut next = |reader: &mut TarReader<R>| -> io::Result<u64> {
        line.clear();
        loop {
            if at == block.len() {
                reader.read_exact(&mut block)?;
                used += block.len() as u64;
                if used > MAX_META {
                    return Err(invalid("the map of a sparse file is too large"));
                }
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return pax::number(&line);
            }
            line.push(byte);
        }
    };
    let count = next(reader)?;
    if count > MAX_SEGMENTS as u64 {
        return Err(invalid("the map of a sparse file is too large"));
    }
    let mut segments = Vec::new();
    for _ in 0..count {
        let offset = next(reader)?;
        let length = next(reader)?;
        segments.push(Segment { offset, length });
    }
    entry.size = reader.remaining;
    if let Some(sparse) = &mut entry.sparse {
        sparse.segments = segments;
    }
    Ok(())
}
