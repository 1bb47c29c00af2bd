//! Containers: which snapshots and directories are theirs.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use gantry_image::{SnapshotUse, SnapshotUses};
use gantry_model::{ContainerId, ImageId};
use gantry_wire::FsckFinding;

use crate::container::persist::Loaded;
use crate::container::record::{MountKind, Phase, Record};
use crate::create::images::view_key;
use crate::{Engine, EngineError, Result};

/// Those of a running engine, which come and go.
pub(super) struct Live(pub(super) Engine);

/// Those that were found where no engine runs.
pub(super) struct Resting(pub(super) Vec<Loaded>);

/// Which containers there are.
pub(super) trait Containers: SnapshotUses + Send + Sync {
    /// The identifiers of those that have a record.
    fn ids(&self) -> HashSet<ContainerId>;
    /// Whether this is one, or is about to become one.
    fn is_taken(&self, id: &ContainerId) -> bool;
}

impl SnapshotUses for Live {
    fn all(&self) -> Vec<SnapshotUse> {
        let containers = self.0.containers.all();
        containers
            .iter()
            .flat_map(|container| {
                let record = container.record();
                let running = record.state.phase.is_running();
                uses(&record, running)
            })
            .collect()
    }

    fn is_wanted(&self, key: &str) -> bool {
        owner(key).is_some_and(|id| self.is_taken(&id))
    }
}

impl Containers for Live {
    fn ids(&self) -> HashSet<ContainerId> {
        let containers = self.0.containers.all();
        containers
            .iter()
            .map(|container| container.id.clone())
            .collect()
    }

    fn is_taken(&self, id: &ContainerId) -> bool {
        self.0.containers.is_taken(id)
    }
}

impl SnapshotUses for Resting {
    fn all(&self) -> Vec<SnapshotUse> {
        self.0
            .iter()
            .flat_map(|loaded| {
                let may_run = loaded.this_boot && loaded.record.state.phase != Phase::Exited;
                uses(&loaded.record, may_run)
            })
            .collect()
    }

    fn is_wanted(&self, key: &str) -> bool {
        owner(key).is_some_and(|id| self.is_taken(&id))
    }
}

impl Containers for Resting {
    fn ids(&self) -> HashSet<ContainerId> {
        self.0
            .iter()
            .map(|loaded| loaded.record.id.clone())
            .collect()
    }

    fn is_taken(&self, id: &ContainerId) -> bool {
        self.0.iter().any(|loaded| loaded.record.id == *id)
    }
}

/// The snapshots of a container. One that is being removed has lost what it has lost.
fn uses(record: &Record, running: bool) -> Vec<SnapshotUse> {
    if record.state.phase == Phase::Removing {
        return Vec::new();
    }
    let used = |driver: &str, key: String, image: ImageId, view| SnapshotUse {
        driver: driver.into(),
        key,
        image,
        view,
        running,
    };
    let root = used(
        &record.storage_driver,
        record.id.to_string(),
        record.image.clone(),
        false,
    );
    let mounted = record
        .mounts
        .iter()
        .filter(|point| point.kind == MountKind::Image);
    let views = mounted.filter_map(|point| {
        let image = point.name.parse().ok()?;
        Some(used(
            &point.driver,
            view_key(&record.id, point),
            image,
            true,
        ))
    });
    std::iter::once(root).chain(views).collect()
}

/// The container that a snapshot's key names: itself, or with a suffix.
fn owner(key: &str) -> Option<ContainerId> {
    key.split('-').next()?.parse().ok()
}

/// Directories without a container, and containers without their directory.
pub(super) fn directories(
    containers: &dyn Containers,
    data_root: &Path,
    repair: bool,
) -> Result<Vec<FsckFinding>> {
    let directory = data_root.join("containers");
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| EngineError::io(format!("read {}", directory.display()), &e))?,
    };
    let mut missing = containers.ids();
    let mut findings = Vec::new();
    let mut finding = |kind: &str,
                       object: String,
                       detail: &str,
                       remedy: &str,
                       mend: &dyn Fn() -> io::Result<()>| {
        let (outcome, reason) = super::outcome(repair.then(mend));
        findings.push(FsckFinding {
            kind: kind.into(),
            object,
            detail: detail.into(),
            remedy: remedy.into(),
            outcome: outcome.into(),
            reason,
        });
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        match id {
            Some(id) if containers.is_taken(&id) => {
                missing.remove(&id);
            }
            Some(_) => finding(
                "container-unknown",
                path.display().to_string(),
                "there is no such container",
                "remove",
                &|| std::fs::remove_dir_all(&path),
            ),
            // Not a name that the engine gives.
            None => {}
        }
    }
    for id in missing.iter().filter(|id| containers.is_taken(id)) {
        let path = directory.join(id.as_str());
        finding(
            "container-directory-missing",
            id.to_string(),
            "its log and generated files are lost",
            "recreate",
            &|| std::fs::create_dir_all(&path),
        );
    }
    Ok(findings)
}
