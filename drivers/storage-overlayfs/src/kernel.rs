//! What the kernel and the file system below say.

use std::path::Path;
use std::{fs, io};

/// Features that make an upper directory unreadable by itself, and core reads it: for `commit` and `diff`.
const FEATURES: [&str; 3] = ["index", "metacopy", "redirect_dir"];

/// The file system that holds `path`, by its usual name.
pub(crate) fn backing(path: &Path) -> io::Result<&'static str> {
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

/// Whether upper directories can be there.
pub(crate) fn carries_overlay(backing: &str) -> bool {
    !matches!(backing, "overlayfs" | "nfs" | "cifs" | "fuse")
}

/// Options that switch off the features that the kernel has on by default. Before the module is loaded nobody knows;
/// then all are named.
pub(crate) fn mount_options() -> Vec<String> {
    let on = |feature: &&str| {
        let path = format!("/sys/module/overlay/parameters/{feature}");
        fs::read_to_string(path).map_or(true, |value| value.trim() != "N")
    };
    let features = FEATURES.into_iter().filter(on);
    features.map(|feature| format!("{feature}=off")).collect()
}
