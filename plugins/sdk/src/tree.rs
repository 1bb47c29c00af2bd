//! What drivers ask of directory trees and their file systems.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use gantry_driver_api::storage::Usage;

/// What is in the tree at `root`, as Docker counts it: the lengths of its files and links; directories count nothing, files
/// with several names once. What vanishes meanwhile does not count.
///
/// # Errors
/// When a directory cannot be read.
pub fn measure(root: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut pending = vec![root.to_owned()];
    // Other file systems are mounted over the tree, not part of it.
    let device = fs::symlink_metadata(root)?.dev();
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let twice = !metadata.is_dir() && metadata.nlink() > 1 && !linked.insert(metadata.ino());
        if metadata.dev() != device || twice {
            continue;
        }
        usage.inodes += 1;
        if !metadata.is_dir() {
            usage.bytes += metadata.len();
            continue;
        }
        for entry in fs::read_dir(&path)? {
            pending.push(entry?.path());
        }
    }
    Ok(usage)
}

/// The file system that holds `path`, by its usual name.
///
/// # Errors
/// Those of `statfs(2)`.
pub fn file_system(path: &Path) -> io::Result<&'static str> {
    // linux/magic.h; XFS, btrfs, ZFS and f2fs have theirs in their own headers.
    Ok(
        match rustix::fs::statfs(path)?.f_type as u64 & 0xffff_ffff {
            0xef53 => "ext4",
            0x5846_5342 => "xfs",
            0x9123_683e => "btrfs",
            0x0102_1994 => "tmpfs",
            0x2fc1_2fc1 => "zfs",
            0xf2f5_2010 => "f2fs",
            0xca45_1a4e => "bcachefs",
            0x794c_7630 => "overlayfs",
            0x6969 => "nfs",
            0xff53_4d42 | 0xfe53_4d42 => "cifs",
            0x6573_5546 => "fuse",
            _ => "unknown",
        },
    )
}

/// What Docker calls a file system in `docker info`.
#[must_use]
pub fn shown_file_system(name: &str) -> &str {
    match name {
        "ext4" => "extfs",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once() {
        let dir = std::env::temp_dir().join(format!("gantry-tree-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.join("a"), dir.join("sub/b")).unwrap();
        let usage = measure(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(usage.inodes, 3);
        assert_eq!(usage.bytes, 100_000);
    }
}
