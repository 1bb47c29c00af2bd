//! What an archive may do.

use std::io;

use gantry_driver_api::storage::WhiteoutStyle;
use rustix::fs::FileType;

use crate::Owners;
use crate::archive::{Entry, Kind};

/// What an archive may do, and what it means.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules<'a> {
    /// How deletions are written; none: names that tell of deletions in layers are names like others.
    pub(crate) whiteouts: Option<WhiteoutStyle>,
    /// The directory below the root that entries are relative to; it exists.
    pub(crate) base: &'a [u8],
    /// The tree consists of several mounts, and was there before.
    pub(crate) mounts: bool,
    /// A directory and something else do not replace each other.
    pub(crate) keep_kinds: bool,
    /// Owner of everything, whatever the archive says.
    pub(crate) owner: Option<(u32, u32)>,
    /// How owners are numbered in the tree, if not as in the archive.
    pub(crate) owners: Option<&'a Owners>,
}

impl Rules<'_> {
    /// Gives an entry the owner that it has in the tree.
    pub(super) fn own(&self, entry: &mut Entry) -> io::Result<()> {
        let mut owner = self.owner.unwrap_or((entry.uid, entry.gid));
        if let Some(owners) = self.owners {
            owner = owners.to_tree(owner).ok_or_else(|| {
                let (uid, gid) = owner;
                io::Error::other(format!(
                    "Container ID {uid}:{gid} cannot be mapped to a host ID"
                ))
            })?;
        }
        (entry.uid, entry.gid) = owner;
        Ok(())
    }

    /// Refuses what would turn a directory into something else, or the other way round.
    pub(super) fn check_kind(&self, entry: &Entry, there: FileType, path: &[u8]) -> io::Result<()> {
        let (old, new) = (there == FileType::Directory, entry.kind == Kind::Directory);
        if !self.keep_kinds || old == new {
            return Ok(());
        }
        let word = |directory| {
            if directory {
                "directory"
            } else {
                "non-directory"
            }
        };
        let base = String::from_utf8_lossy(self.base);
        let shown = format!("/{base}/{}", String::from_utf8_lossy(path));
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "cannot overwrite {} {:?} with {} {:?}",
                word(old),
                shown.replace("//", "/"),
                word(new),
                format!("/{base}")
            ),
        ))
    }
}
