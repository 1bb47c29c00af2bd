//! What a container has changed: read from the upper directory of its overlay, or by comparing its tree with its image's.

mod artefacts;

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_sys::copy;
use rustix::fs::{self, AtFlags, FileType, Stat};

use crate::extract::whiteout;
pub(crate) use artefacts::artefacts;

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

/// Whole trees, one made as a copy of the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    /// When the copy was complete: files with an older change time are as they were. Unknown: contents are compared.
    pub(crate) made: Option<(i64, i64)>,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) changes: Vec<Change>,
    /// Allocated bytes of what was added and modified.
    pub(crate) bytes: u64,
}

/// Compares as Docker does: a directory counts as modified when it is itself, or when something was added to it or deleted
/// from it. `upper` is an overlay's upper directory and `lower` the merged tree below it, or both are whole trees.
/// `generated` are the paths that an engine makes in every container; they do not count.
///
/// # Errors
/// Those of reading either tree.
pub(crate) fn compare(
    upper: OwnedFd,
    lower: OwnedFd,
    whole: Option<Whole>,
    generated: &[&str],
) -> io::Result<Found> {
    let skip = artefacts(upper.as_fd(), lower.as_fd(), whole.is_some(), generated)?;
    let mut comparison = Comparison {
        whole,
        skip,
        found: Found::default(),
        noted: HashSet::new(),
        linked: HashSet::new(),
    };
    comparison.run(upper, lower)?;
    Ok(comparison.found)
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
    whole: Option<Whole>,
    skip: HashSet<Vec<u8>>,
    found: Found,
    /// Directories that have been told of, or will be.
    noted: HashSet<Vec<u8>>,
    /// Files with several names that have been counted.
    linked: HashSet<u64>,
}

impl Comparison {
    fn run(&mut self, upper: OwnedFd, lower: OwnedFd) -> io::Result<()> {
        let mut path = Vec::new();
        let present = names(&upper)?;
        if self.whole.is_some() {
            self.deletions(&lower, &present, b"")?;
        }
        let mut levels = vec![Level {
            names: present.into_iter(),
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
            if self.skip.contains(&path[1..])
                && (self.whole.is_none() || !has(top.lower.as_ref(), &name))
            {
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
        if self.whole.is_none() && whiteout::is_whiteout(&stat) {
            self.note(path, ChangeKind::Deleted);
            return Ok(None);
        }
        let old = lower
            .map(|lower| fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW))
            .and_then(Result::ok);
        if !is_directory(&stat) {
            match (old, lower) {
                (None, _) | (_, None) => self.note(path, ChangeKind::Added),
                (Some(old), Some(lower)) => {
                    if self.is_same_file(upper, &stat, lower.as_fd(), &old, name)? {
                        return Ok(None);
                    }
                    self.note(path, ChangeKind::Modified);
                }
            }
            self.count(&stat);
            return Ok(None);
        }
        let opened = open(upper, name)?;
        let below = match (old, lower) {
            (Some(old), Some(lower)) if is_directory(&old) => {
                Some((open(lower.as_fd(), name)?, old))
            }
            _ => None,
        };
        let opaque = self.whole.is_none() && whiteout::is_opaque(opened.as_fd())?;
        match (&below, old) {
            (None, None) => {
                self.note(path, ChangeKind::Added);
                self.count(&stat);
            }
            (Some((below, old)), _)
                if !opaque && self.is_same_directory(&opened, &stat, below, old, path)? => {}
            _ => self.note(path, ChangeKind::Modified),
        }
        // Of one that only got the engine's own files is told when something else in it is.
        if !self.skip.contains(&path[1..]) {
            self.noted.insert(path.to_vec());
        }
        let below = below.map(|(below, _)| below);
        let present = names(&opened)?;
        if let Some(below) = below.as_ref().filter(|_| opaque || self.whole.is_some()) {
            self.deletions(below, &present, path)?;
        }
        Ok(Some(Level {
            names: present.into_iter(),
            upper: opened,
            lower: below,
            prefix: path.len(),
        }))
    }

    /// Notes what is gone of a directory.
    fn deletions(&mut self, below: &OwnedFd, present: &[CString], path: &[u8]) -> io::Result<()> {
        for gone in names(below)? {
            // Both lists are sorted.
            if present.binary_search(&gone).is_err() {
                self.note(&[path, b"/", gone.to_bytes()].concat(), ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    /// Whether a file of a whole tree is the one that it was copied from; what an upper directory has is always another.
    fn is_same_file(
        &self,
        upper: BorrowedFd<'_>,
        stat: &Stat,
        lower: BorrowedFd<'_>,
        old: &Stat,
        name: &CString,
    ) -> io::Result<bool> {
        let Some(whole) = self.whole else {
            return Ok(false);
        };
        if whole.is_untouched(stat) {
            return Ok(copy::same_attributes(stat, old));
        }
        copy::same_file((upper, stat), (lower, old), name)
    }

    fn is_same_directory(
        &self,
        new: &OwnedFd,
        stat: &Stat,
        below: &OwnedFd,
        old: &Stat,
        path: &[u8],
    ) -> io::Result<bool> {
        let Some(whole) = self.whole else {
            return Ok(same(stat, old));
        };
        // That the engine's own files were made in it is no change, but moves its time.
        let alike = copy::same_attributes(stat, old) || self.skip.contains(&path[1..]);
        Ok(alike
            && (whole.is_untouched(stat)
                || copy::extended(new.as_fd())? == copy::extended(below.as_fd())?))
    }

    fn count(&mut self, stat: &Stat) {
        if is_directory(stat) || stat.st_nlink < 2 || self.linked.insert(stat.st_ino) {
            self.found.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }

    fn note(&mut self, path: &[u8], kind: ChangeKind) {
        let above = path
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(&b""[..], |at| &path[..at]);
        let told = kind != ChangeKind::Modified
            || above
                .strip_prefix(b"/")
                .is_some_and(|above| self.skip.contains(above));
        if told && !above.is_empty() && self.noted.insert(above.to_vec()) {
            self.push(above, ChangeKind::Modified);
        }
        self.push(path, kind);
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) {
        self.found.changes.push(Change {
            path: path.to_vec(),
            kind,
        });
    }
}

impl Whole {
    /// Whether a file has not been changed since the copy was made.
    fn is_untouched(&self, stat: &Stat) -> bool {
        let changed = (
            stat.st_ctime,
            i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
        );
        self.made.is_some_and(|made| changed < made)
    }
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    copy::names(directory.as_fd())
}

fn has(directory: Option<&OwnedFd>, name: &CString) -> bool {
    directory.is_some_and(|at| fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

fn open(parent: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    copy::open_directory(parent, name)
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
