//! Images: what is asked and changed without moving their content.

use gantry_image as image;
use gantry_model::{Platform, Reference};
use gantry_wire as wire;
use gantry_wire::{EventActor, EventMessage, Filters};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::container::record::MountKind;
use crate::engine::blocking;
use crate::events::Attributes;
use crate::query::ImageListQuery;
use crate::{Engine, EngineError, Result};

/// An image event as the event log holds it.
#[must_use]
pub fn encode_image_event(event: &image::ImageEvent) -> serde_json::Value {
    let mut attributes = event.labels.clone();
    attributes.insert("name".into(), event.name.clone());
    let message = EventMessage {
        kind: "image".into(),
        action: event.action.into(),
        actor: EventActor {
            id: event.id.clone(),
            attributes,
        },
        scope: "local".into(),
        time: event.time.seconds(),
        time_nano: i64::try_from(event.time.nanoseconds()).unwrap_or(i64::MAX),
        seq: None,
    };
    serde_json::to_value(message).unwrap_or_default()
}

/// The image service's replies have the API's JSON already.
fn convert<T: DeserializeOwned>(value: &impl Serialize) -> Result<T> {
    serde_json::to_value(value)
        .and_then(serde_json::from_value)
        .map_err(|e| EngineError::internal(e.to_string()))
}

/// Filters as the image service takes them.
pub(super) fn decoded(filters: &Filters) -> std::collections::BTreeMap<String, Vec<String>> {
    filters
        .keys()
        .map(|key| (key.to_owned(), filters.get(key).to_vec()))
        .collect()
}

