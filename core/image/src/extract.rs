//! Unpacks a layer's tar stream into a directory that it cannot leave.
//!
//! Every name is resolved by the kernel beneath one directory descriptor (`openat2` with `RESOLVE_IN_ROOT`: `..` and
//! absolute symlinks end at that directory, as after a chroot), the last component is never followed, and nothing is
//! written through a name that existed before it was made here. Deletions are written in the storage driver's style.
//! Data is not flushed here: the storage driver's commit makes the whole layer durable in one go.

mod metadata;
mod tree;
mod whiteout;

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_driver_api::storage::WhiteoutStyle;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::archive::{Entry, Kind, TarReader};

/// Names longer than this are not even tried; the kernel's own limit is 4096.
const MAX_PATH: usize = 4096;
/// Buffer for file data.
const BUFFER: usize = 128 << 10;

/// What a layer held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Bytes of all regular files: Docker's size of a layer.
    pub(crate) bytes: u64,
}

/// Unpacks the whole stream, to its very end, into the directory `root`.
///
/// # Errors
/// `InvalidData` and `UnexpectedEof` for bad archives; otherwise what the file system said, with the entry's name.
pub(crate) fn extract(
    root: &Path,
    style: WhiteoutStyle,
    input: &mut dyn Read,
) -> io::Result<Extracted> {
    let root = fs::openat2(
        fs::CWD,
        root,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )?;
    let mut extractor = Extractor {
        root,
        style,
        parent: None,
        directories: Vec::new(),
        made: HashSet::new(),
        buffer: vec![0; BUFFER],
        done: Extracted::default(),
    };
    let mut archive = TarReader::new(input);
    while let Some(entry) = archive.next()? {
        extractor.entry(&entry, &mut archive).map_err(|error| {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            io::Error::new(error.kind(), format!("{name}: {error}"))
        })?;
    }
    archive.drain()?;
    extractor.finish_directories()?;
    Ok(extractor.done)
}

struct Extractor {
    root: OwnedFd,
    style: WhiteoutStyle,
    /// The directory of the last entry: most entries share it with the one before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set when nothing is written into them any more.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    /// What this layer has made, as far as deletions must spare it.
    made: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
    done: Extracted,
}

impl Extractor {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> io::Result<()> {
        let path = clean(&entry.path)?;
        let Some((parent_path, name)) = split(&path) else {
            // The root itself.
            if entry.kind == Kind::Directory {
                metadata::apply(self.root.as_fd(), entry)?;
                self.directories.push((path, entry.mtime));
            }
            return Ok(());
        };
        let parent = self.take_parent(parent_path)?;
        let result = if name.starts_with(whiteout::PREFIX) {
            self.whiteout(parent.as_fd(), parent_path, name)
        } else {
            self.make(parent.as_fd(), name, &path, entry, archive)
        };
        self.parent = Some((parent_path.to_vec(), parent));
        result
    }

    /// Makes one entry; what it replaces is removed first, except that a directory merges into a directory.
    fn make<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        let mut replaced_whiteout = false;
        loop {
            match self.create(parent, name, entry, archive) {
                Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
                    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    replaced_whiteout = whiteout::is_whiteout(&stat);
                    if entry.kind == Kind::Directory
                        && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                    {
                        let directory = open_directory(parent, name)?;
                        metadata::apply(directory.as_fd(), entry)?;
                        break;
                    }
                    tree::remove(parent, name)?;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if entry.kind == Kind::Directory {
            if replaced_whiteout && self.style == WhiteoutStyle::Overlay {
                whiteout::set_opaque(open_directory(parent, name)?.as_fd())?;
            }
            self.directories.push((path.to_vec(), entry.mtime));
        }
        self.remember(path);
        Ok(())
    }

    /// Makes one entry where nothing is; `EEXIST` where something is (nothing has been read from the archive then).
    fn create<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        match entry.kind {
            Kind::File => return self.file(parent, name, entry, archive),
            Kind::Directory => {
                fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
                let directory = open_directory(parent, name)?;
                return metadata::apply(directory.as_fd(), entry);
            }
            Kind::HardLink => return self.hard_link(parent, name, entry),
            Kind::Symlink => fs::symlinkat(entry.link.as_slice(), parent, name)?,
            Kind::Fifo => node(parent, name, FileType::Fifo, (0, 0))?,
            Kind::CharDevice => node(parent, name, FileType::CharacterDevice, entry.device)?,
            Kind::BlockDevice => node(parent, name, FileType::BlockDevice, entry.device)?,
        }
        metadata::apply_by_name(parent, name, entry)
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        match &entry.sparse {
            None => {
                self.done.bytes += entry.size;
                self.copy(&file, 0, entry.size, archive)?;
            }
            Some(sparse) => {
                self.done.bytes += sparse.real_size;
                fs::ftruncate(&file, sparse.real_size)?;
                for segment in &sparse.segments {
                    self.copy(&file, segment.offset, segment.length, archive)?;
                }
            }
        }
        metadata::apply(file.as_fd(), entry)
    }

    /// Copies `length` bytes of the archive to `offset` of the file.
    fn copy<R: Read>(
        &mut self,
        file: &OwnedFd,
        mut offset: u64,
        mut length: u64,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        while length > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            let count = archive.read(&mut self.buffer[..want])?;
            let mut bytes = &self.buffer[..count];
            while !bytes.is_empty() {
                let written = rustix::io::pwrite(file, bytes, offset)?;
                offset += written as u64;
                bytes = &bytes[written..];
            }
            length -= count as u64;
        }
        Ok(())
    }

    /// The link's target is a path in the layer; neither end is followed.
    fn hard_link(&self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = clean(&entry.link)?;
        let Some((target_parent, target_name)) = split(&target) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a hard link to the root",
            ));
        };
        let target_parent = self.open_beneath(target_parent)?;
        fs::linkat(target_parent, target_name, parent, name, AtFlags::empty()).map_err(|error| {
            match error {
                Errno::EXIST => error.into(),
                _ => io::Error::new(
                    io::Error::from(error).kind(),
                    format!(
                        "hard link to {}: {error}",
                        String::from_utf8_lossy(&entry.link)
                    ),
                ),
            }
        })
    }

    /// The descriptor of an entry's directory, taken out of the cache or opened; missing ones are made.
    fn take_parent(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == path
        {
            return Ok(fd);
        }
        match self.open_beneath(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        for end in ends {
            let (above, name) = split(&path[..end]).unwrap_or((b"", &path[..end]));
            let above = self.open_beneath(above)?;
            match fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open_beneath(path)
    }

    /// Opens a directory of the layer; symlinks in `path` stay inside.
    fn open_beneath(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        Ok(fs::openat2(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )?)
    }

    fn finish_directories(&mut self) -> io::Result<()> {
        for (path, mtime) in self.directories.drain(..).rev() {
            let path = if path.is_empty() { b".".to_vec() } else { path };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve =
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
            match fs::openat2(&self.root, path.as_slice(), flags, Mode::empty(), resolve) {
                Ok(directory) => fs::futimens(&directory, &metadata::times(mtime))?,
                // A later entry has replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

fn node(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, device: (u32, u32)) -> io::Result<()> {
    let device = fs::makedev(device.0, device.1);
    Ok(fs::mknodat(
        parent,
        name,
        kind,
        Mode::from_raw_mode(0o600),
        device,
    )?)
}

/// The path with `.`, `..`, doubled and outer slashes resolved as text, as Go's `filepath.Clean("/" + path)` does.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    if path.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Directory and last component; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    })
}

#[cfg(test)]
mod tests;
