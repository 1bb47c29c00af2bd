//! What must outlive the daemon but not the boot: one JSON file an object, which nothing waits for the disk for.
//!
//! Each state of an object is a file of its own, `<id>.<number>.json`; the one before is removed when the new one is
//! whole. A file that is replaced by renaming another over it is flushed at once by some file systems (ext4): a
//! millisecond or two for each change.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{NetworkError, Result};

/// A directory of such files.
#[derive(Debug)]
pub(crate) struct Notes {
    dir: PathBuf,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// Of each object's file.
    of: HashMap<String, u64>,
    /// The last that was given: none is given twice, so that a file that could not be removed is older than what came later.
    last: u64,
}

const SUFFIX: &str = ".json";

/// ID and number of a file's name. Earlier daemons gave no numbers.
fn parse(name: &str) -> Option<(&str, u64)> {
    let name = name.strip_suffix(SUFFIX)?;
    match name.rsplit_once('.') {
        Some((id, number)) => Some((id, number.parse().ok()?)),
        None => Some((name, 0)),
    }
}

impl Notes {
    /// Opens (and makes) the directory, and removes from it what was being written when a daemon ended.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        let notes = Self {
            dir,
            numbers: Mutex::default(),
        };
        let failed = |e| NetworkError::io(format_args!("reading {}", notes.dir.display()), &e);
        fs::create_dir_all(&notes.dir).map_err(failed)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&notes.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some((id, number)) = name.to_str().and_then(parse) {
                files.push((number, id.to_owned()));
            }
        }
        files.sort();
        notes.numbers.lock().last = files.last().map_or(0, |(number, _)| *number);
        for (number, id) in files {
            match notes.read::<IgnoredAny>(&id, number) {
                Ok(_) => notes.supersede(&id, number),
                Err(error) => {
                    let path = notes.path(&id, number);
                    tracing::warn!(file = %path.display(), error, "unreadable record");
                    let _ = fs::remove_file(path);
                }
            }
        }
        Ok(notes)
    }

    fn path(&self, id: &str, number: u64) -> PathBuf {
        self.dir.join(match number {
            0 => format!("{id}{SUFFIX}"),
            number => format!("{id}.{number}{SUFFIX}"),
        })
    }

    fn read<T: DeserializeOwned>(&self, id: &str, number: u64) -> std::result::Result<T, String> {
        let bytes = fs::read(self.path(id, number)).map_err(|e| e.to_string())?;
        serde_json::from_slice(&bytes).map_err(|e| e.to_string())
    }

    /// A file is whole: the one before is of no use any more.
    fn supersede(&self, id: &str, number: u64) {
        if let Some(before) = self.numbers.lock().of.insert(id.to_owned(), number) {
            // The next start removes what is left.
            let _ = fs::remove_file(self.path(id, before));
        }
    }

    fn next(&self) -> u64 {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        numbers.last
    }

    /// Writes an object down; a daemon that ends meanwhile leaves what was written before.
    pub(crate) fn put<T: Serialize>(&self, id: &str, object: &T) -> Result<()> {
        let number = self.next();
        let path = self.path(id, number);
        let bytes = serde_json::to_vec(object)
            .map_err(|e| NetworkError::internal(format!("encoding {}: {e}", path.display())))?;
        fs::write(&path, bytes)
            .map_err(|e| NetworkError::io(format_args!("writing {}", path.display()), &e))?;
        self.supersede(id, number);
        Ok(())
    }

    /// Whether an object is written down.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.numbers.lock().of.contains_key(id)
    }

    /// Forgets an object, if it is there.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let Some(number) = self.numbers.lock().of.remove(id) else {
            return Ok(());
        };
        let path = self.path(id, number);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(NetworkError::io(
                format_args!("removing {}", path.display()),
                &e,
            )),
            _ => Ok(()),
        }
    }

    /// Every object that can be read, with its ID; what cannot be is logged.
    pub(crate) fn all<T: DeserializeOwned>(&self) -> Vec<(String, T)> {
        let numbers = self.numbers.lock().of.clone();
        let read = |(id, number): (String, u64)| match self.read(&id, number) {
            Ok(object) => Some((id, object)),
            Err(error) => {
                let file = self.path(&id, number);
                tracing::warn!(file = %file.display(), error, "unreadable record");
                None
            }
        };
        numbers.into_iter().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let names = entries.map(|e| e.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn each_object_is_one_file_and_the_last_state_counts() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path().to_owned()).unwrap();
        for state in 1..=3 {
            notes.put("x", &state).unwrap();
        }
        notes.put("y", &4).unwrap();
        assert!(notes.has("y"));
        notes.remove("y").unwrap();
        notes.remove("y").unwrap();
        assert!(!notes.has("y"));
        assert_eq!(names(dir.path()), ["x.3.json"]);
        let notes = Notes::open(dir.path().to_owned()).unwrap();
        assert_eq!(notes.all::<u32>(), [("x".to_owned(), 3)]);
        notes.put("x", &5).unwrap();
        assert_eq!(names(dir.path()), ["x.4.json"]);
    }

    #[test]
    fn a_file_that_stayed_behind_is_older_than_what_came_later() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path().to_owned()).unwrap();
        notes.put("x", &[1]).unwrap();
        notes.put("x", &[2]).unwrap();
        notes.remove("x").unwrap();
        // As if it could not be removed.
        fs::write(dir.path().join("x.2.json"), "[2]").unwrap();
        notes.put("x", &[3]).unwrap();
        let notes = Notes::open(dir.path().to_owned()).unwrap();
        assert_eq!(notes.all::<[u32; 1]>(), [("x".to_owned(), [3])]);
        assert_eq!(names(dir.path()), ["x.3.json"]);
    }

    #[test]
    fn what_was_cut_off_is_as_if_it_had_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        // Killed while writing, before removing the state before, and a file of an earlier daemon.
        write("cut.9.json", "[1]");
        write("cut.10.json", "[2");
        write("both.3.json", "[3]");
        write("both.4.json", "[4]");
        write("old.json", "[5]");
        let notes = Notes::open(dir.path().to_owned()).unwrap();
        let mut all = notes.all::<Vec<u32>>();
        all.sort();
        let expected = [("both", 4), ("cut", 1), ("old", 5)];
        assert_eq!(all, expected.map(|(id, n)| (id.to_owned(), vec![n])));
        assert_eq!(names(dir.path()), ["both.4.json", "cut.9.json", "old.json"]);
    }
}
