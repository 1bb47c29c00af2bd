//! Copies of the engine's own, named by their digest.
//!
//! A library that is mapped must not change: `cp` over a plugin file writes into the very inode. So what is mapped (and
//! what a child process executes again after a crash) is a private copy: a reflink where the file system can, else a
//! plain copy. A hard link would not do.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use sha2::{Digest, Sha256};

use crate::PluginError;

/// Makes the private directory for copies below the first of `parents` from which programs may be run: `/run` is often
/// mounted `noexec`.
///
/// # Errors
/// When none will do.
pub fn directory(parents: &[&Path]) -> Result<PathBuf, PluginError> {
    let mut last = None;
    for parent in parents {
        let dir = parent.join("plugins");
        match fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
        {
            Ok(()) => {}
            Err(error) => {
                last = Some(PluginError::io(format!("making {}", dir.display()))(error));
                continue;
            }
        }
        let flags = rustix::fs::statvfs(&dir)
            .map_err(|e| PluginError::io(format!("looking at {}", dir.display()))(e.into()))?
            .f_flag;
        if !flags.contains(StatVfsMountFlags::NOEXEC) {
            fs::set_permissions(&dir, Permissions::from_mode(0o700))
                .map_err(PluginError::io(format!("protecting {}", dir.display())))?;
            return Ok(dir);
        }
        last = Some(PluginError::io(format!("looking at {}", dir.display()))(
            io::Error::other("mounted noexec"),
        ));
    }
    Err(last.unwrap_or_else(|| {
        PluginError::io("choosing a directory for plugins")(io::ErrorKind::NotFound.into())
    }))
}

/// Copies `file` into `dir` under its digest, unless it is there; returns the copy's path.
///
/// # Errors
/// I/O errors.
pub fn copy(file: &File, dir: &Path) -> Result<PathBuf, PluginError> {
    let failed = || PluginError::io(format!("copying a plugin to {}", dir.display()));
    let size = file.metadata().map_err(failed())?.size();
    let present = dir.join(file_name(file).map_err(failed())?);
    if fs::metadata(&present).is_ok_and(|m| m.size() == size) {
        return Ok(present);
    }
    // Concurrent copies of one content would meet at the rename only.
    let mut temporary = tempname(dir);
    let copy = loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o700);
        match options.open(&temporary) {
            Ok(copy) => break copy,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => temporary = tempname(dir),
            Err(e) => return Err(failed()(e)),
        }
    };
    let fill = || {
        if rustix::fs::ioctl_ficlone(&copy, file).is_err() {
            let mut from = file;
            from.seek(SeekFrom::Start(0))?;
            io::copy(&mut from, &mut &copy)?;
        }
        copy.sync_data()?;
        // The source may have changed since it was hashed: the name is that of what was copied.
        let staged = dir.join(file_name(&copy)?);
        fs::rename(&temporary, &staged)?;
        Ok(staged)
    };
    fill().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed()(error)
    })
}

/// Removes copies that are not among `used`. Those still mapped live on without a name.
pub fn prune(dir: &Path, used: &[PathBuf]) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if !used.contains(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

fn tempname(dir: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".{}-{number}", std::process::id()))
}

/// The first 128 bits of the content's SHA-256.
fn file_name(mut file: &File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(&hash.finalize()[..16])),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_independent_and_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = directory(&[temp.path()]).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let source = temp.path().join("a");
        fs::write(&source, b"one").unwrap();
        let first = copy(&File::open(&source).unwrap(), &dir).unwrap();
        let inode = fs::metadata(&first).unwrap().ino();
        assert_eq!(copy(&File::open(&source).unwrap(), &dir).unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().ino(), inode);
        fs::write(&source, b"two").unwrap();
        assert_eq!(fs::read(&first).unwrap(), b"one");
        let second = copy(&File::open(&source).unwrap(), &dir).unwrap();
        assert_ne!(first, second);
        prune(&dir, std::slice::from_ref(&second));
        assert!(!first.exists() && second.exists());
    }
}
