//! Removing blobs that nothing names any more.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::time::SystemTime;

use gantry_plugin_sdk::DriverResult;
use serde_json::Value;

use crate::digest::Digest;
use crate::index::{Entry, Index};
use crate::layout::Layout;
use crate::manifest::{self, MAX_DEPTH};
use crate::upload::{clear, remove_old};

/// Removes what `index` does not lead to, unless it is so new that a push may be about to name it. The lock is held.
/// Where anything cannot be read, nothing is removed: the next deletion tries again.
pub(crate) fn collect(layout: &Layout, index: &Index, now: SystemTime) {
    clear(layout, now);
    let mut live = BTreeSet::new();
    if mark(layout, &index.entries, &mut live, MAX_DEPTH).is_err() {
        return;
    }
    for algorithm in ["sha256", "sha512"] {
        // What has no digest's name is somebody else's.
        let unwanted = |name: &CStr| {
            let hex = name.to_str().ok();
            let digest = hex.and_then(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok());
            digest.is_some_and(|digest| !live.contains(&digest))
        };
        remove_old(layout, &format!("blobs/{algorithm}"), now, unwanted);
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
        let inner = Entry::listed(document["manifests"].clone());
        if depth > 0 && !inner.is_empty() {
            mark(layout, &inner, live, depth - 1)?;
        } else {
            live.extend(
                manifest::names(&document)
                    .iter()
                    .filter_map(|digest| digest.parse().ok()),
            );
        }
    }
    Ok(())
}
