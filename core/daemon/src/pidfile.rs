//! The file that tells others the daemon's process ID.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The file, while the daemon runs.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file; one of another daemon that runs is respected.
    pub(crate) fn write(path: &Path) -> anyhow::Result<Self> {
        let other = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id() && is_daemon(*pid));
        if let Some(pid) = other {
            bail!(
                "ensure gantryd is not running or delete {}: process with PID {pid} is still running",
                path.display()
            );
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("make {}", parent.display()))?;
        }
        std::fs::write(path, std::process::id().to_string())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have taken it away already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Process IDs are used again: only another gantryd counts.
fn is_daemon(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "gantryd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_ones_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/pid");
        let file = PidFile::write(&path).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
        drop(file);
        assert!(!path.exists());
        // Process 1 runs, and is no gantryd.
        std::fs::write(&path, "1").unwrap();
        PidFile::write(&path).unwrap();
    }
}
