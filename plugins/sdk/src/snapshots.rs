//! The bookkeeping of a snapshotter that keeps each snapshot in a directory of its own.
//!
//! A snapshot is the directory `s/<number>`, with a small record `meta` beside its data that says its key, parent and
//! state. What is not told by a valid record does not exist: whoever writes the record last has a snapshot that is there
//! whole or not at all. Numbers are not used twice as long as anything of a removed snapshot is left; those go to `d/`
//! by one rename before they are deleted.

mod driver;
mod graveyard;
mod index;
mod record;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_driver_api::storage::{Commit, Prepare, Replace, SnapshotState};
use gantry_driver_api::{DriverError, DriverResult, ErrorCode};
use rustix::fs::{CWD, RenameFlags};

use crate::Log;

pub use driver::{Layout, Snapshotter};
pub use graveyard::Graveyard;
pub use index::Index;
pub use record::Record;

/// A snapshot's directory name. Short, because the kernel takes all lower directories of an overlay as one string.
pub type Number = u64;

/// When a removed snapshot's tree is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Before the call returns: for trees that are small.
    AtOnce,
    /// In the background.
    Later,
}

/// A snapshot that is being made.
#[derive(Debug)]
pub struct Draft {
    /// The name of its directory.
    pub number: Number,
    /// How many parents it has.
    pub depth: usize,
    /// What will be written of it.
    pub record: Record,
}

/// The directories of a driver's snapshots, and what is known of them.
#[derive(Debug)]
pub struct Snapshots {
    /// Where they are.
    root: PathBuf,
    /// Which there are.
    pub index: Index,
    graveyard: Graveyard,
    deletion: Deletion,
}

impl Snapshots {
    /// Opens the snapshots below `root`, the driver's directory; makes what is missing.
    ///
    /// # Errors
    /// When directories cannot be made or read.
    pub fn open(root: &Path, deletion: Deletion, log: Log) -> DriverResult<Self> {
        let (snapshots, graves) = (root.join("s"), root.join("d"));
        for dir in [&snapshots, &graves] {
            make_dir(dir, 0o700, true).map_err(|e| doing("making", dir, &e))?;
        }
        let index =
            Index::load(&snapshots, &graves, &log).map_err(|e| doing("reading", &snapshots, &e))?;
        Ok(Self {
            index,
            graveyard: Graveyard::new(graves, log),
            deletion,
            root: snapshots,
        })
    }

    /// Where the snapshots are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A snapshot's directory.
    #[must_use]
    pub fn dir(&self, number: Number) -> PathBuf {
        self.root.join(number.to_string())
    }

    /// The directory of a snapshot's data.
    #[must_use]
    pub fn fs(&self, number: Number) -> PathBuf {
        self.dir(number).join("fs")
    }

    /// Takes a snapshot's directory away. What cannot be deleted now is left to [`Self::cleanup`].
    pub fn bury(&self, number: Number) {
        match (
            self.graveyard.take(&self.dir(number), number),
            self.deletion,
        ) {
            (Some(grave), Deletion::AtOnce) => self.graveyard.delete(&grave),
            (Some(_), Deletion::Later) => self.graveyard.delete_later(),
            (None, _) => {}
        }
    }

    /// Makes an active snapshot or a view, unless it is there. `fill` makes its directory with everything in it, the
    /// record last; when it fails, nothing is left.
    ///
    /// # Errors
    /// Those of the key and of the parents, as in the contract, and those of `fill`.
    pub fn create(
        &self,
        request: Prepare,
        state: SnapshotState,
        fill: impl FnOnce(&Draft) -> DriverResult<()>,
    ) -> DriverResult<()> {
        let record = Record {
            key: request.key,
            parent: request.parent,
            state,
        };
        let Some((number, depth)) = self.index.insert(&record)? else {
            return Ok(());
        };
        let draft = Draft {
            number,
            depth,
            record,
        };
        fill(&draft).inspect_err(|_| {
            self.index.forget(&draft.record.key);
            self.bury(number);
        })
    }

