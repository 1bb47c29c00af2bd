//! What a running container has at the place of a new volume.

use std::os::fd::AsFd;
use std::sync::Arc;

use gantry_driver_api::{Mount as Planned, MountPlan};
use gantry_sys::{inroot, mountns::MountSpace};
use rustix::fs::{Mode, OFlags};

use crate::container::record::{MountPoint, Record};
use crate::engine::blocking;
use crate::{Engine, Result};

impl Engine {
    /// Copies it into the volume, when that is empty and a directory of its driver's.
    pub(super) async fn fill_running(
        &self,
        record: &Record,
        space: &Arc<MountSpace>,
        point: &MountPoint,
    ) -> Result<()> {
        if point.no_copy || !point.subpath.is_empty() {
            return Ok(());
        }
        if space.users().is_some() {
            // Through the container's own root, owners would look shifted.
            let root = self.root_beside(record).await?;
            return self.fill(record, point, &root).await;
        }
        let volumes = &self.services.volumes;
        let plan = volumes.mount(&point.name, &record.id).await?;
        let (space, destination) = (space.clone(), point.destination.clone());
        let filled = blocking(move || {
            let Some(directory) = plan.directory() else {
                // Content belongs to whoever serves the file system.
                return Ok(());
            };
            let top = inroot::root(directory)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let volume = inroot::open(&top, ".".as_ref(), flags, Mode::empty())?;
            gantry_volume::copy_up(space.root(), &destination, volume.as_fd())
        })
        .await?;
        let name = point.name.clone();
        filled.map_err(|source| gantry_volume::VolumeError::Copy { name, source }.into())
    }

    /// A container's root, to be read beside the one that is in use.
    async fn root_beside(&self, record: &Record) -> Result<MountPlan> {
        let images = self.services.images.clone();
        let (driver, id) = (record.storage_driver.clone(), record.id.clone());
        let mut root = blocking(move || images.container_mounts(&driver, id.as_str())).await??;
        for mount in &mut root.mounts {
            if let Planned::Overlay {
                lower,
                upper,
                work,
                options,
            } = mount
            {
                lower.splice(0..0, upper.take());
                *work = None;
                options.retain(|option| option == "userxattr");
            }
        }
        Ok(root)
    }
}
