//! The files of a log: the current one and the rotated ones before it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A log keeps at most so many files; more are not looked for.
const MAX_FILES: u32 = 1000;

/// What tells one file from another, whatever its name.
pub(super) type Identity = (u64, u64);

/// An open file of a log.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) file: File,
    pub(super) identity: Identity,
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<Option<LogFile>> {
    match File::open(path) {
        Ok(file) => {
            let meta = file.metadata()?;
            Ok(Some(LogFile {
                file,
                identity: (meta.dev(), meta.ino()),
            }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every file, oldest first. A rotation that happens meanwhile may show a file twice; such are dropped.
pub(super) fn all(path: &Path) -> io::Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    for number in 0..MAX_FILES {
        match open(&numbered(path, number))? {
            Some(file) if files.iter().any(|f| f.identity == file.identity) => {}
            Some(file) => files.push(file),
            None if number == 0 => {}
            None => break,
        }
    }
    files.reverse();
    Ok(files)
}

/// The file that was begun after the one with `identity` was rotated away; `None` while that one is still current.
pub(super) fn successor(path: &Path, identity: Identity) -> io::Result<Option<LogFile>> {
    let mut newer = None;
    for number in 0..MAX_FILES {
        match open(&numbered(path, number))? {
            Some(file) if file.identity == identity => return Ok(newer),
            Some(file) => newer = Some(file),
            None if number == 0 => {}
            None => break,
        }
    }
    // It has been rotated out of existence: everything that is left is newer.
    Ok(newer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_successors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(all(&path).unwrap().is_empty());
        for (name, content) in [("log", "new"), ("log.1", "mid"), ("log.2", "old")] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let files = all(&path).unwrap();
        let sizes: Vec<String> = files
            .iter()
            .map(|f| io::read_to_string(&f.file).unwrap())
            .collect();
        assert_eq!(sizes, ["old", "mid", "new"]);
        let next = successor(&path, files[0].identity).unwrap().unwrap();
        assert_eq!(next.identity, files[1].identity);
        assert!(successor(&path, files[2].identity).unwrap().is_none());
        let oldest = successor(&path, (0, 0)).unwrap().unwrap();
        assert_eq!(oldest.identity, files[0].identity);
    }
}