    /// Commits a snapshot: its file system is flushed, its record written, durably, and `seal` run in its directory. Returns
    /// its number; none when there is one of that name already, and the active one is gone.
    ///
    /// # Errors
    /// As `commit` in the contract; the snapshot then stays as it was.
    pub fn commit(
        &self,
        request: &Commit,
        seal: impl FnOnce(&Path) -> io::Result<()>,
    ) -> DriverResult<Option<Number>> {
        if self.index.is_committed(&request.name) {
            // Either this very call came before, or another has unpacked the same layer meanwhile.
            if request.name != request.key {
                self.remove(&request.key)?;
            }
            return Ok(None);
        }
        let (number, record, had) = self.index.committable(request)?;
        let dir = self.dir(number);
        let write = || {
            rustix::fs::syncfs(File::open(&dir)?)?;
            record.write(&dir, true)?;
            seal(&dir)
        };
        if let Err(error) = write() {
            self.index.disown(&request.key, had);
            return Err(doing("committing", &dir, &error));
        }
        if self.index.replace(&request.key, number, record) {
            return Ok(Some(number));
        }
        self.bury(number);
        Ok(None)
    }

    /// Removes a snapshot; an absent one is no error.
    ///
    /// # Errors
    /// `Conflict` when it has children.
    pub fn remove(&self, key: &str) -> DriverResult<()> {
        if let Some(number) = self.index.remove(key)? {
            self.bury(number);
        }
        Ok(())
    }

    /// Removes every snapshot that is not in `live`, children before parents.
    pub fn keep_only(&self, live: &[String]) {
        // Each round removes what has no children left.
        let mut garbage = self.index.except(live);
        loop {
            let before = garbage.len();
            garbage.retain(|key| self.remove(key).is_err());
            if garbage.is_empty() || garbage.len() == before {
                return;
            }
        }
    }

    /// What belongs to no snapshot, and is not on its way out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn garbage(&self) -> DriverResult<Vec<PathBuf>> {
        let orphans = self.index.orphans(&self.root);
        let orphans = orphans.map_err(|e| doing("reading", &self.root, &e))?;
        Ok(orphans.into_iter().map(|number| self.dir(number)).collect())
    }

    /// Puts the data of the active snapshot `request.key` in the place of the committed one's, durably, and removes the
    /// active one with what was there.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition`, those of the file system.
    pub fn replace(&self, request: &Replace) -> DriverResult<()> {
        let (old, there, _) = self.index.chain(&request.name)?;
        let (new, fresh, _) = self.index.chain(&request.key)?;
        if (there.state, fresh.state) != (SnapshotState::Committed, SnapshotState::Active) {
            let text = format!("{} cannot replace {}", request.key, request.name);
            return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
        }
        let dir = self.dir(old);
        let exchange = || {
            rustix::fs::syncfs(File::open(self.dir(new))?)?;
            let (from, to) = (self.fs(new), self.fs(old));
            rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?;
            File::open(&dir)?.sync_all()
        };
        exchange().map_err(|e| doing("replacing", &dir, &e))?;
        self.remove(&request.key)
    }

    /// Takes away what belongs to no snapshot, and has everything deleted that was, in the background.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn cleanup(&self) -> DriverResult<()> {
        let orphans = self.index.orphans(&self.root);
        for number in orphans.map_err(|e| doing("reading", &self.root, &e))? {
            self.graveyard.take(&self.dir(number), number);
        }
        self.graveyard.delete_later();
        Ok(())
    }
}

/// Makes a directory with exactly this mode, whatever the umask.
///
/// # Errors
/// Those of making it; that it is there, unless it `may_exist`.
pub fn make_dir(path: &Path, mode: u32, may_exist: bool) -> io::Result<()> {
    DirBuilder::new()
        .recursive(may_exist)
        .mode(mode)
        .create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Refuses keys that the contract does not allow.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_key(key: &str) -> DriverResult<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if key.is_empty() || key.len() > 200 || !key.chars().all(ok) {
        return Err(DriverError::invalid(format!(
            "invalid snapshot key {key:?}"
        )));
    }
    Ok(())
}

/// The error of asking for the mounts of a committed snapshot.
#[must_use]
pub fn not_mountable(record: &Record) -> Option<DriverError> {
    (record.state == SnapshotState::Committed).then(|| {
        let text = format!("snapshot {} is committed", record.key);
        DriverError::new(ErrorCode::FailedPrecondition, text)
    })
}

/// An error of the file system, with what was done where.
#[must_use]
pub fn doing(what: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::io(format!("{what} {}", path.display()), error)
}
