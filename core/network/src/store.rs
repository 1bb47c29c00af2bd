//! Where records are kept: one JSON file an object, replaced by rename.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{NetworkError, Result};

/// A directory of JSON files named `<id>.json`.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
}

const SUFFIX: &str = ".json";

impl Files {
    /// Opens (and makes) the directory.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)
            .map_err(|e| NetworkError::io(format_args!("creating {}", dir.display()), &e))?;
        Ok(Self { dir })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}{SUFFIX}"))
    }

    /// Writes a record, replacing an earlier one whole. It is on disk when this returns.
    pub(crate) fn put<T: Serialize>(&self, id: &str, record: &T) -> Result<()> {
        let path = self.path(id);
        let failed =
            |e: &io::Error| NetworkError::io(format_args!("writing {}", path.display()), e);
        let bytes = serde_json::to_vec(record)
            .map_err(|e| NetworkError::internal(format!("encoding {}: {e}", path.display())))?;
        replace(&path, &bytes).map_err(|e| failed(&e))
    }

    /// Removes a record, if it is there.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(NetworkError::io(
                format_args!("removing {}", path.display()),
                &e,
            )),
            _ => sync_dir(&self.dir)
                .map_err(|e| NetworkError::io(format_args!("syncing {}", self.dir.display()), &e)),
        }
    }

    /// Every record that can be read, with the ID it is kept under. What cannot be is logged and left.
    pub(crate) fn all<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>> {
        let mut records = Vec::new();
        let entries = fs::read_dir(&self.dir)
            .map_err(|e| NetworkError::io(format_args!("reading {}", self.dir.display()), &e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let parsed = fs::read(entry.path())
                .map_err(|e| e.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
            match parsed {
                Ok(record) => records.push((id.to_owned(), record)),
                Err(error) => {
                    tracing::warn!(file = %entry.path().display(), error, "unreadable record")
                }
            }
        }
        Ok(records)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_replaced_removed_and_damaged_ones_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("a/b")).unwrap();
        files.put("x", &1).unwrap();
        files.put("x", &2).unwrap();
        files.put("y", &3).unwrap();
        files.remove("y").unwrap();
        files.remove("y").unwrap();
        fs::write(files.path("z"), "{").unwrap();
        assert_eq!(files.all::<i32>().unwrap(), vec![("x".to_owned(), 2)]);
    }
}
