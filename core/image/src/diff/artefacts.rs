//! What is in a container because the engine mounts something on it.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_sys::copy;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// The names (without leading slash) that are there, or differ, only because the engine mounts something on them: empty
/// files and directories, and directories that hold nothing else that is new and are otherwise what they were.
///
/// # Errors
/// Those of reading either tree.
pub(crate) fn artefacts(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    whole: bool,
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
        let old = look(lower, path)?;
        let same = old.as_ref().is_none_or(|(old, _)| {
            (old.st_mode, old.st_uid, old.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
        });
        let here = copy::names(directory.as_fd())?;
        let before = match &old {
            Some((_, old)) if whole && same => copy::names(old.as_fd())?,
            _ => Vec::new(),
        };
        let only = before.iter().all(|name| here.contains(name))
            && here.iter().all(|name| {
                before.contains(name)
                    || found.contains(&[path.as_bytes(), b"/", name.to_bytes()].concat())
            });
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
        FileType::Directory => copy::names(file.as_fd()).is_ok_and(|names| names.is_empty()),
        _ => false,
    }
}
