//! Plugin files that were found, and everything that can be said of them before they are mapped.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gantry_driver_api::{Kind, Manifest};

use crate::{PluginError, manifest, stage};

/// A plugin file that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// As in the file's name; the manifest's may have dashes.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// A plugin that passed every check.
pub(crate) struct Looked {
    pub(crate) manifest: Manifest,
    bytes: Vec<u8>,
    file: File,
}

/// A plugin that passed every check and was copied, but has not been mapped.
pub(crate) struct Checked {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) staged: PathBuf,
}

impl Found {
    /// Everything that can be said of a plugin before it is mapped.
    pub(crate) fn look(&self, dir: &Path, owners: &[u32]) -> Result<Looked, PluginError> {
        let looking = |path: &Path| PluginError::io(format!("opening {}", path.display()));
        let metadata = fs::metadata(dir).map_err(looking(dir))?;
        manifest::check_trust(dir, &metadata, owners)?;
        let file = open(&self.path).map_err(looking(&self.path))?;
        let metadata = file.metadata().map_err(looking(&self.path))?;
        if !metadata.is_file() {
            return Err(PluginError::NotAPlugin {
                path: self.path.clone(),
                why: "no regular file".to_owned(),
            });
        }
        manifest::check_trust(&self.path, &metadata, owners)?;
        let (manifest, bytes) = manifest::read(&self.path, &file)?;
        manifest::check(&self.path, &manifest, self.kind, &self.name)?;
        Ok(Looked {
            manifest,
            bytes,
            file,
        })
    }
}

impl Looked {
    /// Copies it into `stage`.
    pub(crate) fn copy(&self, stage: &Path) -> Result<Checked, PluginError> {
        Ok(Checked {
            manifest: self.manifest.clone(),
            bytes: self.bytes.clone(),
            staged: stage::copy(&self.file, stage)?,
        })
    }

    /// That the file says of itself what it said then: what was not copied may have been written to.
    pub(crate) fn check_unchanged(&self, path: &Path) -> Result<(), PluginError> {
        let (_, bytes) = manifest::read(path, &self.file)?;
        match bytes == self.bytes {
            true => Ok(()),
            false => Err(PluginError::Refused {
                path: path.to_owned(),
                why: "was replaced by another version; a reload takes it".to_owned(),
            }),
        }
    }

    /// Whether both are the same version of a plugin.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// Opens what should be a regular file; a pipe of that name must not make the engine wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The files of a directory that are plugins by name; a directory that is not there has none.
pub(crate) fn discover(dir: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let (kind, name) = manifest::kind_and_name(entry.file_name().to_str()?)?;
            Some(Found {
                kind,
                name,
                path: entry.path(),
            })
        })
        .collect();
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    found
}
