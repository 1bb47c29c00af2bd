//! The images that are here, and their names.

use std::collections::HashSet;

use gantry_model::{ImageId, Platform, Reference};

use super::ImageService;
use crate::{
    HistoryEntry, Image, ImageInspect, ImageSummary, ImageUse, InspectQuery, ListQuery,
    RemoveOptions, Removed, Result,
};

impl ImageService {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for unknown filters or values.
    pub fn list(&self, query: &ListQuery) -> Result<Vec<ImageSummary>> {
        self.shared.list(query)
    }

    /// The image that a name, identifier, short identifier or digest reference means.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] (also when a short identifier is ambiguous), [`crate::Error::Reference`].
    pub fn find(&self, name: &str) -> Result<ImageId> {
        self.shared.find(name)
    }

    /// These images, and those that were made of them here.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn descendants(&self, images: Vec<ImageId>) -> Result<HashSet<ImageId>> {
        self.shared.descendants(images)
    }

    /// As [`ImageService::find`]; where the name stands for an index, the image of it for `platform`.
    ///
    /// # Errors
    /// As [`ImageService::find`]; [`crate::Error::WrongPlatform`].
    pub fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId> {
        self.shared.find_for(name, platform)
    }

    /// As [`ImageService::find_for`], with the configuration that containers are made from.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn get(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        self.shared.get(name, platform)
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn inspect(&self, name: &str, query: &InspectQuery) -> Result<ImageInspect> {
        self.shared.inspect(name, query)
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn history(&self, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryEntry>> {
        self.shared.history(name, platform)
    }

    /// Bytes of all layers of an image, unpacked.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`].
    pub fn size(&self, image: &ImageId) -> Result<u64> {
        Ok(self.shared.image(image)?.size)
    }

    /// Bytes of all layers, unpacked: `LayersSize` of `system df`.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn layers_size(&self) -> Result<u64> {
        self.shared.unpacked_bytes()
    }

    /// Gives the image `source` the name `target` (`:latest` where it has no tag), taking it from another image if
    /// need be.
    ///
    /// # Errors
    /// As [`ImageService::find`]; [`crate::Error::Invalid`] for a target with a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        crate::remove::tag(&self.shared, source, target)
    }

    /// Removes a name, and the image with its last name, as Docker does. `uses` are all containers.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`]; as [`ImageService::find`].
    pub fn remove(
        &self,
        name: &str,
        options: &RemoveOptions,
        uses: &[ImageUse],
    ) -> Result<Vec<Removed>> {
        crate::remove::remove(&self.shared, name, options, uses)
    }

    /// Removes images without a name, with `all` also those that no container uses. `query` narrows the choice. Returns
    /// what was removed and the bytes of layers freed.
    ///
    /// # Errors
    /// As [`ImageService::list`] and [`ImageService::remove`].
    pub fn prune(
        &self,
        all: bool,
        query: &ListQuery,
        uses: &[ImageUse],
    ) -> Result<(Vec<Removed>, u64)> {
        crate::remove::prune(&self.shared, all, query, uses)
    }
}
