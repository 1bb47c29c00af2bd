//! Writing limits so that they can be taken back.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::files::{self, CgroupError};

/// What brings a group's limits back to what they were before [`Group::update`](super::Group::update).
#[derive(Debug, Default)]
#[must_use = "dropping it keeps the new limits"]
pub struct Restore(Vec<(PathBuf, String)>);

impl Restore {
    /// Puts the old values back, the last one written first: each state on the way was valid before. What cannot be put
    /// back (a group that is gone) is left.
    pub fn put_back(self) {
        for (path, old) in self.0.into_iter().rev() {
            // Nothing written is no system call at all; a line of nothing empties a list.
            let old = if old.is_empty() { "\n".into() } else { old };
            let _ = files::write(&path, old);
        }
    }
}

/// Where limits are written. It remembers what was there when that may have to be put back.
pub(super) struct Writes(Option<RefCell<Restore>>);

impl Writes {
    /// For a new group, which is removed when something fails.
    pub(super) fn plain() -> Self {
        Self(None)
    }
    /// For a group in use.
    pub(super) fn remembering() -> Self {
        Self(Some(RefCell::default()))
    }
    /// What was there.
    pub(super) fn remembered(self) -> Restore {
        self.0.map(RefCell::into_inner).unwrap_or_default()
    }
    /// Writes a file's only value.
    pub(super) fn write(&self, path: &Path, value: impl AsRef<str>) -> Result<(), CgroupError> {
        self.write_part(path, value, str::to_owned)
    }
    /// Writes one of a file's settings; `old` finds in the file's text what would be written to have the present one.
    pub(super) fn write_part(
        &self,
        path: &Path,
        value: impl AsRef<str>,
        old: impl FnOnce(&str) -> String,
    ) -> Result<(), CgroupError> {
        let Some(remembered) = &self.0 else {
            return files::write(path, value);
        };
        let before = files::read(path);
        files::write(path, value)?;
        if let Ok(text) = before {
            remembered
                .borrow_mut()
                .0
                .push((path.to_owned(), old(&text)));
        }
        Ok(())
    }
    /// Writes a device's line of a file that has one for each; `none` is the line of a device that has none.
    pub(super) fn write_device(
        &self,
        path: &Path,
        device: &str,
        value: &str,
        none: &str,
    ) -> Result<(), CgroupError> {
        self.write_part(path, format!("{device} {value}"), |text| {
            let own = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some(device));
            own.map_or_else(|| format!("{device} {none}"), str::to_owned)
        })
    }
}
