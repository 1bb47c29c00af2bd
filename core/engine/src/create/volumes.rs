//! The volumes of a container: made on the way, filled from the image, held while it exists.

use std::os::fd::AsFd;
use std::path::Path;

use gantry_driver_api::MountPlan;
use gantry_volume::CreateVolume;

use super::mounts::Wanted;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::engine::blocking;
use crate::events::Attributes;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Makes what the mounts need and notes them in the record.
    pub(super) async fn make_mounts(
        &self,
        record: &mut Record,
        wanted: Vec<Wanted>,
        root: &MountPlan,
    ) -> Result<()> {
        for wanted in wanted {
            match wanted.point.kind {
                MountKind::Volume => {
                    let (point, new) = self.make_volume(record, wanted).await?;
                    // Noted before it is filled, so that a failure finds it.
                    record.mounts.push(point.clone());
                    if !point.no_copy
                        && let Err(error) = self.fill(record, &point, root).await
                    {
                        if new {
                            self.drop_half_filled(record, &point).await;
                        }
                        return Err(error);
                    }
                }
                MountKind::Image => {
                    let point = self.make_image_mount(record, wanted).await?;
                    record.mounts.push(point);
                }
                MountKind::Bind | MountKind::Tmpfs => record.mounts.push(wanted.point),
            }
        }
        Ok(())
    }

    /// Makes or finds a volume and takes hold of it; returns whether it is new.
    pub(crate) async fn make_volume(
        &self,
        record: &Record,
        wanted: Wanted,
    ) -> Result<(MountPoint, bool)> {
        let mut point = wanted.point;
        let transient = point.anonymous && record.is_transient();
        let request = CreateVolume {
            name: Some(point.name.clone()).filter(|n| !n.is_empty()),
            driver: Some(point.driver.clone()).filter(|d| !d.is_empty()),
            options: wanted.options,
            labels: wanted.labels,
            owner: Some(record.id.clone()).filter(|_| point.anonymous),
            transient,
        };
        let volumes = &self.services.volumes;
        let (volume, new) = volumes.create(request).await?;
        volumes.acquire(&volume.record.name, &record.id)?;
        if new {
            self.tell_volume(
                "create",
                &volume.record.name,
                &volume.record.driver,
                Attributes::new(),
            );
        }
        point.name = volume.record.name;
        point.driver = volume.record.driver;
        point.source = volume
            .mountpoint
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok((point, new))
    }

    /// Copies what the image has at the mount's place into the volume, when that is empty.
    pub(crate) async fn fill(
        &self,
        record: &Record,
        point: &MountPoint,
        root: &MountPlan,
    ) -> Result<()> {
        let volumes = &self.services.volumes;
        let plan = volumes.mount(&point.name, &record.id).await?;
        let (root, destination, name) =
            (root.clone(), point.destination.clone(), point.name.clone());
        let outcome = blocking(move || {
            let Some(directory) = plan.directory() else {
                // Content belongs to whoever serves the file system.
                return Ok(());
            };
            let volume = open_directory(directory)?;
            // Before the image is mounted for nothing.
            if !gantry_volume::is_empty(volume.as_fd())? {
                return Ok(());
            }
            let root = gantry_sys::mount::detached(&root)?;
            gantry_volume::copy_up(root.as_fd(), &destination, volume.as_fd())
        })
        .await?;
        volumes.unmount(&point.name, &record.id).await?;
        outcome.map_err(|source| gantry_volume::VolumeError::Copy { name, source }.into())
    }

    /// A volume made for this container that holds a part of the image's content must not look like a whole one.
    async fn drop_half_filled(&self, record: &Record, point: &MountPoint) {
        let volumes = &self.services.volumes;
        volumes.release(&point.name, &record.id);
        if let Err(error) = volumes.remove(&point.name, true).await {
            tracing::warn!(volume = point.name, %error, "cannot remove a half-filled volume");
        }
    }

    /// The container does not use its volumes any more; with `anonymous`, those that were made for it alone go as well.
    pub(crate) async fn drop_volumes(&self, record: &Record, anonymous: bool) {
        for point in &record.mounts {
            if point.kind != MountKind::Volume {
                continue;
            }
            let volumes = &self.services.volumes;
            volumes.release(&point.name, &record.id);
            if !anonymous || !point.anonymous {
                continue;
            }
            match volumes.remove(&point.name, true).await {
                Ok(()) => {
                    self.tell_volume("destroy", &point.name, &point.driver, Attributes::new());
                }
                // Another container took it over with --volumes-from.
                Err(gantry_volume::VolumeError::InUse { .. }) => {}
                Err(error) => {
                    tracing::warn!(volume = point.name, %error, "cannot remove a volume");
                }
            }
        }
    }

    /// Tells that a container has a volume.
    pub(crate) fn tell_mounted(&self, record: &Record, point: &MountPoint) {
        let attributes = Attributes::from([
            ("container".to_owned(), record.id.to_string()),
            ("destination".to_owned(), point.destination.clone()),
            ("propagation".to_owned(), point.propagation.clone()),
            ("read/write".to_owned(), point.rw.to_string()),
        ]);
        self.tell_volume("mount", &point.name, &point.driver, attributes);
    }

    /// Tells that a container does not have a volume any more.
    pub(crate) fn tell_unmounted(&self, record: &Record, point: &MountPoint) {
        let attributes = Attributes::from([("container".to_owned(), record.id.to_string())]);
        self.tell_volume("unmount", &point.name, &point.driver, attributes);
    }

    /// Tells that something happened to a volume.
    pub(crate) fn tell_volume(&self, action: &str, name: &str, driver: &str, more: Attributes) {
        let mut attributes = more;
        attributes.insert("driver".into(), driver.into());
        self.events.tell("volume", action, name, attributes);
    }
}

fn open_directory(path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}
