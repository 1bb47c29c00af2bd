//! Images from archives and containers, and into archives.

use std::io::{Read, Write};

use gantry_model::{ImageId, Platform};

use super::ImageService;
use crate::{ImportOptions, LoadOptions, Loaded, Progress, Result};

impl ImageService {
    /// Reads an archive of images: docker-archive (with `manifest.json`) or OCI layout, plain or compressed (gzip, bzip2,
    /// xz, zstd).
    ///
    /// # Errors
    /// [`crate::Error::Malformed`]; nothing of a broken archive is kept.
    pub fn load(
        &self,
        input: &mut (dyn Read + Send),
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        crate::load::load(&self.shared, input, options, progress)
    }

    /// Makes an image of one layer from a tar archive (plain or compressed).
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad changes, [`crate::Error::Malformed`] for a bad archive.
    pub fn import(
        &self,
        input: &mut (dyn Read + Send),
        options: &ImportOptions,
        progress: &dyn Progress,
    ) -> Result<ImageId> {
        crate::import::import(&self.shared, input, options, progress)
    }

    /// Makes an image of what a container has changed on top of its own.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] when the container's image is gone, [`crate::Error::Io`].
    pub fn commit(&self, options: crate::CommitOptions<'_>) -> Result<ImageId> {
        self.shared.commit(options)
    }

    /// Whether [`ImageService::save`] would find what it is to write.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::WrongPlatform`].
    pub fn check_save(&self, names: &[String], platforms: &[Platform]) -> Result<()> {
        crate::save::choose(&self.shared, names, platforms).map(drop)
    }

    /// Writes images as one archive that is a docker-archive and an OCI layout. A name with a tag or digest, or an
    /// identifier, names one image; a name alone all of its tags. With `platforms`, only the images for these.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::WrongPlatform`], [`crate::Error::Io`].
    pub fn save(
        &self,
        names: &[String],
        platforms: &[Platform],
        output: &mut (dyn Write + Send),
    ) -> Result<()> {
        crate::save::save(&self.shared, names, platforms, output)
    }
}
