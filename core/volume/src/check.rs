//! Whether index and drivers know the same volumes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use gantry_driver_api::volume::{self as driver, VolumeInfo, VolumeName};
use gantry_driver_api::{Call, ErrorCode, Kind};
use gantry_model::Timestamp;

use crate::service::{Entry, driven};
use crate::{VolumeError, VolumeRecord, Volumes};

/// A volume that only one side knows.
#[derive(Debug)]
pub struct VolumeFlaw {
    /// The volume.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it is the driver that has lost it; otherwise the index does not know it.
    pub lost: bool,
    /// What became of the repair, if one was asked for.
    pub repaired: Option<Result<(), VolumeError>>,
}

impl Volumes {
    /// Finds volumes of the index that their driver does not have, and volumes below `root` that the index does not know.
    /// With `repair`, the former are made anew, empty, and the latter get a record: data is never removed.
    ///
    /// # Errors
    /// A driver that cannot list its volumes; one that is away is passed over.
    pub async fn check(
        self: &Arc<Self>,
        root: &Path,
        repair: bool,
    ) -> Result<Vec<VolumeFlaw>, VolumeError> {
        let mut flaws = Vec::new();
        for status in self.drivers.list() {
            let Ok(handle) = self.drivers.volume(&status.name) else {
                continue;
            };
            if status.kind != Kind::Volume {
                continue;
            }
            let there = driven(&status.name, "list", move || {
                handle.list(&Call::new("volume check"), ())
            })
            .await?;
            let names: HashSet<&str> = there.iter().map(|info| info.name.as_str()).collect();
            for record in self.of_driver(&status.name) {
                if !names.contains(record.name.as_str()) && self.is_lost(&record).await {
                    flaws.push(self.lost(record, repair).await);
                }
            }
            for info in there {
                let ours = info
                    .mountpoint
                    .as_ref()
                    .is_some_and(|path| path.starts_with(root));
                if ours
                    && self
                        .record(&info.name)
                        .is_none_or(|r| r.driver != status.name)
                {
                    flaws.push(self.unknown(info, &status.name, repair).await);
                }
            }
        }
        Ok(flaws)
    }

    fn of_driver(&self, driver: &str) -> Vec<VolumeRecord> {
        let index = self.index.lock();
        let records = index.values().map(|entry| &entry.record);
        records
            .filter(|record| record.driver == driver)
            .cloned()
            .collect()
    }

    /// Asks for one volume, when nobody makes or removes it.
    async fn is_lost(&self, record: &VolumeRecord) -> bool {
        let Some(turn) = self.turn(&record.name) else {
            return false;
        };
        let _turn = turn.lock().await;
        let (Some(_), Ok(handle)) = (
            self.record(&record.name),
            self.drivers.volume(&record.driver),
        ) else {
            return false;
        };
        let name = VolumeName {
            name: record.name.clone(),
        };
        let found = driven(&record.name, "get", move || {
            handle.get(&Call::new("volume check"), name)
        });
        matches!(found.await, Err(VolumeError::Driver { source, .. }) if source.code == ErrorCode::NotFound)
    }

    async fn lost(&self, record: VolumeRecord, repair: bool) -> VolumeFlaw {
        let repaired = match (repair, self.drivers.volume(&record.driver)) {
            (true, Ok(handle)) => {
                let request = driver::CreateVolume {
                    name: record.name.clone(),
                    options: record.options.clone(),
                };
                let made = driven(&record.name, "create", move || {
                    handle.create(&Call::new("volume repair"), request)
                });
                Some(made.await.map(drop))
            }
            _ => None,
        };
        VolumeFlaw {
            name: record.name,
            driver: record.driver,
            lost: true,
            repaired,
        }
    }

    async fn unknown(&self, info: VolumeInfo, driver: &str, repair: bool) -> VolumeFlaw {
        let repaired = match repair {
            true => Some(self.adopt(&info.name, driver).await),
            false => None,
        };
        VolumeFlaw {
            name: info.name,
            driver: driver.into(),
            lost: false,
            repaired,
        }
    }

    async fn adopt(&self, name: &str, driver: &str) -> Result<(), VolumeError> {
        let record = VolumeRecord {
            name: name.into(),
            driver: driver.into(),
            options: Default::default(),
            labels: Default::default(),
            created: Timestamp::now(),
            // As the names that are drawn.
            anonymous: name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()),
            owner: None,
        };
        {
            let mut index = self.index.lock();
            if index.contains_key(name) {
                return Err(VolumeError::Conflict(name.into()));
            }
            index.insert(name.into(), Entry::new(record.clone()));
        }
        self.table.put(name, &record)?.await?;
        Ok(())
    }
}
