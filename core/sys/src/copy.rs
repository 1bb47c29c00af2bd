//! Copies of directory trees, by descriptors: nothing is looked up by a joined path and no symbolic link is followed, so
//! neither tree can lead out of itself.
//!
//! A copy has the owners, modes, times, extended attributes (capabilities and ACLs among them), hard links, holes, devices
//! and pipes of what it was made of. Left out are sockets, which mean nothing without the process that made them, and
//! overlay's own attributes, which are no content. Data is shared with the original where the file system can
//! (`FICLONE`), and otherwise copied inside the kernel.

mod attributes;
mod data;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};

pub use attributes::{attributes, extended, same_attributes};
pub use data::{can_share, same_data};

/// Deeper trees are refused: each level holds two descriptors.
const MAX_DEPTH: usize = 512;

/// Copies everything below the directory `from` into the empty directory `to`, then what `from` itself is like.
///
/// # Errors
/// Of any read or write; the copy is then there in part.
pub fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fs::fstat(from)?;
    Copier::new(to).children(from, to, b"", 0)?;
    attributes(from, to, &stat)
}

/// A copy that is being made entry by entry.
#[derive(Debug)]
pub struct Copier<'a> {
    /// First place of each file with several names, from the top.
    links: HashMap<(u64, u64), CString>,
    top: BorrowedFd<'a>,
    /// Whether the file system shares data, as far as is known.
    share: bool,
}

impl<'a> Copier<'a> {
    /// A copy into the tree below `top`.
    #[must_use]
    pub fn new(top: BorrowedFd<'a>) -> Self {
        Self {
            links: HashMap::new(),
            top,
            share: true,
        }
    }

    /// Copies what `from` has under `name`, with all below it, to `to`, where nothing has that name. `place` is the path
    /// that it gets from the top.
    ///
    /// # Errors
    /// Of any read or write, with the place.
    pub fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        place: &[u8],
    ) -> io::Result<()> {
        self.one(from, to, name, place, 0)
    }

    fn children(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        place: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directory tree is too deep"));
        }
        for name in names(from)? {
            let place = join(place, name.to_bytes());
            self.one(from, to, &name, &place, depth)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        place: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            fs::mkdirat(to, name, Mode::RWXU)?;
            let (source, target) = (open_directory(from, name)?, open_directory(to, name)?);
            self.children(source.as_fd(), target.as_fd(), place, depth + 1)?;
            return attributes(source.as_fd(), target.as_fd(), &stat);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                fs::linkat(self.top, first, to, name, AtFlags::empty())?;
                return Ok(());
            }
            let identity = (stat.st_dev, stat.st_ino);
            self.links.insert(identity, CString::new(place)?);
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, &stat),
            FileType::Socket => Ok(()),
            _ => special(from, to, name, &stat),
        }
        .map_err(|error| {
            let place = String::from_utf8_lossy(place);
            io::Error::new(error.kind(), format!("{place}: {error}"))
        })
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let write = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let source = fs::openat(from, name, read, Mode::empty())?;
        let target = fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
        self.share = data::copy(source.as_fd(), target.as_fd(), stat, self.share)?;
        attributes(source.as_fd(), target.as_fd(), stat)
    }
}

/// Links, devices, pipes: what has no data of its own.
fn special(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        let target = fs::readlinkat(from, name, Vec::new())?;
        fs::symlinkat(&target, to, name)?;
        return attributes::of_name(to, name, stat);
    }
    fs::mknodat(to, name, kind, Mode::RWXU, stat.st_rdev)?;
    attributes::of_name(to, name, stat)
}

/// Whether two files of one name that are no directories are alike in everything that a copy keeps, contents included.
///
/// # Errors
/// Reading either.
pub fn same_file(
    (a, stat): (BorrowedFd<'_>, &Stat),
    (b, other): (BorrowedFd<'_>, &Stat),
    name: &CStr,
) -> io::Result<bool> {
    if !same_attributes(stat, other) {
        return Ok(false);
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let a = fs::openat(a, name, flags, Mode::empty())?;
            let b = fs::openat(b, name, flags, Mode::empty())?;
            Ok(extended(a.as_fd())? == extended(b.as_fd())? && same_data(a.as_fd(), b.as_fd())?)
        }
        FileType::Symlink => {
            Ok(fs::readlinkat(a, name, Vec::new())? == fs::readlinkat(b, name, Vec::new())?)
        }
        _ => Ok(true),
    }
}

/// The names in a directory, sorted.
///
/// # Errors
/// Reading it.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory by its name, whatever it was a moment ago.
///
/// # Errors
/// Those of `openat(2)`.
pub fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(at, name, flags, Mode::empty())?)
}

/// A name below a path from the top; the top's is empty.
#[must_use]
pub fn join(place: &[u8], name: &[u8]) -> Vec<u8> {
    match place {
        b"" => name.to_vec(),
        _ => [place, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests;
