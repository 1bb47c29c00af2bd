//! What a container has changed of its image, however its storage driver keeps that.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::diff::{Change, ChangeKind, Found, Whole, artefacts, compare};
use crate::pack::{PackOptions, Packer, Selection, Sink};
use crate::rootfs::ParentView;

/// A container's tree and its image's, to be compared.
#[derive(Debug)]
pub struct Delta {
    /// The upper directory of an overlay, or a whole tree.
    upper: OwnedFd,
    /// What it stands on.
    lower: OwnedFd,
    whole: Option<Whole>,
    /// Keeps `lower` in place.
    _parent: Option<ParentView>,
}

impl Delta {
    /// The upper directory of an overlay, which holds the changes, and the merged tree below it.
    #[must_use]
    pub fn overlay(upper: OwnedFd, lower: OwnedFd) -> Self {
        Self {
            upper,
            lower,
            whole: None,
            _parent: None,
        }
    }

    /// A tree that was made as a copy of what `parent` shows, and that view of it, opened.
    #[must_use]
    pub fn trees(tree: OwnedFd, below: OwnedFd, parent: ParentView) -> Self {
        Self {
            upper: tree,
            lower: below,
            whole: Some(Whole { made: parent.made }),
            _parent: Some(parent),
        }
    }

    /// What was changed, as Docker tells it. `generated` are the paths that an engine makes in every container.
    ///
    /// # Errors
    /// Those of reading either tree.
    pub fn changes(&self, generated: &[&str]) -> io::Result<Vec<Change>> {
        Ok(self.compare(generated)?.changes)
    }

    /// Allocated bytes of what was added and modified.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub fn bytes(&self, generated: &[&str]) -> io::Result<u64> {
        Ok(self.compare(generated)?.bytes)
    }

    fn compare(&self, generated: &[&str]) -> io::Result<Found> {
        let (upper, lower) = (self.upper.try_clone()?, self.lower.try_clone()?);
        compare(upper, lower, self.whole, generated)
    }

    /// Writes the changes as a layer's archive.
    ///
    /// # Errors
    /// As [`Self::changes`], and those of the sink.
    pub(crate) fn pack(&self, generated: &[&str], sink: &mut dyn Sink) -> io::Result<()> {
        let (skip, selection);
        let mut options = PackOptions::default();
        if self.whole.is_some() {
            selection = select(&self.compare(generated)?.changes);
            options.only = Some(&selection);
        } else {
            skip = artefacts(self.upper.as_fd(), self.lower.as_fd(), false, generated)?;
            options.layer = true;
            options.skip = Some(&skip);
        }
        let mut packer = Packer::new(sink, options);
        packer.tree(self.upper.try_clone()?, b"")?;
        packer.finish()?;
        Ok(())
    }
}

/// What of a tree goes into a layer: what differs with the directories above it, whose attributes the layer must tell
/// where layers are unpacked apart from each other.
fn select(changes: &[Change]) -> Selection {
    let mut selection = Selection {
        names: HashSet::new(),
        deleted: HashMap::new(),
    };
    for change in changes {
        let mut name = &change.path[1..];
        if change.kind == ChangeKind::Deleted {
            let (above, last) = split(name);
            let gone = selection.deleted.entry(above.to_vec()).or_default();
            gone.push(last.to_vec());
            name = above;
        }
        while !name.is_empty() && selection.names.insert(name.to_vec()) {
            name = split(name).0;
        }
    }
    selection
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (b"", name),
    }
}
