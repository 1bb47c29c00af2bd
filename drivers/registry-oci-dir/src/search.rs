//! Looking for repositories below a root.

use std::fs;
use std::path::Path;

use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::registry::{SearchReply, SearchResult};

use crate::layout::open_root;

/// Repositories' names have at most so many components here.
const MAX_DEPTH: usize = 8;
/// Directories that are looked at.
const MAX_DIRECTORIES: usize = 100_000;

/// The repositories whose name contains `term`, in order.
pub(crate) fn find(root: &Path, term: &str, limit: u32) -> DriverResult<SearchReply> {
    open_root(root)?;
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), 0)];
    let mut seen = 0;
    while let Some((name, depth)) = pending.pop() {
        seen += 1;
        if seen > MAX_DIRECTORIES {
            break;
        }
        let directory = root.join(&name);
        if name.contains(term) && directory.join("oci-layout").is_file() {
            found.push(name.clone());
        }
        // What cannot be read holds nothing that could be pulled.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let child = entry.file_name().to_string_lossy().into_owned();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory && depth < MAX_DEPTH && !child.starts_with('.') && child != "blobs" {
                let path = match name.as_str() {
                    "" => child,
                    above => format!("{above}/{child}"),
                };
                pending.push((path, depth + 1));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found.sort();
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let result = |name| SearchResult {
        name,
        ..SearchResult::default()
    };
    Ok(SearchReply {
        results: found.into_iter().map(result).collect(),
    })
}
