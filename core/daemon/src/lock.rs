//! One daemon a data-root.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Holds a data-root until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; a daemon that holds it is named.
    pub(crate) fn take(data_root: &Path) -> anyhow::Result<Self> {
        let path = data_root.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only told to people: an unreadable number is no reason for another error.
                let _ = file.read_to_string(&mut holder);
                bail!(
                    "{} is already in use by another gantryd (pid {})",
                    data_root.display(),
                    holder.trim()
                );
            }
            Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let second = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(
            second.ends_with(&format!(
                "is already in use by another gantryd (pid {})",
                std::process::id()
            )),
            "{second}"
        );
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
