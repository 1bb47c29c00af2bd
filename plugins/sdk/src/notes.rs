//! What a driver keeps of its objects: a small JSON file each, in a directory of the driver's.
//!
//! A note is written before the thing is made and removed after it is gone, so that a driver that was killed knows what
//! may be there. It outlives the process, not a power cut: what it tells of dies with that too.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use gantry_driver_api::{DriverError, DriverResult};
use serde::Serialize;
use serde::de::DeserializeOwned;

const TEMPORARY: &str = ".new";

/// Notes by the ID of their object; in memory, and kept in step with the directory.
#[derive(Debug)]
pub struct Notes<T> {
    root: PathBuf,
    notes: Mutex<HashMap<String, T>>,
}

impl<T: Clone + PartialEq + Serialize + DeserializeOwned> Notes<T> {
    /// Reads the notes in `root`, which is made if it is missing. What cannot be read is as good as not there.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(root: PathBuf) -> DriverResult<Self> {
        let mut notes = HashMap::new();
        let entries = fs::create_dir_all(&root).and_then(|()| fs::read_dir(&root));
        for entry in entries.map_err(|e| doing("reading", &root, &e))?.flatten() {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if id.ends_with(TEMPORARY) {
                // Cut off by a crash; a file that cannot be removed now is overwritten later.
                let _ = fs::remove_file(entry.path());
                continue;
            }
            if let Ok(bytes) = fs::read(entry.path())
                && let Ok(note) = serde_json::from_slice(&bytes)
            {
                notes.insert(id, note);
            }
        }
        let notes = Mutex::new(notes);
        Ok(Self { root, notes })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, T>> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The note of an object.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<T> {
        self.lock().get(id).cloned()
    }

    /// A note that matches, with the ID of its object.
    #[must_use]
    pub fn find(&self, matches: impl Fn(&T) -> bool) -> Option<(String, T)> {
        let notes = self.lock();
        let found = notes.iter().find(|(_, note)| matches(note));
        found.map(|(id, note)| (id.clone(), note.clone()))
    }

    /// Every note with the ID of its object.
    #[must_use]
    pub fn all(&self) -> Vec<(String, T)> {
        let notes = self.lock();
        notes
            .iter()
            .map(|(id, t)| (id.clone(), t.clone()))
            .collect()
    }

    /// Writes an object's note.
    ///
    /// # Errors
    /// `InvalidArgument` for an ID that is not a file's name; those of writing.
    pub fn put(&self, id: &str, note: T) -> DriverResult<()> {
        if self.lock().get(id) == Some(&note) {
            return Ok(());
        }
        if id.is_empty() || id.contains(['/', '.']) {
            return Err(DriverError::invalid(format!("invalid ID {id:?}")));
        }
        let path = self.root.join(id);
        let bytes = serde_json::to_vec(&note).map_err(|e| DriverError::internal(e.to_string()))?;
        let temporary = self.root.join(format!("{id}{TEMPORARY}"));
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| doing("writing", &path, &e))?;
        self.lock().insert(id.to_owned(), note);
        Ok(())
    }

    /// Removes an object's note, if there is one.
    ///
    /// # Errors
    /// Those of removing the file.
    pub fn remove(&self, id: &str) -> DriverResult<Option<T>> {
        let Some(note) = self.lock().remove(id) else {
            return Ok(None);
        };
        let path = self.root.join(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(doing("removing", &path, &e)),
            _ => Ok(Some(note)),
        }
    }
}

fn doing(what: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::io(format_args!("{what} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_process_and_half_written_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let notes: Notes<u32> = Notes::open(dir.path().join("notes")).unwrap();
        notes.put("a", 1).unwrap();
        notes.put("b", 2).unwrap();
        notes.put("a", 3).unwrap();
        assert_eq!(notes.remove("b").unwrap(), Some(2));
        assert_eq!(notes.remove("b").unwrap(), None);
        assert!(notes.put("../c", 4).is_err());
        fs::write(dir.path().join("notes/d.new"), "5").unwrap();
        fs::write(dir.path().join("notes/e"), "torn{").unwrap();
        let notes: Notes<u32> = Notes::open(dir.path().join("notes")).unwrap();
        assert_eq!(notes.all(), [("a".to_owned(), 3)]);
        assert!(!dir.path().join("notes/d.new").exists());
    }
}
