//! The service: index, users, and calls into drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_driver_api as driver;
use gantry_driver_api::{Call, DriverResult, Kind, Reconcile};
use gantry_driver_registry::{DriverRegistry, RegistryError};
use gantry_model::{ContainerId, Timestamp};
use gantry_store::{Store, Table};
use parking_lot::Mutex;

use crate::{CreateVolume, Volume, VolumeError, VolumeRecord};

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: VolumeRecord,
    pub(crate) users: BTreeSet<ContainerId>,
    /// Serialises calls into the driver.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The volume service. Shared by `Arc`.
pub struct Volumes {
    pub(crate) drivers: Arc<DriverRegistry>,
    pub(crate) table: Table<VolumeRecord>,
    pub(crate) index: Mutex<BTreeMap<String, Entry>>,
}

impl Volumes {
    /// Reads the index.
    ///
    /// # Errors
    /// [`VolumeError::Store`].
    pub fn open(store: &Store, drivers: Arc<DriverRegistry>) -> Result<Arc<Self>, VolumeError> {
        let table = store.table::<VolumeRecord>("volumes");
        let index = table
            .list()?
            .into_iter()
            .map(|(name, record)| (name, Entry::new(record)))
            .collect();
        Ok(Arc::new(Self {
            drivers,
            table,
            index: Mutex::new(index),
        }))
    }

    /// Tells each driver which volumes are known. A driver that is away is passed over: it is listed as such.
    pub async fn reconcile(self: &Arc<Self>) {
        let mut live: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for status in self.drivers.list() {
            if status.kind == Kind::Volume {
                live.insert(status.name, Vec::new());
            }
        }
        for (name, entry) in &*self.index.lock() {
            live.entry(entry.record.driver.clone())
                .or_default()
                .push(name.clone());
        }
        for (driver, live) in live {
            let Ok(handle) = self.drivers.volume(&driver) else {
                continue;
            };
            let outcome = blocking(move || {
                handle.reconcile(
                    &Call::new("volume reconcile"),
                    Reconcile {
                        live,
                        endpoints: Vec::new(),
                    },
                )
            })
            .await;
            if let Ok(Err(error)) = outcome {
                tracing::warn!(driver, %error, "volume driver cannot reconcile");
            }
        }
    }

