//! Files with holes, as GNU's extended headers of version 1.0 tell them: which the daemon sends, and the `tar` crate leaves
//! to us.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tar::Entry;

const BLOCK: usize = 512;
/// A map of more runs is refused.
const MAX_RUNS: usize = 1 << 18;

/// A file with holes.
pub(super) struct Sparse {
    /// Its true name.
    pub(super) name: PathBuf,
    /// Its size, holes included.
    pub(super) size: u64,
}

/// What an entry's extended header says of holes.
pub(super) fn of(entry: &mut Entry<'_, impl Read>) -> Result<Option<Sparse>> {
    let (mut name, mut size, mut major) = (None, None, None);
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let value = record.value().unwrap_or_default();
        match record.key().unwrap_or_default() {
            "GNU.sparse.name" => name = Some(PathBuf::from(value)),
            "GNU.sparse.realsize" => size = value.parse().ok(),
            "GNU.sparse.major" => major = Some(value == "1"),
            _ => {}
        }
    }
    match (major, name, size) {
        (None, ..) => Ok(None),
        (Some(true), Some(name), Some(size)) => Ok(Some(Sparse { name, size })),
        _ => bail!("a sparse file of an unknown kind in the archive"),
    }
}

/// Writes such a file: the map stands before its data.
pub(super) fn copy(content: &mut impl Read, file: &File, size: u64) -> Result<()> {
    file.set_len(size)?;
    let mut map = Map {
        content,
        block: [0; BLOCK],
        at: BLOCK,
    };
    let count = map.number()?;
    if count > MAX_RUNS as u64 {
        bail!("the map of a sparse file is too large");
    }
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push((map.number()?, map.number()?));
    }
    let mut buffer = vec![0; 128 << 10];
    for (mut offset, mut length) in runs {
        if offset.checked_add(length).is_none_or(|end| end > size) {
            bail!("invalid map of a sparse file");
        }
        while length > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            content.read_exact(&mut buffer[..want])?;
            file.write_all_at(&buffer[..want], offset)?;
            offset += want as u64;
            length -= want as u64;
        }
    }
    Ok(())
}

/// Decimal numbers, one a line, in whole blocks.
struct Map<'c, R> {
    content: &'c mut R,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Map<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "invalid map of a sparse file");
        let mut value = 0_u64;
        loop {
            if self.at == BLOCK {
                self.content.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return Ok(value),
                b'0'..=b'9' => {
                    let shifted = value.checked_mul(10).ok_or_else(bad)?;
                    value = shifted
                        .checked_add(u64::from(byte - b'0'))
                        .ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_are_left() {
        let mut content = b"2\n1048576\n3\n2097152\n2\n".to_vec();
        content.resize(BLOCK, 0);
        content.extend_from_slice(b"onetw");
        let file = tempfile::tempfile().unwrap();
        copy(&mut &content[..], &file, 64 << 20).unwrap();
        let mut got = [0; 3];
        file.read_exact_at(&mut got, 1 << 20).unwrap();
        assert_eq!(&got, b"one");
        file.read_exact_at(&mut got, 2 << 20).unwrap();
        assert_eq!(&got, b"tw\0");
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() < 1000);
        assert!(copy(&mut &content[..], &file, 1 << 20).is_err());
        assert!(copy(&mut &b"x"[..], &file, 1).is_err());
    }
}
