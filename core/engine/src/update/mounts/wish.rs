//! What a change of mounts asks for, checked, and how it is written down.

use std::path::Path;

use gantry_model::container::{ContainerConfig, HostConfig, Mount};

use crate::container::record::{MountKind, MountPoint, Record};
use crate::create::mounts::{Wanted, clean, collect};
use crate::{EngineError, Result};

pub(super) fn no_image_mounts() -> EngineError {
    EngineError::bad_request("an image can be mounted only when a container is created")
}

/// The mounts at these paths, those inside others first.
pub(super) fn to_remove(record: &Record, paths: &[String]) -> Result<Vec<MountPoint>> {
    let mut points: Vec<MountPoint> = Vec::new();
    for path in paths {
        let target = clean(path);
        let found = record.mounts.iter().find(|m| m.destination == target);
        let found = found.filter(|_| path.starts_with('/')).ok_or_else(|| {
            EngineError::bad_request(format!("container {} has no mount at {path}", record.name))
        })?;
        if found.kind == MountKind::Image {
            return Err(no_image_mounts());
        }
        if !points.iter().any(|p| p.destination == target) {
            points.push(found.clone());
        }
    }
    for point in &points {
        let inside = format!("{}/", point.destination);
        let other = record.mounts.iter().find(|m| {
            m.destination.starts_with(&inside)
                && !points.iter().any(|p| p.destination == m.destination)
        });
        if let Some(other) = other {
            return Err(EngineError::conflict(format!(
                "cannot remove the mount at {}: {} is mounted inside of it",
                point.destination, other.destination
            )));
        }
    }
    points.sort_by_key(|p| std::cmp::Reverse(Path::new(&p.destination).components().count()));
    Ok(points)
}

/// New mounts, checked as at creation, those inside others last.
pub(super) fn to_add(
    record: &Record,
    mounts: &[Mount],
    removed: &[MountPoint],
) -> Result<Vec<Wanted>> {
    let host = HostConfig {
        mounts: Some(mounts.to_vec()),
        volume_driver: record.host_config.volume_driver.clone(),
        ..HostConfig::default()
    };
    let none = |name: &str| Err(EngineError::not_found(format!("No such container: {name}")));
    let mut wanted = collect(&ContainerConfig::default(), &host, none)?;
    for Wanted { point, .. } in &wanted {
        if point.kind == MountKind::Image {
            return Err(no_image_mounts());
        }
        let target = &point.destination;
        let stays = |m: &&MountPoint| !removed.iter().any(|r| r.destination == m.destination);
        if record
            .mounts
            .iter()
            .filter(stays)
            .any(|m| m.destination == *target)
        {
            return Err(EngineError::bad_request(format!(
                "Duplicate mount point: {target}"
            )));
        }
    }
    wanted.sort_by_key(|w| Path::new(&w.point.destination).components().count());
    Ok(wanted)
}

/// Forgets how a mount was asked for.
pub(super) fn forget(host: &mut HostConfig, target: &str) {
    let is_target = |path: &str| clean(path) == *target;
    if let Some(mounts) = &mut host.mounts {
        mounts.retain(|m| !is_target(&m.target));
    }
    if let Some(binds) = &mut host.binds {
        binds.retain(|bind| !is_target(bind.split(':').nth(1).unwrap_or(bind)));
    }
    host.tmpfs.retain(|path, _| !is_target(path));
}
