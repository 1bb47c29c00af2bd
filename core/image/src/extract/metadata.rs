//! Owner, mode, extended attributes and time of what was made.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::{Entry, Kind};

pub(super) fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.0,
        tv_nsec: mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// For files and directories. The owner comes before mode and attributes, because changing it clears set-id bits and
/// capabilities.
pub(super) fn apply(file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    fs::fchown(
        file,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in wanted_xattrs(entry) {
        tolerate(fs::fsetxattr(
            file,
            name.as_slice(),
            value,
            XattrFlags::empty(),
        ))?;
    }
    if entry.kind == Kind::File {
        fs::futimens(file, &times(entry.mtime))?;
    }
    Ok(())
}

/// For symlinks, devices and fifos, which cannot be opened.
pub(super) fn apply_by_name(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> io::Result<()> {
    fs::chownat(
        parent,
        name,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if entry.kind != Kind::Symlink {
        // The name was made a moment ago as a node, so there is nothing to follow.
        fs::chmodat(
            parent,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )?;
    }
    if !entry.xattrs.is_empty() {
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        for (name, value) in wanted_xattrs(entry) {
            tolerate(fs::lsetxattr(
                &path,
                name.as_slice(),
                value,
                XattrFlags::empty(),
            ))?;
        }
    }
    fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// A layer must not say how overlay reads it: those attributes are written by us alone.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
    entry.xattrs.iter().filter_map(|(name, value)| {
        let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        (!overlay && !name.contains(&0)).then_some((name, value))
    })
}

/// File systems without an attribute class, and kernels that forbid one, cost the attribute and not the image.
fn tolerate(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(error @ (Errno::NOTSUP | Errno::PERM)) => {
            tracing::debug!(%error, "an extended attribute cannot be set");
            Ok(())
        }
        other => Ok(other?),
    }
}
