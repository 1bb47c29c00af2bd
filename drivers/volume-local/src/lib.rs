//! Volumes as directories on the host.
//!
//! Docker's layout: `<root>/<name>/_data` is the volume, `<root>/<name>/opts.json` what it is mounted from when it was
//! made with options. Core performs the mounts; this driver checks the options and says what to mount.
//!
//! Invariants:
//! - A volume is there when its `_data` is; options are on disk before it is.
//! - Removal renames the volume away first, so that a crash leaves no half-deleted one.
//! - A volume that core does not know is somebody's data, and stays.

mod options;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_plugin_sdk::storage::Usage;
use gantry_plugin_sdk::volume::{CreateVolume, MountVolume, VolumeInfo, VolumeName};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Mount, MountPlan,
    Reconcile, Volume, serde_json, tree,
};

use options::Options;

/// Prefix of what is being removed or made; no volume's name begins with a dot.
const HIDDEN: &str = ".";

/// The driver.
pub struct Local {
    root: PathBuf,
    log: Log,
}

impl Local {
    /// Opens the volumes below the configuration's root. It has no options.
    ///
    /// # Errors
    /// When there are options.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        if let Some(option) = config.options.as_object().and_then(|o| o.keys().next()) {
            return Err(DriverError::invalid(format!(
                "local: unknown option {option}"
            )));
        }
        Ok(Self {
            root: config.root,
            log,
        })
    }

    /// The directory of a volume that may be absent.
    fn dir(&self, name: &str) -> DriverResult<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// The data directory of a volume that exists.
    fn data(&self, name: &str) -> DriverResult<PathBuf> {
        let data = self.dir(name)?.join("_data");
        match fs::symlink_metadata(&data) {
            Ok(metadata) if metadata.is_dir() => Ok(data),
            Ok(_) => Err(no_such(name)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(no_such(name)),
            Err(e) => Err(doing("looking at", &data, &e)),
        }
    }

    fn options(&self, name: &str) -> DriverResult<Options> {
        let path = self.dir(name)?.join("opts.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let text = format!("reading {}: {e}", path.display());
                DriverError::new(ErrorCode::DataLoss, text)
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Options::default()),
            Err(e) => Err(doing("reading", &path, &e)),
        }
    }

    /// Makes the volume under a hidden name, then renames it to its own.
    fn make(&self, name: &str, options: &Options) -> io::Result<()> {
        let temporary = self.root.join(format!("{HIDDEN}new-{name}"));
        discard(&temporary)?;
        make_dir(&temporary, 0o701)?;
        make_dir(&temporary.join("_data"), 0o755)?;
        if *options != Options::default() {
            let mut file = File::create(temporary.join("opts.json"))?;
            file.write_all(&serde_json::to_vec(options)?)?;
            file.sync_all()?;
            File::open(&temporary)?.sync_all()?;
        }
        fs::rename(&temporary, self.root.join(name))?;
        if *options != Options::default() {
            File::open(&self.root)?.sync_all()?;
        }
        Ok(())
    }

    fn describe(&self, name: &str) -> VolumeInfo {
        VolumeInfo {
            name: name.to_owned(),
            mountpoint: Some(self.root.join(name).join("_data")),
            status: Default::default(),
        }
    }
}

impl Driver for Local {
    /// Finishes removals that a crash cut off.
    fn reconcile(&self, _: &Call<'_>, _: Reconcile) -> DriverResult<()> {
        let entries = fs::read_dir(&self.root).map_err(|e| doing("reading", &self.root, &e))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(HIDDEN)
                && let Err(error) = discard(&entry.path())
            {
                self.log
                    .warn(format!("deleting {}: {error}", entry.path().display()));
            }
        }
        Ok(())
    }
}

impl Volume for Local {
    fn create(&self, _: &Call<'_>, request: CreateVolume) -> DriverResult<VolumeInfo> {
        let name = &request.name;
        let options = Options::parse(&request.options)?;
        match self.data(name) {
            Ok(_) if self.options(name)? == options => {}
            Ok(_) => {
                let text = format!("volume {name} exists with other options");
                return Err(DriverError::new(ErrorCode::AlreadyExists, text));
            }
            Err(e) if e.code == ErrorCode::NotFound => self
                .make(name, &options)
                .map_err(|e| doing("making volume", &self.root.join(name), &e))?,
            Err(e) => return Err(e),
        }
        Ok(self.describe(name))
    }

    fn remove(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<()> {
        let dir = self.dir(&request.name)?;
        let grave = self.root.join(format!("{HIDDEN}gone-{}", request.name));
        let remove = || {
            discard(&grave)?;
            match fs::rename(&dir, &grave) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(e),
                Ok(()) => fs::remove_dir_all(&grave),
            }
        };
        remove().map_err(|e| doing("removing", &dir, &e))
    }

    fn get(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<VolumeInfo> {
        self.data(&request.name)?;
        Ok(self.describe(&request.name))
    }

    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<VolumeInfo>> {
        let entries = fs::read_dir(&self.root).map_err(|e| doing("reading", &self.root, &e))?;
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let present = names.filter(|name| self.data(name).is_ok());
        Ok(present.map(|name| self.describe(&name)).collect())
    }

    fn mount(&self, _: &Call<'_>, request: MountVolume) -> DriverResult<MountPlan> {
        let data = self.data(&request.name)?;
        let options = self.options(&request.name)?;
        Ok(MountPlan::single(options.mount()?.unwrap_or(Mount::Bind {
            source: data,
            read_only: false,
        })))
    }

    fn unmount(&self, _: &Call<'_>, _: MountVolume) -> DriverResult<()> {
        Ok(())
    }

    fn usage(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<Usage> {
        let data = self.data(&request.name)?;
        tree::measure(&data).map_err(|e| doing("measuring", &data, &e))
    }
}

/// Deletes a tree that may be absent.
fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory with exactly this mode, whatever the umask.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A name becomes a path; Docker's words.
fn check_name(name: &str) -> DriverResult<()> {
    let first = name.chars().next();
    let ok = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() < 2 {
        return Err(DriverError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if !first.is_some_and(|c| c.is_ascii_alphanumeric())
        || !name.chars().all(ok)
        || name.len() > 240
    {
        return Err(DriverError::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

fn no_such(name: &str) -> DriverError {
    DriverError::not_found(format!("get {name}: no such volume"))
}

fn doing(what: &str, path: &Path, error: &io::Error) -> DriverError {
    DriverError::io(format!("{what} {}", path.display()), error)
}

gantry_plugin_sdk::plugin! { kind: volume, driver: Local, name: "local", capabilities: ["usage"] }
