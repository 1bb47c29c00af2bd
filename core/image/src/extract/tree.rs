//! Removing trees without following anything and with two descriptors at any depth.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Removes `name` in `parent`, whatever it is; an absent one is no error.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut directory = super::open_directory(parent, name)?;
    // The names from `name` down to `directory`.
    let mut below: Vec<Vec<u8>> = Vec::new();
    loop {
        match empty(directory.as_fd())? {
            Some(child) => {
                directory = super::open_directory(directory.as_fd(), &child)?;
                below.push(child);
            }
            None => {
                let Some(done) = below.pop() else { break };
                directory = up(directory.as_fd())?;
                fs::unlinkat(&directory, done.as_slice(), AtFlags::REMOVEDIR)?;
            }
        }
    }
    drop(directory);
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Removes everything in `directory` for which `keep` is false.
pub(super) fn remove_children(
    directory: BorrowedFd<'_>,
    mut keep: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !keep(name) {
            remove(directory, name)?;
        }
    }
    Ok(())
}

/// Unlinks all but directories; the first directory met is returned, to be emptied next.
fn empty(directory: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut child = None;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            child.get_or_insert_with(|| name.to_vec());
            continue;
        }
        match fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                child.get_or_insert_with(|| name.to_vec());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(child)
}

/// The directory above; nobody else moves directories of a layer that is being unpacked.
fn up(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(directory, "..", flags, Mode::empty())?)
}
