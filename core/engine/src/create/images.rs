//! Images mounted in a container: a read-only view each, which belongs to the container.

use gantry_model::ContainerId;
use sha2::{Digest, Sha256};

use super::mounts::Wanted;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

/// The name that the storage driver knows the view of an image mount by.
pub(crate) fn view_key(id: &ContainerId, point: &MountPoint) -> String {
    let place = hex::encode(Sha256::digest(point.destination.as_bytes()));
    format!("{id}-{}", &place[..16])
}

/// The views of a container: storage driver and key.
fn views(record: &Record) -> impl Iterator<Item = (String, String)> + '_ {
    let images = record.mounts.iter().filter(|m| m.kind == MountKind::Image);
    images.map(|point| (point.driver.clone(), view_key(&record.id, point)))
}

/// All that storage drivers hold of a container, as [`views`]: its root and its views.
pub(crate) fn roots(record: &Record) -> impl Iterator<Item = (String, String)> + '_ {
    std::iter::once((record.storage_driver.clone(), record.id.to_string())).chain(views(record))
}

impl Engine {
    /// Makes the view of a wanted image.
    pub(super) async fn make_image_mount(
        &self,
        record: &Record,
        wanted: Wanted,
    ) -> Result<MountPoint> {
        let mut point = wanted.point;
        let (images, name) = (self.services.images.clone(), point.source.clone());
        let key = view_key(&record.id, &point);
        let (id, root) = blocking(move || {
            let id = images.find(&name)?;
            let root = images.prepare_view(&key, &id)?;
            Ok::<_, EngineError>((id, root))
        })
        .await??;
        point.name = id.to_string();
        point.driver = root.driver;
        Ok(point)
    }

    /// Removes the views of a container.
    pub(crate) async fn drop_views(&self, record: &Record) -> Result<()> {
        self.drop_snapshots(views(record).collect()).await
    }

    /// Removes some of what [`roots`] tells of.
    pub(crate) async fn drop_snapshots(&self, doomed: Vec<(String, String)>) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let images = self.services.images.clone();
        blocking(move || {
            for (driver, key) in doomed {
                images.remove_container(&driver, &key)?;
            }
            Ok(())
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::mounts::point;

    #[test]
    fn a_view_a_place() {
        let id = ContainerId::generate();
        let key = |place: &str| view_key(&id, &point(MountKind::Image, place.into()));
        assert_ne!(key("/a"), key("/b"));
        assert_eq!(key("/a"), key("/a"));
        assert!(key("/a").starts_with(id.as_str()) && key("/a").len() < 128);
    }
}
