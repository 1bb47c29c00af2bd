//! Unpacking, by topic.

pub(crate) mod builder;
mod damage;
mod files;
mod kinds;
mod names;
mod whiteouts;

use std::fs as std_fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;
use builder::Tar;

impl Tar {
    pub(crate) fn into(self, root: &Path, style: WhiteoutStyle) -> io::Result<Extracted> {
        let mut bytes = self.0;
        bytes.resize(bytes.len() + 1024, 0);
        extract(root, style, &mut &bytes[..])
    }
}

/// A directory to unpack into, with something outside to hit.
pub(crate) struct Place {
    _dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) outside: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std_fs::create_dir(&root).unwrap();
        std_fs::create_dir(&outside).unwrap();
        std_fs::write(outside.join("secret"), "untouched").unwrap();
        Self {
            _dir: dir,
            root,
            outside,
        }
    }
    /// Nothing outside has changed.
    pub(crate) fn assert_contained(&self) {
        let names: Vec<_> = std_fs::read_dir(&self.outside).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let secret = self.outside.join("secret");
        assert_eq!(std_fs::read(&secret).unwrap(), b"untouched");
        assert_eq!(secret.metadata().unwrap().nlink(), 1);
        let above = std_fs::read_dir(self.root.parent().unwrap())
            .unwrap()
            .count();
        assert_eq!(above, 2);
    }
}
