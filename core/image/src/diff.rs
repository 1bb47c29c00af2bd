//! What a container has changed, read from the upper directory of its overlay.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::extract::whiteout;

/// In which way a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another, or contains changes.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// From the root, with a leading slash.
    pub path: Vec<u8>,
    /// How.
    pub kind: ChangeKind,
}

/// Compares an overlay's upper directory with the merged tree below it, as Docker does: a directory counts as modified
/// when it is itself, or when something was added to it or deleted from it. `generated` are the paths that an engine makes
/// in every container; they do not count.
///
/// # Errors
/// Those of reading either tree.
pub fn changes(upper: OwnedFd, lower: OwnedFd, generated: &[&str]) -> io::Result<Vec<Change>> {
    let skip = artefacts(upper.as_fd(), lower.as_fd(), generated)?;
    let mut comparison = Comparison {
        skip,
        changes: Vec::new(),
        noted: HashSet::new(),
    };
    comparison.run(upper, lower)?;
    Ok(comparison.changes)
}

/// The names (without leading slash) in an upper directory that are there only because the engine mounts something on
/// them: empty files and directories, and directories that hold nothing else and are otherwise what they were.
///
/// # Errors
/// Those of reading either tree.
pub(crate) fn artefacts(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    generated: &[&str],
) -> io::Result<HashSet<Vec<u8>>> {
    let mut found = HashSet::new();
    let mut above: Vec<&str> = Vec::new();
    for path in generated.iter().map(|path| path.trim_start_matches('/')) {
        if look(upper, path)?.is_some_and(|(stat, file)| is_empty(&stat, &file))
            && look(lower, path)?.is_none()
        {
            found.insert(path.as_bytes().to_vec());
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            above.extend(parents);
        }
    }
    // Deepest first.
    above.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    above.dedup();
    for path in above {
        let Some((stat, directory)) = look(upper, path)? else {
            continue;
        };
        let same = look(lower, path)?.is_none_or(|(old, _)| {
            (old.st_mode, old.st_uid, old.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
        });
        let only = names(&directory)?
            .iter()
            .all(|name| found.contains(&[path.as_bytes(), b"/", name.to_bytes()].concat()));
        if same && only {
            found.insert(path.as_bytes().to_vec());
        }
    }
    Ok(found)
}

/// What is at a path, reached through directories alone.
fn look(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<(Stat, OwnedFd)>> {
    let mut at: Option<OwnedFd> = None;
    for part in path.split('/') {
        let here = at.as_ref().map_or(root, OwnedFd::as_fd);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        at = match fs::openat(here, part, flags, Mode::empty()) {
            Ok(next) => Some(next),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    at.map(|file| Ok((fs::fstat(&file)?, file))).transpose()
}

fn is_empty(stat: &Stat, file: &OwnedFd) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => stat.st_size == 0,
        FileType::Directory => names(file).is_ok_and(|names| names.is_empty()),
        _ => false,
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
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

/// A directory on the way: as it is, and as it was where it was one.
struct Level {
    upper: OwnedFd,
    lower: Option<OwnedFd>,
    names: std::vec::IntoIter<CString>,
    /// Length of its path.
    prefix: usize,
}

struct Comparison {
    skip: HashSet<Vec<u8>>,
    changes: Vec<Change>,
    /// Directories that have been told of, or will be.
    noted: HashSet<Vec<u8>>,
}

impl Comparison {
    fn run(&mut self, upper: OwnedFd, lower: OwnedFd) -> io::Result<()> {
        let mut path = Vec::new();
        let mut levels = vec![Level {
            names: names(&upper)?.into_iter(),
            upper,
            lower: Some(lower),
            prefix: 0,
        }];
        while let Some(top) = levels.last_mut() {
            let Some(name) = top.names.next() else {
                levels.pop();
                continue;
            };
            path.truncate(top.prefix);
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            if self.skip.contains(&path[1..]) {
                continue;
            }
            match self.one(top.upper.as_fd(), top.lower.as_ref(), &name, &path) {
                Ok(Some(level)) => levels.push(level),
                Ok(None) => {}
                // A running container has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes one entry; for a directory what to go on with.
    fn one(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<&OwnedFd>,
        name: &CString,
        path: &[u8],
    ) -> io::Result<Option<Level>> {
        let stat = fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if whiteout::is_whiteout(&stat) {
            self.note(path, ChangeKind::Deleted);
            return Ok(None);
        }
        let old = lower
            .map(|lower| fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW))
            .and_then(Result::ok);
        let directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory(&stat) {
            let kind = match old {
                Some(_) => ChangeKind::Modified,
                None => ChangeKind::Added,
            };
            self.note(path, kind);
            return Ok(None);
        }
        let opened = open(upper, name)?;
        let opaque = whiteout::is_opaque(opened.as_fd())?;
        match old {
            None => self.note(path, ChangeKind::Added),
            Some(old) if !opaque && directory(&old) && same(&stat, &old) => {}
            Some(_) => self.note(path, ChangeKind::Modified),
        }
        self.noted.insert(path.to_vec());
        let below = match (old, lower) {
            (Some(old), Some(lower)) if directory(&old) => Some(open(lower.as_fd(), name)?),
            _ => None,
        };
        let present = names(&opened)?;
        if let Some(below) = below.as_ref().filter(|_| opaque) {
            for gone in names(below)?.iter().filter(|name| !present.contains(name)) {
                self.note(&[path, b"/", gone.to_bytes()].concat(), ChangeKind::Deleted);
            }
        }
        Ok(Some(Level {
            names: present.into_iter(),
            upper: opened,
            lower: below,
            prefix: path.len(),
        }))
    }

    fn note(&mut self, path: &[u8], kind: ChangeKind) {
        let above = path
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(&b""[..], |at| &path[..at]);
        if kind != ChangeKind::Modified && !above.is_empty() && self.noted.insert(above.to_vec()) {
            self.push(above, ChangeKind::Modified);
        }
        self.push(path, kind);
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change {
            path: path.to_vec(),
            kind,
        });
    }
}

fn open(parent: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

/// A directory is copied up with its times.
fn same(new: &Stat, old: &Stat) -> bool {
    let of = |stat: &Stat| {
        (
            (stat.st_mode, stat.st_uid, stat.st_gid),
            (stat.st_mtime, stat.st_mtime_nsec),
        )
    };
    of(new) == of(old)
}

#[cfg(test)]
mod tests;
