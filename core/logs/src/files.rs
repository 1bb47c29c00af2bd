//! The files of a log: the current one, and the rotated ones before it, some of them compressed.
//!
//! `path` is written to; `path.1` is the one before it, `path.2` the one before that; `.gz` at the end says compressed.
//! Names change with every rotation and inodes when a file is compressed, so a file is known by the time of its first
//! entry, which the monitor makes unique. A file without a complete first entry is not there yet.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::entry::Entry;

/// A longer line is not one that a monitor wrote.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// How often the files are listed again when a rotation came in between.
const TRIES: u32 = 20;

/// An open file of a log, read from its begin to its end.
#[derive(Debug)]
pub(crate) struct LogFile {
    input: Input,
    /// Which file it is: the time of its first entry.
    pub(crate) first: i64,
    /// Rotations since it was the current one, when it was opened.
    pub(crate) number: u32,
}

#[derive(Debug)]
enum Input {
    Plain(File),
    Packed(Packed),
}

/// A compressed file. What inflates it takes some 100 KB, which it has only while it is read.
#[derive(Debug)]
struct Packed {
    file: File,
    decoder: Option<Box<GzDecoder<BufReader<File>>>>,
    ended: bool,
}

impl Packed {
    fn new(file: File) -> Self {
        Self {
            file,
            decoder: None,
            ended: false,
        }
    }

    fn rewind(&mut self) {
        (self.decoder, self.ended) = (None, false);
    }
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => {
                self.file.rewind()?;
                let input = BufReader::with_capacity(64 << 10, self.file.try_clone()?);
                self.decoder.insert(Box::new(GzDecoder::new(input)))
            }
        };
        let read = decoder.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            (self.decoder, self.ended) = (None, true);
        }
        Ok(read)
    }
}

impl Read for LogFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::Plain(file) => file.read(buffer),
            Input::Packed(file) => file.read(buffer),
        }
    }
}

impl LogFile {
    /// Opens a file; `None` when it has no complete entry yet.
    fn new(file: File, Name { number, packed, .. }: &Name) -> io::Result<Option<Self>> {
        let (number, packed) = (*number, *packed);
        let first = match packed {
            false => first_entry(&mut At(&file, 0))?,
            true => first_entry(&mut GzDecoder::new(BufReader::new(At(&file, 0))))?,
        };
        let Some(first) = first else {
            return Ok(None);
        };
        let input = match packed {
            false => Input::Plain(file),
            true => Input::Packed(Packed::new(file)),
        };
        Ok(Some(Self {
            input,
            first,
            number,
        }))
    }

    /// The file itself, when it can be read at any place.
    pub(crate) fn plain(&self) -> Option<&File> {
        match &self.input {
            Input::Plain(file) => Some(file),
            Input::Packed(_) => None,
        }
    }

    /// Goes to a place, counted in bytes of entries.
    pub(crate) fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.input {
            Input::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Input::Packed(file) => {
                file.rewind();
                io::copy(&mut file.take(offset), &mut io::sink()).map(drop)
            }
        }
    }

    /// Whether it is the file that is written to. It is held open, so no other has its inode.
    pub(crate) fn is_current(&self, path: &Path) -> io::Result<bool> {
        let Some(plain) = self.plain() else {
            return Ok(false);
        };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            current => {
                let (ours, current) = (plain.metadata()?, current?);
                Ok((ours.dev(), ours.ino()) == (current.dev(), current.ino()))
            }
        }
    }

    /// Bytes of entries that are there now, unless it is compressed.
    pub(crate) fn size(&self) -> io::Result<Option<u64>> {
        let meta = self.plain().map(File::metadata).transpose()?;
        Ok(meta.map(|meta| meta.len()))
    }
}

/// Reads a file without moving the place that its descriptor is at.
struct At<'a>(&'a File, u64);

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// The time of the first entry that can be understood.
fn first_entry(input: &mut dyn Read) -> io::Result<Option<i64>> {
    let (mut bytes, mut begin) = (Vec::new(), 0);
    loop {
        let held = bytes.len();
        bytes.resize(held + 4096, 0);
        let read = input.read(&mut bytes[held..])?;
        bytes.truncate(held + read);
        while let Some(length) = memchr::memchr(b'\n', &bytes[begin..]) {
            if let Some(entry) = Entry::parse(&bytes[begin..begin + length]) {
                return Ok(Some(entry.nanos()));
            }
            begin += length + 1;
        }
        if read == 0 || bytes.len() > MAX_LINE {
            return Ok(None);
        }
    }
}

/// A name of a file, seen in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    path: PathBuf,
    /// 0 for the current file.
    number: u32,
    packed: bool,
    inode: u64,
}

