//! The engine itself.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use gantry_driver_registry as registry;
use gantry_wire as wire;
use gantry_wire::system::{Component, ProductName};

use super::volumes::shown;
use crate::engine::blocking;
use crate::query::{EventsQuery, ImageListQuery, ListQuery};
use crate::{Engine, EngineError, EventStream, Result, ResumeAfter};

impl Engine {
    /// What `docker version` shows.
    #[must_use]
    pub fn version(&self) -> wire::SystemVersion {
        let config = self.config.load();
        let facts = self.services.runtime.host();
        let arch = go_arch(&facts.machine).to_owned();
        let max = wire::ApiVersion::MAX.to_string();
        let min = wire::ApiVersion::MIN.to_string();
        let details = BTreeMap::from([
            ("ApiVersion".to_owned(), max.clone()),
            ("MinAPIVersion".to_owned(), min.clone()),
            ("Os".to_owned(), "linux".to_owned()),
            ("Arch".to_owned(), arch.clone()),
            ("KernelVersion".to_owned(), facts.kernel_release.clone()),
            ("Experimental".to_owned(), config.experimental.to_string()),
            ("GitCommit".to_owned(), String::new()),
            ("GoVersion".to_owned(), String::new()),
            ("BuildTime".to_owned(), String::new()),
        ]);
        wire::SystemVersion {
            platform: ProductName {
                name: "Gantry".into(),
            },
            components: vec![Component {
                name: "Engine".into(),
                version: config.version.clone(),
                details,
            }],
            version: config.version.clone(),
            api_version: max,
            min_api_version: min,
            os: "linux".into(),
            arch,
            kernel_version: facts.kernel_release.clone(),
            experimental: config.experimental,
            ..wire::SystemVersion::default()
        }
    }

    /// Every driver that is known, with what it tells of itself.
    pub async fn drivers(&self) -> Vec<wire::DriverStatus> {
        let all = self.services.drivers.list().into_iter();
        join_all(all.map(async |driver| self.driver_status(driver).await)).await
    }

    /// One driver, with what it tells of itself.
    ///
    /// # Errors
    /// `driver x/y not found`.
    pub async fn driver(&self, kind: &str, name: &str) -> Result<wire::DriverStatus> {
        let mut all = self.services.drivers.list().into_iter();
        let found = all.find(|driver| driver.kind.to_string() == kind && driver.name == name);
        match found {
            Some(driver) => Ok(self.driver_status(driver).await),
            None => Err(EngineError::not_found(format!(
                "driver {kind}/{name} not found"
            ))),
        }
    }

    async fn driver_status(&self, driver: registry::DriverStatus) -> wire::DriverStatus {
        let health = match driver.state {
            registry::DriverState::Ready => Some(self.health(driver.kind, &driver.name).await),
            _ => None,
        };
        let mut shown = status(driver);
        if let Some(health) = health {
            shown.status = health.status.into_iter().map(|(k, v)| [k, v]).collect();
            if !health.healthy {
                shown.state = wire::DriverState::Degraded;
                shown.reason = health.message;
            }
        }
        shown
    }

    /// Tells that the cache of builds was pruned, and how many bytes of it.
    pub fn build_cache_pruned(&self, reclaimed: u64) {
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
        self.events.tell("builder", "prune", "", attributes);
    }

    /// Past and coming events: without `since` and `until` those to come, with either the past ones too.
    #[must_use]
    pub fn events(&self, query: EventsQuery) -> EventStream {
        self.events.stream(query)
    }

    /// Events with their numbers in the log, none missing after the one that is named.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Gone`] when events after the named one are not kept any more, or there is no such number.
    pub async fn events_after(
        &self,
        query: EventsQuery,
        after: ResumeAfter,
    ) -> Result<EventStream> {
        self.events.stream_numbered(query, after).await
    }

