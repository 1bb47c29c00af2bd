//! Who uses which volume, and making volumes ready for them.

use std::sync::Arc;

use gantry_driver_api as driver;
use gantry_driver_api::{Call, DriverResult, MountPlan};
use gantry_model::ContainerId;
use gantry_store::Batch;

use crate::service::driven;
use crate::{VolumeError, Volumes};

impl Volumes {
    /// Says that a container uses a volume; until [`Volumes::release`] it cannot be removed.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub fn acquire(&self, name: &str, user: &ContainerId) -> Result<(), VolumeError> {
        let mut index = self.index.lock();
        let entry = index
            .get_mut(name)
            .ok_or_else(|| VolumeError::NotFound(name.into()))?;
        entry.users.insert(user.clone());
        Ok(())
    }

    /// The container does not exist any more. An anonymous volume that is left becomes the user's.
    pub fn release(&self, name: &str, user: &ContainerId) {
        let mut index = self.index.lock();
        let Some(entry) = index.get_mut(name) else {
            return;
        };
        entry.users.remove(user);
    }

    /// The container is about to be removed without its anonymous volumes: they are the user's from now on. Part of the
    /// batch that removes the container's record.
    ///
    /// # Errors
    /// [`VolumeError::Store`].
    pub fn disown(
        &self,
        names: impl Iterator<Item = String>,
        batch: &mut Batch,
    ) -> Result<(), VolumeError> {
        let mut index = self.index.lock();
        for name in names {
            if let Some(entry) = index.get_mut(&name)
                && entry.record.owner.take().is_some()
            {
                batch.put(&self.table, &name, &entry.record)?;
            }
        }
        Ok(())
    }

    /// Makes a volume ready for a container.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], the driver's.
    pub async fn mount(
        self: &Arc<Self>,
        name: &str,
        consumer: &ContainerId,
    ) -> Result<MountPlan, VolumeError> {
        self.consume(name, consumer, "mount", |handle, call, request| {
            handle.mount(call, request)
        })
        .await
    }

    /// The container has stopped.
    ///
    /// # Errors
    /// The driver's; an absent volume is none.
    pub async fn unmount(
        self: &Arc<Self>,
        name: &str,
        consumer: &ContainerId,
    ) -> Result<(), VolumeError> {
        let outcome = self
            .consume(name, consumer, "unmount", |handle, call, request| {
                handle.unmount(call, request)
            })
            .await;
        match outcome {
            Err(VolumeError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn consume<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        consumer: &ContainerId,
        doing: &'static str,
        act: impl FnOnce(&dyn driver::Volume, &Call<'_>, driver::volume::MountVolume) -> DriverResult<T>
        + Send
        + 'static,
    ) -> Result<T, VolumeError> {
        let turn = self
            .turn(name)
            .ok_or_else(|| VolumeError::NotFound(name.into()))?;
        let _turn = turn.lock().await;
        let record = self
            .record(name)
            .ok_or_else(|| VolumeError::NotFound(name.into()))?;
        let handle = self
            .drivers
            .volume(&record.driver)
            .map_err(|error| VolumeError::Driver {
                doing,
                name: name.into(),
                source: error.into(),
            })?;
        let request = driver::volume::MountVolume {
            name: name.into(),
            consumer: consumer.to_string(),
        };
        driven(name, doing, move || {
            act(&*handle, &Call::new(doing), request)
        })
        .await
    }
}