impl Engine {
    /// Lists images.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn image_list(&self, query: ImageListQuery) -> Result<Vec<wire::ImageSummary>> {
        let images = self.services.images.clone();
        let query = image::ListQuery {
            all: query.all,
            filters: decoded(&query.filters),
            shared_size: query.shared_size,
            manifests: query.manifests,
            uses: Some(self.image_uses()),
        };
        let list = blocking(move || images.list(&query)).await??;
        let shown = |one| {
            let mut shown: wire::ImageSummary = convert(one)?;
            // Absent, not empty, as dockerd tells it.
            shown.labels = shown.labels.filter(|labels| !labels.is_empty());
            Ok(shown)
        };
        list.iter().map(shown).collect()
    }

    /// Everything about an image, of several platforms the one for `platform`; with `manifests`, also what is in the index
    /// that it came as.
    ///
    /// # Errors
    /// `No such image: x`, or none for the platform.
    pub async fn image_inspect(
        &self,
        name: &str,
        platform: Option<&str>,
        manifests: bool,
    ) -> Result<wire::ImageInspect> {
        let (images, name) = (self.services.images.clone(), name.to_owned());
        let query = image::InspectQuery {
            platform: parse_platform(platform)?,
            manifests,
            uses: self.image_uses(),
        };
        let mut shown: wire::ImageInspect =
            convert(&blocking(move || images.inspect(&name, &query)).await??)?;
        shown.config.env = shown.config.env.filter(|env| !env.is_empty());
        shown.config.labels = shown.config.labels.filter(|labels| !labels.is_empty());
        Ok(shown)
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`Engine::image_inspect`].
    pub async fn image_history(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<wire::HistoryItem>> {
        let (images, name) = (self.services.images.clone(), name.to_owned());
        let platform = parse_platform(platform)?;
        convert(&blocking(move || images.history(&name, platform.as_ref())).await??)
    }

    /// Gives an image a name.
    ///
    /// # Errors
    /// `No such image: x`, names that are none.
    pub async fn image_tag(&self, name: &str, repo: &str, tag: &str) -> Result<()> {
        let target = reference(repo, Some(tag))?;
        let (images, name) = (self.services.images.clone(), name.to_owned());
        Ok(blocking(move || images.tag(&name, &target)).await??)
    }

    /// Removes a name, and the image with its last one; without `no_prune`, also those that only this one stood on. With
    /// `platforms`, only when it is for one of them.
    ///
    /// # Errors
    /// `No such image: x`, images that containers use.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
        platforms: &[String],
    ) -> Result<Vec<wire::ImageDeleteItem>> {
        if name.trim().is_empty() {
            return Err(EngineError::bad_request("image name cannot be blank"));
        }
        let options = image::RemoveOptions {
            force,
            keep_parents: no_prune,
            platforms: parse_platforms(platforms)?,
        };
        let (images, name, uses) = (
            self.services.images.clone(),
            name.to_owned(),
            self.image_uses(),
        );
        self.to_the_end(|_| async move {
            let removed = blocking(move || images.remove(&name, &options, &uses)).await??;
            Ok(removed.into_iter().map(delete_item).collect())
        })
        .await
    }

    /// Removes unused images: those without a name, or with the filter `dangling=false` all.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn image_prune(
        &self,
        mut filters: Filters,
    ) -> Result<wire::PruneReply<wire::ImageDeleteItem>> {
        let all = filters.flag("dangling")? == Some(false);
        filters.take("dangling");
        let query = image::ListQuery {
            filters: decoded(&filters),
            ..image::ListQuery::default()
        };
        let (images, uses) = (self.services.images.clone(), self.image_uses());
        let (removed, freed) = self
            .to_the_end(|_| async move {
                Ok(blocking(move || images.prune(all, &query, &uses)).await??)
            })
            .await?;
        let attributes = Attributes::from([("reclaimed".to_owned(), freed.to_string())]);
        self.events.tell("image", "prune", "", attributes);
        Ok(wire::PruneReply {
            deleted: removed.into_iter().map(delete_item).collect(),
            space_reclaimed: freed,
        })
    }

    /// Which container uses which image.
    pub(crate) fn image_uses(&self) -> Vec<image::ImageUse> {
        self.containers
            .all()
            .iter()
            .flat_map(|container| {
                let record = container.record();
                let mounted = record
                    .mounts
                    .iter()
                    .filter(|m| m.kind == MountKind::Image)
                    .filter_map(|m| m.name.parse().ok());
                std::iter::once(record.image.clone())
                    .chain(mounted)
                    .map(|image| image::ImageUse {
                        container: record.id.to_string(),
                        image,
                        running: record.state.phase.is_running(),
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn delete_item(removed: image::Removed) -> wire::ImageDeleteItem {
    match removed {
        image::Removed::Untagged(name) => wire::ImageDeleteItem {
            untagged: Some(name),
            deleted: None,
        },
        image::Removed::Deleted(id) => wire::ImageDeleteItem {
            untagged: None,
            deleted: Some(id),
        },
    }
}

/// The platform that a request names.
///
/// # Errors
/// What is no platform.
pub(crate) fn parse_platform(text: Option<&str>) -> Result<Option<Platform>> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => Platform::parse(text).map(Some).ok_or_else(|| {
            EngineError::bad_request(format!("{text:?} is an invalid OS component"))
        }),
    }
}

/// As [`parse_platform`], for several.
pub(super) fn parse_platforms(texts: &[String]) -> Result<Vec<Platform>> {
    let platforms = texts
        .iter()
        .filter_map(|text| parse_platform(Some(text)).transpose());
    platforms.collect()
}

/// A name as requests have it; no tag is added.
///
/// # Errors
/// What is no reference.
pub(super) fn parse_reference(name: &str) -> Result<Reference> {
    Reference::parse(name).map_err(|e| EngineError::bad_request(e.to_string()))
}

/// A name and a tag or digest, as requests have them.
///
/// # Errors
/// What is no reference.
pub(crate) fn reference(name: &str, tag: Option<&str>) -> Result<Reference> {
    let text = match tag.filter(|tag| !tag.is_empty()) {
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    parse_reference(&text).map(Reference::with_default_tag)
}
