//! What a container has changed.

use gantry_image::ChangeKind;
use gantry_wire::FilesystemChange;

use super::GENERATED;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Lists what a container has added, modified and deleted; `None` when it is nothing.
    ///
    /// # Errors
    /// Storage drivers that cannot tell.
    pub async fn container_changes(&self, id: &str) -> Result<Option<Vec<FilesystemChange>>> {
        let container = self.find(id)?;
        let (upper, lower) = self.upper_and_below(&container.record()).await?;
        let changes = blocking(move || gantry_image::changes(upper, lower, &GENERATED)).await?;
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
}