/// The names that there are now, oldest first.
fn names(path: &Path) -> io::Result<Vec<Name>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let base = path.file_name().unwrap_or_default().as_encoded_bytes();
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(base) else {
            continue;
        };
        let Some((number, packed)) = number(rest) else {
            continue;
        };
        match entry.metadata() {
            Ok(meta) => names.push(Name {
                path: entry.path(),
                number,
                packed,
                inode: meta.ino(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // While a file is replaced by its compressed form both are there: the plain one is taken.
    names.sort_by_key(|name| (std::cmp::Reverse(name.number), name.packed));
    names.dedup_by_key(|name| name.number);
    Ok(names)
}

/// What comes after the base name: nothing, or a number and perhaps `.gz`.
fn number(rest: &[u8]) -> Option<(u32, bool)> {
    if rest.is_empty() {
        return Some((0, false));
    }
    let rest = std::str::from_utf8(rest).ok()?.strip_prefix('.')?;
    let (digits, packed) = match rest.strip_suffix(".gz") {
        Some(digits) => (digits, true),
        None => (rest, false),
    };
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    Some((number, packed))
}

/// Every file, oldest first. A rotation meanwhile neither hides a file nor shows one twice.
pub(crate) fn list(path: &Path) -> io::Result<Vec<LogFile>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = names(path)?;
        let files = open(&before)?;
        if let Some(files) = files
            && (tries >= TRIES || names(path)? == before)
        {
            return Ok(files);
        }
    }
}

/// `None` when a file went away under this name.
fn open(names: &[Name]) -> io::Result<Option<Vec<LogFile>>> {
    let mut files: Vec<LogFile> = Vec::with_capacity(names.len());
    for name in names {
        let file = match File::open(&name.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let opened = LogFile::new(file, name)?;
        files.extend(opened.filter(|new| files.iter().all(|old| old.first != new.first)));
    }
    Ok(Some(files))
}

/// The file that was begun after the one known by `first`; `None` while that one is the newest. When it is gone, all that
/// is left is newer, and `true` says so.
pub(crate) fn after(path: &Path, first: Option<i64>) -> io::Result<Option<(LogFile, bool)>> {
    for _ in 0..TRIES {
        if let Look::Done(found) = look_after(&names(path)?, first)? {
            return Ok(found);
        }
    }
    // Rotated without end: the next look may be luckier.
    Ok(None)
}

enum Look {
    Done(Option<(LogFile, bool)>),
    /// A file went away under its name.
    Again,
}

/// Looks from the newest file on, which is hardly ever far. A rotation meanwhile moves files ahead of this: one may be seen
/// twice, none is passed over.
fn look_after(names: &[Name], first: Option<i64>) -> io::Result<Look> {
    let mut newer: Option<LogFile> = None;
    for name in names.iter().rev() {
        let file = match File::open(&name.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Again),
            file => file?,
        };
        let Some(file) = LogFile::new(file, name)? else {
            continue;
        };
        if Some(file.first) == first {
            return Ok(Look::Done(newer.map(|newer| (newer, false))));
        }
        newer = Some(file);
    }
    Ok(Look::Done(newer.map(|oldest| (oldest, true))))
}

/// Removes the files whose first entry is older than `before`. The current one is the caller's.
///
/// # Errors
/// A file that cannot be removed.
pub(crate) fn remove_rotated(path: &Path, before: i64) -> io::Result<()> {
    loop {
        let mut left = false;
        for name in names(path)?.into_iter().filter(|name| name.number > 0) {
            let Ok(file) = File::open(&name.path) else {
                left = true;
                continue;
            };
            let first = LogFile::new(file, &name)?.map(|file| file.first);
            if first.is_none_or(|first| first < before) {
                match std::fs::remove_file(&name.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => left = true,
                }
            }
        }
        if !left {
            return Ok(());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// A line whose time is `second` seconds after the epoch.
    pub(crate) fn entry(text: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:{second:02}Z\"}}\n"
        )
    }

    pub(crate) fn pack(path: &Path, text: &str) {
        let file = File::create(path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }

    fn firsts(path: &Path) -> Vec<i64> {
        list(path)
            .unwrap()
            .iter()
            .map(|file| file.first / 1_000_000_000)
            .collect()
    }

    #[test]
    fn order_compression_gaps_and_successors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        assert!(list(&path).unwrap().is_empty());
        std::fs::write(&path, "").unwrap();
        std::fs::write(dir.path().join("x.log.1"), entry("c", 3)).unwrap();
        std::fs::write(dir.path().join("x.log.2"), entry("b", 2)).unwrap();
        pack(&dir.path().join("x.log.2.gz"), &entry("b", 2));
        pack(
            &dir.path().join("x.log.10.gz"),
            &(entry("a", 1) + &entry("a2", 1)),
        );
        for other in ["x.log.3.gz.tmp", "x.log.0", "x.logs", "forward.cursor"] {
            std::fs::write(dir.path().join(other), entry("no", 9)).unwrap();
        }
        assert_eq!(
            firsts(&path),
            [1, 2, 3],
            "a file without entries is not there yet"
        );
        std::fs::write(&path, entry("d", 4)).unwrap();
        assert_eq!(firsts(&path), [1, 2, 3, 4]);
        let next = |second: i64| {
            let (file, lost) = after(&path, Some(second * 1_000_000_000)).unwrap()?;
            Some((file.first / 1_000_000_000, lost))
        };
        assert_eq!(next(1), Some((2, false)));
        assert_eq!(next(4), None);
        assert_eq!(next(0), Some((1, true)));
        let mut files = list(&path).unwrap();
        let mut text = String::new();
        files[0].seek(entry("a", 1).len() as u64).unwrap();
        files[0].read_to_string(&mut text).unwrap();
        assert_eq!(text, entry("a2", 1));
    }

    #[test]
    fn old_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        for (name, second) in [("x.log", 4), ("x.log.1", 3), ("x.log.2", 1)] {
            std::fs::write(dir.path().join(name), entry("x", second)).unwrap();
        }
        remove_rotated(&path, 3_000_000_000).unwrap();
        assert_eq!(firsts(&path), [3, 4]);
    }
}