    /// What occupies how much (`docker system df`), as the API's JSON: all kinds of objects, or those in `kinds`.
    ///
    /// # Errors
    /// Kinds that are none, a service that does not answer.
    pub async fn disk_usage(&self, kinds: &[String]) -> Result<serde_json::Value> {
        const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];
        if let Some(other) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            let message = format!("unknown object type: {other}");
            return Err(EngineError::bad_request(message));
        }
        let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|other| other == kind);
        let mut usage = serde_json::json!({
            "LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null,
        });
        if wanted("image") {
            let images = self.services.images.clone();
            usage["LayersSize"] = blocking(move || images.layers_size()).await??.into();
            let query = ImageListQuery {
                shared_size: true,
                ..ImageListQuery::default()
            };
            usage["Images"] = serde_json::json!(self.image_list(query).await?);
        }
        if wanted("container") {
            let query = ListQuery {
                all: true,
                size: true,
                ..ListQuery::default()
            };
            usage["Containers"] = serde_json::json!(self.container_list(query).await?);
        }
        if wanted("volume") {
            usage["Volumes"] = serde_json::json!(self.volumes_with_usage().await);
        }
        if wanted("build-cache") {
            usage["BuildCache"] = serde_json::json!([]);
        }
        Ok(usage)
    }

    async fn volumes_with_usage(&self) -> Vec<wire::Volume> {
        let mut volumes = Vec::new();
        for volume in self.services.volumes.list().await {
            let size = self.services.volumes.usage(&volume.record.name).await;
            let usage = wire::VolumeUsage {
                ref_count: i64::try_from(volume.users.len()).unwrap_or(i64::MAX),
                size: size.map_or(-1, |s| i64::try_from(s).unwrap_or(i64::MAX)),
            };
            let mut volume = shown(volume);
            volume.usage_data = Some(usage);
            volumes.push(volume);
        }
        volumes
    }

    /// Ends the engine's work; with `stop_containers`, that of the containers as well.
    pub async fn shutdown(&self, stop_containers: bool) {
        if stop_containers {
            let timeout = self.config.load().shutdown_timeout;
            let mut stopping = tokio::task::JoinSet::new();
            for container in self.containers.all() {
                if !container.record().state.phase.is_running() {
                    continue;
                }
                let engine = self.clone();
                stopping.spawn(async move {
                    // Its policy starts it again with the daemon: a client did not stop it.
                    let before = container.record().manually_stopped;
                    let patience = container.record().config.stop_timeout.unwrap_or(timeout);
                    if let Err(error) = engine.stop(&container, None, Some(patience)).await {
                        tracing::warn!(container = %container.id, %error, "cannot stop a container");
                    }
                    let record = container.update(|record| record.manually_stopped = before);
                    if !container.progress().removed
                        && let Err(error) = engine.records.save(&record).await
                    {
                        tracing::warn!(container = %container.id, %error, "cannot write a container's state");
                    }
                });
            }
            while stopping.join_next().await.is_some() {}
        }
        self.events.flush().await;
        let idle = !self
            .containers
            .all()
            .iter()
            .any(|c| c.record().state.phase.has_process());
        self.services.networks.shutdown(idle).await;
        if idle {
            self.services.runtime.tidy().await;
        }
    }
}

fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the registry knows of a driver.
fn status(driver: registry::DriverStatus) -> wire::DriverStatus {
    wire::DriverStatus {
        kind: driver.kind.to_string(),
        name: driver.name,
        version: driver.version,
        protocol: gantry_driver_api::PROTOCOL,
        state: match driver.state {
            registry::DriverState::Ready => wire::DriverState::Ready,
            registry::DriverState::Idle => wire::DriverState::Idle,
            registry::DriverState::Faulted => wire::DriverState::Faulted,
            registry::DriverState::Unavailable => wire::DriverState::Refused,
        },
        reason: driver.reason,
        isolation: match driver.isolation {
            registry::Isolation::Process => "process".into(),
            _ => "in-process".into(),
        },
        generation: driver.generation,
        default: driver.default,
        capabilities: driver.capabilities,
        path: driver
            .source
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        status: Vec::new(),
    }
}
