//! What lies where, for those who add up a data-root.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use gantry_driver_api::Call;

use crate::{ImageService, Result};

/// What a file or directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A blob that an image has.
    Blob,
    /// A blob, or part of one, of an operation under way or cut off.
    Download,
    /// Blobs on their way out.
    Trash,
    /// A layer's files.
    Layer,
    /// What a container has written.
    Root,
}

impl ImageService {
    /// The places of everything that is known; what else is below them belongs to nobody.
    ///
    /// # Errors
    /// [`crate::Error::Store`], [`crate::Error::Content`], [`crate::Error::Driver`].
    pub fn places(&self) -> Result<HashMap<PathBuf, Place>> {
        let shared = &self.shared;
        let content = &shared.content;
        let wanted = shared.wanted_blobs()?;
        let garbage = content.garbage(|| shared.wanted_blobs())?;
        let garbage: HashSet<_> = garbage.into_iter().collect();
        let mut places = HashMap::new();
        for digest in content.list()? {
            let place = match wanted.contains(&digest) {
                true => Place::Blob,
                false if garbage.contains(&digest) => continue,
                false => Place::Download,
            };
            places.insert(content.path(&digest), place);
        }
        places.insert(content.root().join("ingest"), Place::Download);
        places.insert(content.root().join("trash"), Place::Trash);
        for (name, storage) in shared.storage_drivers() {
            for info in storage.list(&Call::new("fsck"), ())? {
                let layer = shared.layers.contains(&format!("{name}/{}", info.key))?;
                let place = if layer { Place::Layer } else { Place::Root };
                places.extend(info.upper.map(|path| (path, place)));
            }
        }
        Ok(places)
    }
}
