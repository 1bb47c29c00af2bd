//! Volumes as plain directories.

use std::fs;
use std::path::PathBuf;

use gantry_plugin_sdk::volume::{CreateVolume, MountVolume, VolumeInfo, VolumeName};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Mount, MountPlan,
    Reconcile, Volume, serde_json,
};

use crate::Script;

/// The driver. A volume is a directory and, beside it, a file with its options.
pub struct MockVolume {
    script: Script,
    root: PathBuf,
}

impl MockVolume {
    /// See [`Script`].
    ///
    /// # Errors
    /// What the script says.
    pub fn new(config: DriverConfig, _: Log) -> DriverResult<Self> {
        Ok(Self {
            script: Script::parse(&config.options)?,
            root: config.root,
        })
    }

    fn data(&self, name: &str) -> DriverResult<PathBuf> {
        let data = self.root.join(name);
        if data.is_dir() {
            return Ok(data);
        }
        Err(DriverError::not_found(format!("no volume {name}")))
    }
}

impl Driver for MockVolume {
    fn reconcile(&self, _: &Call<'_>, _: Reconcile) -> DriverResult<()> {
        self.script.gate("reconcile")
    }
}

impl Volume for MockVolume {
    fn create(&self, _: &Call<'_>, request: CreateVolume) -> DriverResult<VolumeInfo> {
        self.script.gate("create")?;
        let (data, options) = (
            self.root.join(&request.name),
            self.root.join(format!(".{}", request.name)),
        );
        let wanted = serde_json::to_string(&request.options)
            .map_err(|e| DriverError::internal(e.to_string()))?;
        if data.is_dir() && fs::read_to_string(&options).ok().as_ref() != Some(&wanted) {
            return Err(DriverError::new(
                ErrorCode::AlreadyExists,
                "it has other options",
            ));
        }
        fs::write(&options, wanted)
            .and_then(|()| fs::create_dir_all(&data))
            .map_err(|e| DriverError::io("making a volume", &e))?;
        Ok(VolumeInfo {
            name: request.name,
            mountpoint: Some(data),
            status: Default::default(),
        })
    }

    fn remove(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<()> {
        self.script.gate("remove")?;
        if let Ok(data) = self.data(&request.name) {
            fs::remove_dir_all(data).map_err(|e| DriverError::io("removing a volume", &e))?;
        }
        Ok(())
    }

    fn get(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<VolumeInfo> {
        self.script.gate("get")?;
        Ok(VolumeInfo {
            mountpoint: Some(self.data(&request.name)?),
            name: request.name,
            status: Default::default(),
        })
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<VolumeInfo>> {
        self.script.gate("list")?;
        let entries = fs::read_dir(&self.root).map_err(|e| DriverError::io("listing", &e))?;
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let volumes = names.filter_map(|name| {
            Some(VolumeInfo {
                mountpoint: Some(self.data(&name).ok()?),
                name,
                status: Default::default(),
            })
        });
        Ok(volumes.collect())
    }

    fn mount(&self, _: &Call<'_>, request: MountVolume) -> DriverResult<MountPlan> {
        self.script.gate("mount")?;
        Ok(MountPlan::single(Mount::Bind {
            source: self.data(&request.name)?,
            read_only: false,
        }))
    }

    fn unmount(&self, _: &Call<'_>, _: MountVolume) -> DriverResult<()> {
        self.script.gate("unmount")
    }
}
