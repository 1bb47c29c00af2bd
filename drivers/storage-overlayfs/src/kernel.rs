//! What the kernel and the file system below say.

use std::fs;

/// Features that make an upper directory unreadable by itself, and core reads it: for `commit` and `diff`.
const FEATURES: [&str; 3] = ["index", "metacopy", "redirect_dir"];

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
