//! Removing blobs that nothing names any more.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::SystemTime;

use gantry_plugin_sdk::DriverResult;
use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use serde_json::Value;

use crate::digest::Digest;
use crate::index::{Entry, Index};
use crate::layout::Layout;
use crate::manifest::{self, MAX_DEPTH};
use crate::upload::{clear, is_old};

/// Removes what `index` does not lead to, unless it is so new that a push may be about to name it. The lock is held.
/// Where anything cannot be read, nothing is removed: the next deletion tries again.
pub(crate) fn collect(layout: &Layout, index: &Index, now: SystemTime) {
    clear(layout, now);
    let mut live = BTreeSet::new();
    if mark(layout, &index.entries, &mut live, MAX_DEPTH).is_err() {
        return;
    }
    for algorithm in ["sha256", "sha512"] {
        sweep(layout, algorithm, &live, now);
    }
}

/// Notes what entries need, down to their layers.
fn mark(
    layout: &Layout,
    entries: &[Entry],
    live: &mut BTreeSet<Digest>,
    depth: usize,
) -> DriverResult<()> {
    for digest in entries.iter().filter_map(Entry::digest) {
        if !live.insert(digest.clone()) {
            continue;
        }
        let bytes = manifest::read(layout, &digest)?.unwrap_or_default();
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match Index::parse(&bytes) {
            Ok(inner) if depth > 0 && !inner.entries.is_empty() => {
                mark(layout, &inner.entries, live, depth - 1)?;
            }
            _ => live.extend(
                manifest::names(&document)
                    .iter()
                    .filter_map(|digest| digest.parse().ok()),
            ),
        }
    }
    Ok(())
}

fn sweep(layout: &Layout, algorithm: &str, live: &BTreeSet<Digest>, now: SystemTime) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = format!("blobs/{algorithm}");
    let Ok(blobs) = fs::openat(layout.dir(), path, flags, Mode::empty()) else {
        return;
    };
    let Ok(entries) = Dir::read_from(&blobs) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digest = name
            .to_str()
            .ok()
            .and_then(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok());
        // What has no digest's name is somebody else's.
        if digest.is_some_and(|digest| !live.contains(&digest)) && is_old(blobs.as_fd(), name, now)
        {
            let _ = fs::unlinkat(&blobs, name, AtFlags::empty());
        }
    }
}
