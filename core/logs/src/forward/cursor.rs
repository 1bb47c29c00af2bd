//! Up to where a log was forwarded, on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The file, by the time of its first entry.
    pub(crate) first: i64,
    /// Bytes of entries in it that need not be sent any more.
    pub(crate) offset: u64,
}

/// The file of a place. One write of a few bytes, which a killed process does or does not; a power cut may tear it, and
/// then everything that is there is sent again.
#[derive(Debug)]
pub(crate) struct PlaceFile(File);

/// What it looks like: numbers of constant width.
const WIDTH: usize = 42;

impl PlaceFile {
    /// Opens or makes it.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Place>)> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = [0; WIDTH];
        let place = match file.read_exact_at(&mut text, 0) {
            Ok(()) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self(file), place))
    }

    /// Writes a place down.
    pub(crate) fn put(&self, place: Place) -> io::Result<()> {
        let text = format!("{:020} {:020}\n", place.first, place.offset);
        self.0.write_all_at(text.as_bytes(), 0)
    }
}

fn parse(text: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (first, offset) = text.split_once(' ')?;
    Some(Place {
        first: first.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let (file, none) = PlaceFile::open(&path).unwrap();
        assert_eq!(none, None);
        for first in [i64::MIN, -1, 0, 1_700_000_000_123_456_789, i64::MAX] {
            let place = Place {
                first,
                offset: 1 << 40,
            };
            file.put(place).unwrap();
            assert_eq!(PlaceFile::open(&path).unwrap().1, Some(place));
        }
        std::fs::write(&path, "torn").unwrap();
        assert_eq!(PlaceFile::open(&path).unwrap().1, None);
    }
}
