//! How a driver tells core what to mount; core performs the mounts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mount, without its target: the one who performs it chooses where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A directory that is used as it is (a bind mount, or the directory itself).
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Whether writes are refused.
        #[serde(default)]
        read_only: bool,
    },
    /// An overlay file system. Without `upper` and `work` it is read-only.
    Overlay {
        /// Lower directories, topmost first; at least one.
        lower: Vec<PathBuf>,
        /// Where changes go.
        #[serde(default)]
        upper: Option<PathBuf>,
        /// The overlay's work directory, on the file system of `upper`.
        #[serde(default)]
        work: Option<PathBuf>,
        /// Further mount options (`volatile`, `metacopy=on`).
        #[serde(default)]
        options: Vec<String>,
    },
    /// Any other file system (`nfs`, `tmpfs`).
    Filesystem {
        /// The kernel's name of the type.
        fstype: String,
        /// The source (device, export).
        source: String,
        /// Options as `mount -o` takes them, one each.
        #[serde(default)]
        options: Vec<String>,
    },
}

/// The mounts that make one tree, in order; each covers the one before at the same target. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// In order.
    pub mounts: Vec<Mount>,
}

impl MountPlan {
    /// The plan of one mount.
    #[must_use]
    pub fn single(mount: Mount) -> Self {
        Self {
            mounts: vec![mount],
        }
    }
    /// The directory itself, when the whole plan is one writable directory.
    #[must_use]
    pub fn directory(&self) -> Option<&std::path::Path> {
        match self.mounts.as_slice() {
            [
                Mount::Bind {
                    source,
                    read_only: false,
                },
            ] => Some(source),
            _ => None,
        }
    }
}
