//! Unpacks a tar stream into a directory that it cannot leave: a layer, or what a client puts into a container.
//!
//! Every name is resolved by the kernel beneath one directory descriptor (`openat2` with `RESOLVE_IN_ROOT`: `..` and
//! absolute symlinks end at that directory, as after a chroot), the last component is never followed, and nothing is
//! written through a name that existed before it was made here, except where a client's file meets one that is mounted.
//! Deletions of layers are written in the storage driver's style.
//! Data is not flushed here: the storage driver's commit makes the whole layer durable in one go.

mod data;
mod metadata;
mod names;
mod rules;
pub(crate) mod tree;
pub(crate) mod whiteout;

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use data::BUFFER;
use gantry_driver_api::storage::WhiteoutStyle;
use names::{clean, split};
pub(crate) use rules::Rules;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::archive::{Entry, Kind, TarReader};

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
    let rules = Rules {
        whiteouts: Some(style),
        ..Rules::default()
    };
    extract_into(root, rules, input)
}

/// As [`extract`], by other rules.
///
/// # Errors
/// As [`extract`]; `AlreadyExists` for entries that [`Rules::keep_kinds`] refuses.
pub(crate) fn extract_into(
    root: OwnedFd,
    rules: Rules<'_>,
    input: &mut dyn Read,
) -> io::Result<Extracted> {
    let mut extractor = Extractor {
        root,
        rules,
        parent: None,
        directories: Vec::new(),
        made: HashSet::new(),
        buffer: vec![0; BUFFER],
        done: Extracted::default(),
    };
    let mut archive = TarReader::new(input);
    while let Some(mut entry) = archive.next()? {
        let placed = rules
            .own(&mut entry)
            .and_then(|()| extractor.entry(&entry, &mut archive));
        placed.map_err(|error| {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            match error.kind() {
                io::ErrorKind::AlreadyExists => error,
                kind => io::Error::new(kind, format!("{name}: {error}")),
            }
        })?;
    }
    archive.drain()?;
    extractor.finish_directories()?;
    Ok(extractor.done)
}

struct Extractor<'a> {
    root: OwnedFd,
    rules: Rules<'a>,
    /// The directory of the last entry: most entries share it with the one before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set when nothing is written into them any more.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    /// What this layer has made, as far as deletions must spare it.
    made: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
    done: Extracted,
}

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> io::Result<()> {
        let path = clean(&entry.path)?;
        let Some((parent_path, name)) = split(&path) else {
            // The root itself; of a tree that was there it stays as it is.
            if entry.kind == Kind::Directory && !self.rules.mounts {
                metadata::apply(self.root.as_fd(), entry)?;
                self.directories.push((path, entry.mtime));
            }
            return Ok(());
        };
        let parent = self.take_parent(parent_path)?;
        let result = match self.rules.whiteouts {
            Some(style) if name.starts_with(whiteout::PREFIX) => {
                self.whiteout(style, parent.as_fd(), parent_path, name)
            }
            _ => self.make(parent.as_fd(), name, &path, entry, archive),
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
                Err(error) if is(&error, Errno::EXIST) => {
                    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    replaced_whiteout = whiteout::is_whiteout(&stat);
                    let there = FileType::from_raw_mode(stat.st_mode);
                    if entry.kind == Kind::Directory && there == FileType::Directory {
                        let directory = open_directory(parent, name)?;
                        metadata::apply(directory.as_fd(), entry)?;
                        break;
                    }
                    self.rules.check_kind(entry, there, path)?;
                    match tree::remove(parent, name) {
                        // Mounted there, as a container's `/etc/hosts` is: it cannot be replaced, but be written.
                        Err(error)
                            if is(&error, Errno::BUSY)
                                && entry.kind == Kind::File
                                && there == FileType::RegularFile =>
                        {
                            self.overwrite(parent, name, entry, archive)?;
                            break;
                        }
                        other => other?,
                    }
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if entry.kind == Kind::Directory {
            if replaced_whiteout && self.rules.whiteouts == Some(WhiteoutStyle::Overlay) {
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
        let deleted = self.rules.whiteouts == Some(WhiteoutStyle::Overlay)
            && fs::statat(&target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| whiteout::is_whiteout(&stat));
        if deleted {
            return Err(link_error(entry, Errno::NOENT));
        }
        fs::linkat(target_parent, target_name, parent, name, AtFlags::empty()).map_err(|error| {
            match error {
                Errno::EXIST => error.into(),
                _ => link_error(entry, error),
            }
        })
    }

    fn finish_directories(&mut self) -> io::Result<()> {
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            match self.open(&path, OFlags::NOFOLLOW) {
                Ok(directory) => fs::futimens(&directory, &metadata::times(mtime))?,
                // A later entry has replaced it.
                Err(error)
                    if is(&error, Errno::NOENT)
                        || is(&error, Errno::NOTDIR)
                        || is(&error, Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn link_error(entry: &Entry, error: Errno) -> io::Error {
    io::Error::new(
        io::Error::from(error).kind(),
        format!(
            "hard link to {}: {error}",
            String::from_utf8_lossy(&entry.link)
        ),
    )
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

#[cfg(test)]
mod tests;