    /// Removes anonymous volumes whose container does not exist: what a crash left of a creation or removal.
    pub async fn sweep(self: &Arc<Self>, exists: impl Fn(&ContainerId) -> bool) {
        let orphans: Vec<String> = self
            .index
            .lock()
            .iter()
            .filter(|(_, e)| e.record.owner.as_ref().is_some_and(|owner| !exists(owner)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in orphans {
            if let Err(error) = self.remove(&name, true).await {
                tracing::warn!(volume = name, %error, "cannot remove an orphaned volume");
            }
        }
    }

    /// Makes a volume, or finds the one of that name. The second value tells whether it is new.
    ///
    /// # Errors
    /// A bad name, a driver that is away or refuses, a name taken by another driver's volume.
    pub async fn create(
        self: &Arc<Self>,
        request: CreateVolume,
    ) -> Result<(Volume, bool), VolumeError> {
        let anonymous = request.name.as_deref().is_none_or(str::is_empty);
        let name = match request.name {
            Some(name) if !anonymous => name,
            _ => ContainerId::generate().to_string(),
        };
        check_name(&name)?;
        let driver = request
            .driver
            .filter(|driver| !driver.is_empty())
            .unwrap_or_else(|| self.drivers.default_name(Kind::Volume));
        if let Some(record) = self.record(&name) {
            return self.existing(record, &driver).await;
        }
        let record = VolumeRecord {
            name: name.clone(),
            options: request.options,
            labels: request.labels,
            created: Timestamp::now(),
            anonymous,
            owner: request.owner.filter(|_| anonymous),
            driver,
        };
        self.make(record, request.transient).await
    }

    async fn existing(
        self: &Arc<Self>,
        record: VolumeRecord,
        driver: &str,
    ) -> Result<(Volume, bool), VolumeError> {
        if record.driver != driver {
            return Err(VolumeError::Conflict(record.name));
        }
        Ok((self.get(&record.name).await?, false))
    }

    async fn make(
        self: &Arc<Self>,
        record: VolumeRecord,
        transient: bool,
    ) -> Result<(Volume, bool), VolumeError> {
        let name = record.name.clone();
        let handle =
            self.drivers
                .volume(&record.driver)
                .map_err(|source| VolumeError::NoDriver {
                    name: name.clone(),
                    driver: record.driver.clone(),
                    source,
                })?;
        let entry = Entry::new(record.clone());
        let turn = entry.turn.clone();
        let _turn = turn.lock().await;
        // The entry appears locked; a second creator of the name waits for the outcome in `get`.
        let raced = {
            let mut index = self.index.lock();
            match index.get(&name) {
                Some(other) => Some(other.record.clone()),
                None => {
                    index.insert(name.clone(), entry);
                    None
                }
            }
        };
        if let Some(other) = raced {
            return self.existing(other, &record.driver).await;
        }
        let commit = self.table.put(&name, &record);
        let outcome = async {
            match commit? {
                commit if transient => commit.detach(),
                commit => drop(commit.await?),
            }
            let request = driver::volume::CreateVolume {
                name: name.clone(),
                options: record.options.clone(),
            };
            driven(&name, "create", move || {
                handle.create(&Call::new("volume create"), request)
            })
            .await
        }
        .await;
        match outcome {
            Ok(info) => Ok((shown(record, Some(info), Vec::new()), true)),
            Err(error) => {
                self.index.lock().remove(&name);
                self.table.delete(&name).detach();
                Err(error)
            }
        }
    }

    /// One volume.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`]. A driver that is away is no error here: its part of the answer is empty.
    pub async fn get(self: &Arc<Self>, name: &str) -> Result<Volume, VolumeError> {
        let turn = self
            .turn(name)
            .ok_or_else(|| VolumeError::NotFound(name.into()))?;
        let _turn = turn.lock().await;
        let (record, users) = self
            .entry(name)
            .ok_or_else(|| VolumeError::NotFound(name.into()))?;
        let info = self.ask(&record).await;
        Ok(shown(record, info, users))
    }

    /// All volumes, by name.
    pub async fn list(self: &Arc<Self>) -> Vec<Volume> {
        let known: Vec<(VolumeRecord, Vec<ContainerId>)> = self
            .index
            .lock()
            .values()
            .map(|e| (e.record.clone(), e.users.iter().cloned().collect()))
            .collect();
        let mut volumes = Vec::with_capacity(known.len());
        for (record, users) in known {
            let info = self.ask(&record).await;
            volumes.push(shown(record, info, users));
        }
        volumes
    }

    /// What is stored of a volume.
    #[must_use]
    pub fn record(&self, name: &str) -> Option<VolumeRecord> {
        self.index.lock().get(name).map(|e| e.record.clone())
    }

    /// Removes a volume and its data. With `force` an absent one is no error.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::InUse`], the driver's.
    pub async fn remove(self: &Arc<Self>, name: &str, force: bool) -> Result<(), VolumeError> {
        let Some(turn) = self.turn(name) else {
            return match force {
                true => Ok(()),
                false => Err(VolumeError::NotFound(name.into())),
            };
        };
        let _turn = turn.lock().await;
        let Some((record, users)) = self.entry(name) else {
            return Ok(());
        };
        if !users.is_empty() {
            return Err(VolumeError::InUse {
                name: name.into(),
                users: users.iter().map(ToString::to_string).collect(),
            });
        }
        match self.drivers.volume(&record.driver) {
            Ok(handle) => {
                let request = driver::volume::VolumeName { name: name.into() };
                driven(name, "remove", move || {
                    handle.remove(&Call::new("volume remove"), request)
                })
                .await?;
            }
            // The user insists, and the plugin is gone: only the index is left to clean.
            Err(RegistryError::Unknown { .. }) if force => {}
            Err(error) => {
                return Err(VolumeError::Driver {
                    doing: "remove",
                    name: name.into(),
                    source: error.into(),
                });
            }
        }
        self.index.lock().remove(name);
        let commit = self.table.delete(name);
        match record.anonymous {
            // A record of a removed volume is harmless: the next start finds nothing to remove.
            true => commit.detach(),
            false => drop(commit.await?),
        }
        Ok(())
    }

    /// Bytes a volume occupies; `None` when its driver cannot tell.
    pub async fn usage(self: &Arc<Self>, name: &str) -> Option<u64> {
        let record = self.record(name)?;
        let handle = self.drivers.volume(&record.driver).ok()?;
        let request = driver::volume::VolumeName { name: name.into() };
        let usage = blocking(move || handle.usage(&Call::new("volume usage"), request)).await;
        usage.ok()?.ok().map(|usage| usage.bytes)
    }

    pub(crate) fn turn(&self, name: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.index.lock().get(name).map(|e| e.turn.clone())
    }

    fn entry(&self, name: &str) -> Option<(VolumeRecord, Vec<ContainerId>)> {
        let index = self.index.lock();
        let entry = index.get(name)?;
        Some((entry.record.clone(), entry.users.iter().cloned().collect()))
    }

    async fn ask(&self, record: &VolumeRecord) -> Option<driver::volume::VolumeInfo> {
        let handle = self.drivers.volume(&record.driver).ok()?;
        let request = driver::volume::VolumeName {
            name: record.name.clone(),
        };
        let answer = blocking(move || handle.get(&Call::new("volume get"), request)).await;
        answer.ok()?.ok()
    }
}

impl Entry {
    pub(crate) fn new(record: VolumeRecord) -> Self {
        Self {
            record,
            users: BTreeSet::new(),
            turn: Arc::default(),
        }
    }
}

fn shown(
    record: VolumeRecord,
    info: Option<driver::volume::VolumeInfo>,
    users: Vec<ContainerId>,
) -> Volume {
    let (mountpoint, status) = match info {
        Some(info) => (info.mountpoint, info.status),
        None => (None, BTreeMap::new()),
    };
    Volume {
        record,
        mountpoint,
        status,
        users,
    }
}

/// Volume names become directory names.
fn check_name(name: &str) -> Result<(), VolumeError> {
    let mut bytes = name.bytes();
    if name.len() == 1 {
        return Err(VolumeError::ShortName(name.into()));
    }
    let good = name.len() <= 255
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    match good {
        true => Ok(()),
        false => Err(VolumeError::InvalidName(name.into())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| VolumeError::Internal(error.to_string()))
}

pub(crate) async fn driven<T: Send + 'static>(
    name: &str,
    doing: &'static str,
    work: impl FnOnce() -> DriverResult<T> + Send + 'static,
) -> Result<T, VolumeError> {
    blocking(work).await?.map_err(|source| VolumeError::Driver {
        doing,
        name: name.into(),
        source,
    })
}

#[cfg(test)]
mod tests;
