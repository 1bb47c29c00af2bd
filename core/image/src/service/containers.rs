//! Root file systems of containers, views of images, and their way to another storage driver.

use std::os::fd::BorrowedFd;

use gantry_driver_api::MountPlan;
use gantry_driver_api::storage::Usage;
use gantry_model::ImageId;

use super::ImageService;
use crate::settle::MountRoot;
use crate::{ContainerRoot, GraphDriver, Image, ParentView, Progress, Result};

impl ImageService {
    /// Makes a container's writable root file system on top of an image, with a quota of `size` bytes if given.
    /// Idempotent for one container and image.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Driver`].
    pub fn prepare_container(
        &self,
        container: &str,
        image: &ImageId,
        size: Option<u64>,
    ) -> Result<ContainerRoot> {
        self.shared.prepare_container(container, image, size)
    }

    /// Makes a read-only view of an image, for a container that mounts it. It is measured, mounted and removed as the root
    /// of a container is, and [`ImageService::reconcile`] must be told of it. Idempotent for one key and image.
    ///
    /// # Errors
    /// As [`ImageService::prepare_container`].
    pub fn prepare_view(&self, key: &str, image: &ImageId) -> Result<ContainerRoot> {
        self.shared.prepare_view(key, image)
    }

    /// What to mount for a container or a view made before.
    ///
    /// # Errors
    /// [`crate::Error::Driver`], with `NotFound` when it is gone.
    pub fn container_mounts(&self, driver: &str, container: &str) -> Result<MountPlan> {
        self.shared.container_mounts(driver, container)
    }

    /// A view of what a container was made on.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_parent(&self, driver: &str, container: &str) -> Result<ParentView> {
        self.shared.container_parent(driver, container)
    }

    /// What inspect shows as a container's `GraphDriver`.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_graph_driver(&self, driver: &str, container: &str) -> Result<GraphDriver> {
        self.shared.container_graph_driver(driver, container)
    }

    /// What a container takes on the disk: what it has written, or its whole tree.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_usage(&self, driver: &str, container: &str) -> Result<Usage> {
        self.shared.container_usage(driver, container)
    }

    /// Removes a container's root file system; an absent one is no error.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn remove_container(&self, driver: &str, container: &str) -> Result<()> {
        self.shared.remove_container(driver, container)
    }

    /// The images that another storage driver than the default holds, largest first.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn elsewhere(&self) -> Result<Vec<Image>> {
        self.shared.elsewhere()
    }

    /// Brings an image to the default storage driver, from the blobs that are kept. After a crash it is with the one driver or
    /// the other; layers that no container stands on any more are removed from the first. Does nothing when it is there.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Layer`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn settle(&self, image: &ImageId, progress: &dyn Progress) -> Result<()> {
        self.shared.settle_with(image, progress).map(drop)
    }

    /// Brings what a container has written to the default storage driver: makes its root there, on its image, and like the
    /// tree `from`. It must not run. Returns the driver; the root with the old one stays until
    /// [`ImageService::remove_container`].
    ///
    /// # Errors
    /// As [`ImageService::settle`], and those of copying; then nothing is left of the new root.
    pub fn move_container(
        &self,
        container: &str,
        image: &ImageId,
        from: BorrowedFd<'_>,
        mount: &MountRoot<'_>,
    ) -> Result<String> {
        self.shared.move_container(container, image, from, mount)
    }
}
