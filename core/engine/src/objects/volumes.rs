//! Volumes.

use gantry_volume::{CreateVolume, Volume};
use gantry_wire as wire;
use gantry_wire::Filters;

use crate::events::Attributes;
use crate::patterns::Patterns;
use crate::{Engine, Result};

impl Engine {
    /// Lists volumes.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn volume_list(&self, filters: Filters) -> Result<wire::VolumeListReply> {
        filters.check(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.flag("dangling")?;
        let names = Patterns::new(&filters, "name");
        let volumes = self
            .services
            .volumes
            .list()
            .await
            .into_iter()
            .filter(|volume| {
                let record = &volume.record;
                dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
                    && filters.allows("driver", &record.driver)
                    && filters.matches_labels("label", &record.labels)
                    && names.take(&record.name)
            })
            .map(shown)
            .collect();
        Ok(wire::VolumeListReply {
            volumes,
            warnings: None,
        })
    }

    /// Everything about a volume.
    ///
    /// # Errors
    /// `get x: no such volume`.
    pub async fn volume_inspect(&self, name: &str) -> Result<wire::Volume> {
        Ok(shown(self.services.volumes.get(name).await?))
    }

    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// Bad names and options, drivers that are away.
    pub async fn volume_create(&self, request: wire::VolumeCreateRequest) -> Result<wire::Volume> {
        let request = CreateVolume {
            name: Some(request.name).filter(|name| !name.is_empty()),
            driver: Some(request.driver).filter(|driver| !driver.is_empty()),
            options: request.driver_opts.unwrap_or_default(),
            labels: request.labels.unwrap_or_default(),
            owner: None,
            transient: false,
        };
        let (volume, new) = self
            .to_the_end(|engine| async move { Ok(engine.services.volumes.create(request).await?) })
            .await?;
        if new {
            let record = &volume.record;
            self.tell_volume("create", &record.name, &record.driver, Attributes::new());
        }
        Ok(shown(volume))
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// `get x: no such volume`, volumes in use.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let record = self.services.volumes.record(name);
        let name = name.to_owned();
        self.to_the_end(
            |engine| async move { Ok(engine.services.volumes.remove(&name, force).await?) },
        )
        .await?;
        if let Some(record) = record {
            self.tell_volume("destroy", &record.name, &record.driver, Attributes::new());
        }
        Ok(())
    }

    /// Removes unused volumes: anonymous ones, or with the filter `all` every one.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn volume_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        filters.check(&["all", "label", "label!"])?;
        let all = filters.flag("all")?.unwrap_or(false);
        let mut reply = wire::PruneReply::default();
        for volume in self.services.volumes.list().await {
            let record = &volume.record;
            let spared = !volume.users.is_empty()
                || !(all || record.anonymous)
                || !filters.matches_labels("label", &record.labels)
                || (filters.contains("label!") && filters.matches_labels("label!", &record.labels));
            if spared {
                continue;
            }
            let size = self.services.volumes.usage(&record.name).await.unwrap_or(0);
            match self.volume_remove(&record.name, false).await {
                Ok(()) => {
                    reply.deleted.push(record.name.clone());
                    reply.space_reclaimed += size;
                }
                Err(error) => tracing::warn!(volume = record.name, %error, "cannot prune"),
            }
        }
        let freed = reply.space_reclaimed.to_string();
        let attributes = Attributes::from([("reclaimed".to_owned(), freed)]);
        self.events.tell("volume", "prune", "", attributes);
        Ok(reply)
    }
}

pub(super) fn shown(volume: Volume) -> wire::Volume {
    let record = volume.record;
    wire::Volume {
        created_at: Some(record.created),
        driver: record.driver,
        labels: Some(record.labels).filter(|labels| !labels.is_empty()),
        mountpoint: volume
            .mountpoint
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        name: record.name,
        options: Some(record.options).filter(|options| !options.is_empty()),
        scope: "local".into(),
        status: volume
            .status
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect(),
        usage_data: None,
    }
}
