//! Containers' writable root file systems, and what storage drivers must be told at start.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gantry_driver_api::storage::{Prepare, SnapshotKey, Usage};
use gantry_driver_api::{Call, DriverResult, ErrorCode, Kind, MountPlan, Reconcile, Storage};
use gantry_model::ImageId;

use crate::query::graph_driver;
use crate::service::Shared;
use crate::{ContainerRoot, Error, GraphDriver, Result};

impl Shared {
    fn storage(&self, driver: &str) -> Result<Arc<dyn Storage>> {
        Ok(self.drivers.storage(driver)?)
    }

    pub(crate) fn prepare_container(
        &self,
        container: &str,
        image: &ImageId,
        size: Option<u64>,
    ) -> Result<ContainerRoot> {
        self.snapshot(container, image, size, |storage, call, request| {
            storage.prepare(call, request)
        })
    }

    pub(crate) fn prepare_view(&self, key: &str, image: &ImageId) -> Result<ContainerRoot> {
        self.snapshot(key, image, None, |storage, call, request| {
            storage.view(call, request)
        })
    }

    fn snapshot(
        &self,
        key: &str,
        image: &ImageId,
        size: Option<u64>,
        make: impl Fn(&dyn Storage, &Call<'_>, Prepare) -> DriverResult<MountPlan>,
    ) -> Result<ContainerRoot> {
        let record = self.image(image)?;
        let request = Prepare {
            key: key.into(),
            parent: record.chain.last().map(ToString::to_string),
            size,
        };
        let storage = self.storage(&record.driver)?;
        let plan =
            make(&*storage, &Call::new("create"), request).map_err(|error| match error.code {
                // Removed by somebody else a moment ago.
                ErrorCode::NotFound => Error::NoSuchImage(image.to_string()),
                _ => error.into(),
            })?;
        Ok(ContainerRoot {
            driver: record.driver,
            plan,
        })
    }

    pub(crate) fn container_mounts(&self, driver: &str, container: &str) -> Result<MountPlan> {
        Ok(self
            .storage(driver)?
            .mounts(&Call::new("start"), key(container))?)
    }

    pub(crate) fn container_upper(&self, driver: &str, container: &str) -> Result<Option<PathBuf>> {
        let info = self
            .storage(driver)?
            .stat(&Call::new("changes"), key(container))?;
        Ok(info.upper)
    }

    pub(crate) fn container_graph_driver(
        &self,
        driver: &str,
        container: &str,
    ) -> Result<GraphDriver> {
        let plan = self.container_mounts(driver, container)?;
        Ok(graph_driver(driver, &plan.mounts))
    }

    pub(crate) fn container_usage(&self, driver: &str, container: &str) -> Result<Usage> {
        Ok(self
            .storage(driver)?
            .usage(&Call::new("usage"), key(container))?)
    }

    pub(crate) fn remove_container(&self, driver: &str, container: &str) -> Result<()> {
        self.storage(driver)?
            .remove(&Call::new("remove"), key(container))?;
        if self.orphans.load(Ordering::Relaxed) {
            self.collect_layers()?;
            self.collect_blobs()?;
        }
        Ok(())
    }

    /// Tells each storage driver which snapshots are wanted, and removes what a crash has left.
    pub(crate) fn reconcile(&self, containers: &[(String, String)]) -> Result<()> {
        let mut live: HashMap<String, Vec<String>> = HashMap::new();
        live.entry(self.drivers.default_name(Kind::Storage))
            .or_default();
        self.layers.for_each("", |name, _| {
            if let Some((driver, chain)) = name.split_once('/') {
                live.entry(driver.into()).or_default().push(chain.into());
            }
            true
        })?;
        for (driver, container) in containers {
            live.entry(driver.clone())
                .or_default()
                .push(container.clone());
        }
        for (driver, live) in live {
            let storage = match self.drivers.storage(&driver) {
                Ok(storage) => storage,
                Err(error) => {
                    tracing::warn!(driver, %error, "snapshots of a missing driver are left alone");
                    continue;
                }
            };
            let request = Reconcile {
                live,
                endpoints: Vec::new(),
            };
            storage.reconcile(&Call::new("reconcile"), request)?;
        }
        self.collect_layers()?;
        self.collect_blobs()
    }
}

fn key(container: &str) -> SnapshotKey {
    SnapshotKey {
        key: container.into(),
    }
}
