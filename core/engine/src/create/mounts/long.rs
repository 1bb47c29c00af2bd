//! Mounts in the long form.

use gantry_model::container::{Mount, mount_type};

use super::{Wanted, absolute, clean, point};
use crate::container::record::MountKind;
use crate::{EngineError, Result};

/// `--mount`.
pub(super) fn wanted(mount: &Mount) -> Result<Wanted> {
    let kind = mount.kind.as_str();
    let refuse = |why: &str| {
        Err(EngineError::bad_request(format!(
            "invalid mount config for type {kind:?}: {why}"
        )))
    };
    if mount.target.is_empty() {
        return refuse("field Target must not be empty");
    }
    let target = absolute(&mount.target, kind)?;
    for (given, owner) in [
        (mount.bind_options.is_some(), mount_type::BIND),
        (mount.volume_options.is_some(), mount_type::VOLUME),
        (mount.tmpfs_options.is_some(), mount_type::TMPFS),
        (mount.image_options.is_some(), mount_type::IMAGE),
    ] {
        if given && owner != kind {
            let field = match owner {
                mount_type::BIND => "BindOptions",
                mount_type::VOLUME => "VolumeOptions",
                mount_type::TMPFS => "TmpfsOptions",
                _ => "ImageOptions",
            };
            return refuse(&format!("field {field} must not be specified"));
        }
    }
    match kind {
        mount_type::BIND => long_bind(mount, target),
        mount_type::VOLUME => long_volume(mount, target),
        mount_type::TMPFS => long_tmpfs(mount, target),
        mount_type::IMAGE => refuse("image mounts are not supported"),
        other => Err(EngineError::bad_request(format!(
            "mount type unknown: {other:?}"
        ))),
    }
}

fn long_bind(mount: &Mount, target: String) -> Result<Wanted> {
    let refuse = |why: String| {
        Err(EngineError::bad_request(format!(
            "invalid mount config for type \"bind\": {why}"
        )))
    };
    if mount.source.is_empty() {
        return refuse("field Source must not be empty".into());
    }
    if !mount.source.starts_with('/') {
        return refuse(format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.source
        ));
    }
    let mut point = point(MountKind::Bind, target);
    point.source = clean(&mount.source);
    point.rw = !mount.read_only;
    point.propagation = "rprivate".into();
    if let Some(options) = &mount.bind_options {
        match options.propagation.as_str() {
            "" => {}
            word @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                point.propagation = word.to_owned();
            }
            other => return refuse(format!("invalid propagation mode: {other}")),
        }
        point.non_recursive = options.non_recursive;
        point.create_source = options.create_mountpoint;
        point.read_only_non_recursive = options.read_only_non_recursive;
        point.read_only_force_recursive = options.read_only_force_recursive;
    }
    if !point.create_source && !std::path::Path::new(&point.source).exists() {
        return refuse(format!("bind source path does not exist: {}", point.source));
    }
    Ok(point.into())
}

fn long_volume(mount: &Mount, target: String) -> Result<Wanted> {
    let mut point = point(MountKind::Volume, target);
    point.name.clone_from(&mount.source);
    point.anonymous = mount.source.is_empty();
    point.rw = !mount.read_only;
    point.mode = "z".into();
    let mut wanted = Wanted::from(point);
    if let Some(options) = &mount.volume_options {
        wanted.point.no_copy = options.no_copy;
        wanted.labels.clone_from(&options.labels);
        if options.subpath.split('/').any(|part| part == "..") || options.subpath.starts_with('/') {
            return Err(EngineError::bad_request(
                "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
            ));
        }
        wanted.point.subpath.clone_from(&options.subpath);
        if let Some(driver) = &options.driver_config {
            wanted.point.driver.clone_from(&driver.name);
            wanted.options.clone_from(&driver.options);
        }
    }
    Ok(wanted)
}

fn long_tmpfs(mount: &Mount, target: String) -> Result<Wanted> {
    if !mount.source.is_empty() {
        return Err(EngineError::bad_request(
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ));
    }
    let mut point = point(MountKind::Tmpfs, target);
    point.rw = !mount.read_only;
    if mount.read_only {
        point.tmpfs.push("ro".into());
    }
    if let Some(options) = &mount.tmpfs_options {
        if options.size_bytes < 0 {
            return Err(EngineError::bad_request(
                "invalid mount config for type \"tmpfs\": size must not be negative",
            ));
        }
        if options.size_bytes > 0 {
            point.tmpfs.push(format!("size={}", options.size_bytes));
        }
        if options.mode != 0 {
            point.tmpfs.push(format!("mode={:o}", options.mode));
        }
        for pair in options.options.iter().flatten() {
            point.tmpfs.push(pair.join("="));
        }
    }
    Ok(point.into())
}
