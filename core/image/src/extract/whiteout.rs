//! Deletions in layers. Source: OCI image specification, *Whiteouts*.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_driver_api::storage::WhiteoutStyle;
use rustix::fs::{self, AtFlags, FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;

use super::{Extractor, tree};

pub(crate) const PREFIX: &[u8] = b".wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of this form are bookkeeping of aufs.
const AUFS: &[u8] = b".wh..wh.";

/// Overlay's mark of a deleted file.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Overlay's mark of a directory that hides those below it.
pub(super) fn set_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fs::fsetxattr(
        directory,
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Whether a directory hides those below it.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0; 1];
    match fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Extractor<'_> {
    pub(super) fn whiteout(
        &mut self,
        style: WhiteoutStyle,
        parent: BorrowedFd<'_>,
        parent_path: &[u8],
        name: &[u8],
    ) -> io::Result<()> {
        if name == OPAQUE {
            return match style {
                WhiteoutStyle::Overlay => set_opaque(parent),
                WhiteoutStyle::Apply => tree::remove_children(parent, |child| {
                    self.made.contains(&join(parent_path, child))
                }),
            };
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let target = &name[PREFIX.len()..];
        if matches!(target, b"" | b"." | b"..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "invalid whiteout",
            ));
        }
        match style {
            WhiteoutStyle::Overlay => overlay(parent, target),
            // Only what lower layers brought: entries of this layer stay, whatever their order.
            WhiteoutStyle::Apply if self.made.contains(&join(parent_path, target)) => Ok(()),
            WhiteoutStyle::Apply => tree::remove(parent, target),
        }
    }

    /// Notes what this layer has made, where carrying out deletions must know it: the entry and all above it.
    pub(super) fn remember(&mut self, path: &[u8]) {
        if self.rules.whiteouts != Some(WhiteoutStyle::Apply) {
            return;
        }
        let mut path = path;
        while self.made.insert(path.to_vec()) {
            match super::split(path) {
                Some((above, _)) if !above.is_empty() => path = above,
                _ => break,
            }
        }
    }
}

/// In a layer's own directory a whiteout hides lower layers only: a directory of this layer becomes opaque, anything
/// else of this layer hides them by being there.
fn overlay(parent: BorrowedFd<'_>, target: &[u8]) -> io::Result<()> {
    match fs::mknodat(
        parent,
        target,
        FileType::CharacterDevice,
        Mode::empty(),
        fs::makedev(0, 0),
    ) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let stat = fs::statat(parent, target, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                set_opaque(super::open_directory(parent, target)?.as_fd())?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}
