//! Reading and writing control files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A control file, or a directory of them, did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}")]
pub struct CgroupError {
    /// `mkdir`, `read`, `write "max" to`, ...
    pub what: String,
    /// The file.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

impl CgroupError {
    pub(super) fn new(what: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self {
            what: what.into(),
            path: path.to_owned(),
            source,
        }
    }
    /// The error number, 0 when it was none of the kernel's.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// A control file that takes several values, one a call.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
}

impl Writer {
    /// Never makes a file.
    pub(super) fn open(path: PathBuf) -> Result<Self, CgroupError> {
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(e) => Err(CgroupError::new("open", &path, e)),
        }
    }
    pub(super) fn write(&self, value: &str) -> Result<(), CgroupError> {
        (&self.file)
            .write_all(value.as_bytes())
            .map_err(|e| CgroupError::new(format!("write {value:?} to"), &self.path, e))
    }
}

/// Writes one value; never makes a file.
pub(super) fn write(path: &Path, value: impl AsRef<str>) -> Result<(), CgroupError> {
    Writer::open(path.to_owned())?.write(value.as_ref())
}

/// No control file has more bytes to tell.
const MAX: u64 = 1 << 20;

/// The text of a control file, without the newline at its end.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    // Most fit; asking for the size first would be a call in vain, because the kernel does not know it.
    let mut text = Vec::with_capacity(4096);
    File::open(path)
        .and_then(|file| file.take(MAX).read_to_end(&mut text))
        .map_err(|e| CgroupError::new("read", path, e))?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// A file's number; `None` when the file is not there or says something else (`max`).
pub(super) fn number(path: &Path) -> Option<u64> {
    read(path).ok()?.parse().ok()
}

/// `key value` lines.
pub(super) fn pairs(path: &Path) -> Vec<(String, u64)> {
    read(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// The value of one key among `key value` lines.
pub(super) fn field(path: &Path, key: &str) -> Option<u64> {
    pairs(path)
        .into_iter()
        .find(|(k, _)| k == key)
        .map(|(_, v)| v)
}
