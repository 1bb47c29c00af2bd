//! Containers' writable root file systems, and what storage drivers must be told at start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gantry_driver_api::storage::{Prepare, SnapshotKey, Usage};
use gantry_driver_api::{Call, DriverResult, ErrorCode, Kind, MountPlan, Reconcile, Storage};
use gantry_model::ImageId;

use crate::inspect::graph_driver;
use crate::layers::{Temporary, random};
use crate::service::Shared;
use crate::{ContainerRoot, Error, GraphDriver, Result};

/// A read-only view of what a container was made on, to compare with. It goes when this is dropped, and with the next
/// start after a crash.
pub struct ParentView {
    /// What to mount to see it.
    pub plan: MountPlan,
    /// When the container's own tree was made, where the driver knows (`SnapshotInfo::made`).
    pub(crate) made: Option<(i64, i64)>,
    storage: Arc<dyn Storage>,
    key: String,
    /// Snapshots that are somebody's for a moment, this one among them.
    temporary: Temporary,
}

impl std::fmt::Debug for ParentView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParentView")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl Drop for ParentView {
    fn drop(&mut self) {
        if let Err(error) = self.storage.remove(&Call::new("changes"), key(&self.key)) {
            tracing::warn!(key = self.key, %error, "a view cannot be removed");
        }
        self.temporary.lock().remove(&self.key);
    }
}

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
        let record = self.settle(image)?;
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

    pub(crate) fn container_parent(&self, driver: &str, container: &str) -> Result<ParentView> {
        let storage = self.storage(driver)?;
        let info = storage.stat(&Call::new("changes"), key(container))?;
        let key = format!("below-{}", random()?);
        let request = Prepare {
            key: key.clone(),
            parent: info.parent,
            size: None,
        };
        self.temporary.lock().insert(key.clone());
        let made = storage.view(&Call::new("changes"), request);
        if made.is_err() {
            self.temporary.lock().remove(&key);
        }
        Ok(ParentView {
            plan: made?,
            made: info.made,
            storage,
            key,
            temporary: self.temporary.clone(),
        })
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
        // One that holds nothing any more may have been left something to sweep.
        let storage = self.drivers.list().into_iter();
        for driver in storage.filter(|driver| driver.kind == Kind::Storage) {
            live.entry(driver.name).or_default();
        }
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
                    if !live.is_empty() {
                        tracing::warn!(driver, %error, "snapshots of a missing driver are left alone");
                    }
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
