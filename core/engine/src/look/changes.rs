//! What a container has changed.

use gantry_image::ChangeKind;
use gantry_wire::FilesystemChange;

use super::{GENERATED, delta_of, split};
use crate::container::record::Record;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Lists what a container has added, modified and deleted; `None` when it is nothing.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn container_changes(&self, id: &str) -> Result<Option<Vec<FilesystemChange>>> {
        let container = self.find(id)?;
        let delta = self.delta(&container.record()).await?;
        let changes = blocking(move || delta.changes(&GENERATED)).await?;
        let changes = changes.map_err(|e| EngineError::io("compare", &e))?;
        let told: Vec<_> = changes
            .into_iter()
            .map(|change| FilesystemChange {
                path: String::from_utf8_lossy(&change.path).into_owned(),
                kind: match change.kind {
                    ChangeKind::Modified => 0,
                    ChangeKind::Added => 1,
                    ChangeKind::Deleted => 2,
                },
            })
            .collect();
        Ok((!told.is_empty()).then_some(told))
    }

    /// Bytes that a container has written.
    pub(crate) async fn written(&self, record: &Record) -> Result<u64> {
        let (images, driver, id) = (
            self.services.images.clone(),
            record.storage_driver.clone(),
            record.id.clone(),
        );
        blocking(move || {
            let plan = images.container_mounts(&driver, id.as_str())?;
            if split(&plan).is_some() {
                return Ok(images.container_usage(&driver, id.as_str())?.bytes);
            }
            let delta = delta_of(&images, &driver, id.as_str(), plan)?;
            let bytes = delta.bytes(&GENERATED);
            bytes.map_err(|e| EngineError::io("compare", &e))
        })
        .await?
    }
}
