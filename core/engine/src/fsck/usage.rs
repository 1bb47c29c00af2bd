//! Every file of the data-root, by what it belongs to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use gantry_image::Place;
use gantry_wire::FsckUsage;

use crate::{EngineError, Result};

/// What the entries of the data-root are, beside what is known more closely.
const ROOMS: &[(&str, &str)] = &[
    ("containers", "containers"),
    ("content", "blobs"),
    ("engine-id", "state"),
    ("lock", "state"),
    ("network", "networks"),
    ("registry", "drivers"),
    ("state.redb", "state"),
    ("storage", "drivers"),
    ("volume", "volumes"),
];
/// Every category, in the order in which they are reported.
const CATEGORIES: &[&str] = &[
    "blobs",
    "downloads",
    "layers",
    "containers",
    "volumes",
    "networks",
    "drivers",
    "state",
    "trash",
    "other",
];

/// Adds up all that is below `root`. Other file systems that are mounted there are not part of it; what vanishes meanwhile
/// does not count.
pub(super) fn measure(root: &Path, places: &HashMap<PathBuf, Place>) -> Result<Vec<FsckUsage>> {
    let failed = |error: io::Error| EngineError::io(format!("measure {}", root.display()), &error);
    let device = fs::symlink_metadata(root).map_err(failed)?.dev();
    let content = root.join("content");
    let marker = content.join("oci-layout");
    let mut sums: BTreeMap<&str, FsckUsage> = BTreeMap::new();
    let mut linked = HashSet::new();
    let mut pending: Vec<(PathBuf, &str)> = vec![(root.to_owned(), "state")];
    while let Some((path, inherited)) = pending.pop() {
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed)?,
        };
        if meta.dev() != device {
            continue;
        }
        let category = match places.get(&path) {
            Some(place) => word(*place),
            None if path.parent() == Some(root) => room(&path),
            None if path == marker => "state",
            // A blob that nobody has spoken for.
            None if inherited == "blobs" && !meta.is_dir() => "other",
            None => inherited,
        };
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                pending.push((entry.map_err(failed)?.path(), category));
            }
        }
        if !meta.is_dir() && meta.nlink() > 1 && !linked.insert(meta.ino()) {
            continue;
        }
        let sum = sums.entry(category).or_default();
        sum.files += u64::from(!meta.is_dir());
        sum.bytes += if meta.is_file() { meta.len() } else { 0 };
        sum.allocated += meta.blocks() * 512;
    }
    let row = |category: &&str| FsckUsage {
        category: (*category).into(),
        ..sums.remove(*category).unwrap_or_default()
    };
    Ok(CATEGORIES.iter().map(row).collect())
}

fn room(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default();
    let room = ROOMS.iter().find(|(entry, _)| name == *entry);
    room.map_or("other", |(_, category)| category)
}

fn word(place: Place) -> &'static str {
    match place {
        Place::Blob => "blobs",
        Place::Download => "downloads",
        Place::Trash => "trash",
        Place::Layer => "layers",
        Place::Root => "containers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (path, bytes) in [
            ("content/blobs/sha256/aa", 10),
            ("content/blobs/sha256/bb", 20),
            ("content/oci-layout", 1),
            ("storage/overlayfs/s/1/fs/etc/file", 300),
            ("storage/overlayfs/s/1/meta", 4),
            ("containers/c/log", 5000),
            ("stranger", 60_000),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; bytes]).unwrap();
        }
        let layer = root.join("storage/overlayfs/s/1/fs");
        fs::hard_link(layer.join("etc/file"), layer.join("etc/again")).unwrap();
        let places = HashMap::from([
            (root.join("content/blobs/sha256/aa"), Place::Blob),
            (layer, Place::Layer),
        ]);
        let usage = measure(root, &places).unwrap();
        let of = |category: &str| {
            let row = usage.iter().find(|row| row.category == category).unwrap();
            (row.files, row.bytes)
        };
        assert_eq!(of("blobs"), (1, 10));
        assert_eq!(of("layers"), (1, 300));
        assert_eq!(of("drivers"), (1, 4));
        assert_eq!(of("containers"), (1, 5000));
        assert_eq!(of("state"), (1, 1));
        assert_eq!(of("other"), (2, 60_020));
        assert_eq!(usage.iter().map(|row| row.bytes).sum::<u64>(), 65_335);
    }
}
