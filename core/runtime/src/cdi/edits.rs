//! What a specification changes in a container.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};

use oci_spec::runtime as oci;

use super::file::{Edits, Hook, Mount, Node};
use crate::UserSpec;

type Result<T> = std::result::Result<T, String>;

pub(super) fn apply(spec: &mut oci::Spec, user: &mut UserSpec, all: &[&Edits]) -> Result<()> {
    let mut process = spec.process().clone().unwrap_or_default();
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let mut env = process.env().clone().unwrap_or_default();
    let mut gids = process.user().additional_gids().clone().unwrap_or_default();
    for edits in all {
        if !edits.net_devices.is_empty() {
            return Err("network devices are not supported".into());
        }
        env = crate::spec::process::merge_env(&env, &edits.env);
        for node in &edits.device_nodes {
            add_node(&mut linux, node, process.user())?;
        }
        for mount in &edits.mounts {
            add_mount(&mut mounts, mount)?;
        }
        for hook in &edits.hooks {
            add_hook(spec, hook)?;
        }
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            if !gids.contains(gid) {
                gids.push(*gid);
                user.groups.push(gid.to_string());
            }
        }
    }
    let depth = |m: &oci::Mount| m.destination().components().count();
    mounts.sort_by_key(depth);
    process.set_env(Some(env));
    spec.set_process(Some(process));
    spec.set_linux(Some(linux));
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn absolute(path: &Path) -> Result<()> {
    let climbs = path.components().any(|c| c == Component::ParentDir);
    match path.is_absolute() && !climbs {
        true => Ok(()),
        false => Err(format!("invalid path {path:?}: want an absolute path")),
    }
}

fn add_node(linux: &mut oci::Linux, node: &Node, user: &oci::User) -> Result<()> {
    absolute(&node.path)?;
    let host = match node.host_path.as_os_str().is_empty() {
        true => &node.path,
        false => &node.host_path,
    };
    let failed = |why: String| format!("failed to stat CDI host device {host:?}: {why}");
    let mut kind = kind(&node.kind)?;
    let (mut numbers, mut mode) = (node.major.zip(node.minor), node.file_mode);
    let fifo = kind == Some(oci::LinuxDeviceType::P);
    if kind.is_none() || (numbers.is_none() && !fifo) {
        let meta = std::fs::metadata(host).map_err(|e| {
            failed(match e.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".into(),
                _ => e.to_string(),
            })
        })?;
        let theirs = match meta.file_type() {
            t if t.is_char_device() => oci::LinuxDeviceType::C,
            t if t.is_block_device() => oci::LinuxDeviceType::B,
            t if t.is_fifo() => oci::LinuxDeviceType::P,
            _ => return Err(failed("not a device node".into())),
        };
        if kind.is_some_and(|given| given != theirs) {
            return Err(format!(
                "CDI device ({:?}, {host:?}), host type mismatch ({}, {theirs:?})",
                node.path, node.kind
            ));
        }
        kind = Some(theirs);
        let major = i64::from(rustix::fs::major(meta.rdev()));
        numbers = numbers.or(Some((major, rustix::fs::minor(meta.rdev()).into())));
        mode = mode.or(Some(meta.mode() & 0o7777));
    }
    let kind = kind.unwrap_or(oci::LinuxDeviceType::C);
    let (major, minor) = numbers.unwrap_or_default();
    let mut device = oci::LinuxDevice::default();
    device.set_path(node.path.clone());
    device.set_typ(kind);
    device.set_major(major);
    device.set_minor(minor);
    device.set_file_mode(mode);
    let owner = |given: Option<u32>, own: u32| given.or(Some(own).filter(|id| *id != 0));
    device.set_uid(owner(node.uid, user.uid()));
    device.set_gid(owner(node.gid, user.gid()));
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|d| d.path() != &node.path);
    devices.push(device);
    linux.set_devices(Some(devices));
    if kind != oci::LinuxDeviceType::P {
        allow(linux, kind, (major, minor), &node.permissions)?;
    }
    Ok(())
}

fn kind(word: &str) -> Result<Option<oci::LinuxDeviceType>> {
    Ok(Some(match word {
        "" => return Ok(None),
        "c" | "u" => oci::LinuxDeviceType::C,
        "b" => oci::LinuxDeviceType::B,
        "p" => oci::LinuxDeviceType::P,
        _ => return Err(format!("invalid device type {word:?}")),
    }))
}

fn allow(
    linux: &mut oci::Linux,
    kind: oci::LinuxDeviceType,
    (major, minor): (i64, i64),
    permissions: &str,
) -> Result<()> {
    let access = match permissions {
        "" => "rwm",
        // Podman's word for a node that nobody may use.
        "none" => return Ok(()),
        letters => letters,
    };
    if gantry_sys::cgroup::DeviceAccess::parse(access).is_none() {
        return Err(format!("invalid permissions {permissions:?}"));
    }
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind));
    rule.set_major(Some(major));
    rule.set_minor(Some(minor));
    rule.set_access(Some(access.to_owned()));
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.push(rule);
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    Ok(())
}

fn add_mount(mounts: &mut Vec<oci::Mount>, mount: &Mount) -> Result<()> {
    absolute(&mount.container_path)?;
    if mount.container_path.parent().is_none() {
        return Err("invalid mount: the root of the container".into());
    }
    let mut options = mount.options.clone();
    let bind = matches!(mount.kind.as_str(), "" | "bind");
    if bind && !options.iter().any(|o| o == "bind" || o == "rbind") {
        options.push("bind".into());
    }
    let mut out = oci::Mount::default();
    out.set_destination(mount.container_path.clone());
    out.set_source(Some(mount.host_path.clone()));
    out.set_typ(Some(
        if bind { "bind" } else { mount.kind.as_str() }.to_owned(),
    ));
    out.set_options(Some(options));
    mounts.retain(|m| m.destination() != &mount.container_path);
    mounts.push(out);
    Ok(())
}

fn add_hook(spec: &mut oci::Spec, hook: &Hook) -> Result<()> {
    absolute(&hook.path)?;
    let mut out = oci::Hook::default();
    out.set_path(hook.path.clone());
    out.set_args((!hook.args.is_empty()).then(|| hook.args.clone()));
    out.set_env((!hook.env.is_empty()).then(|| hook.env.clone()));
    out.set_timeout(hook.timeout);
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let with = |list: &Option<Vec<oci::Hook>>| {
        let mut list = list.clone().unwrap_or_default();
        list.push(out);
        Some(list)
    };
    match hook.hook_name.as_str() {
        "prestart" | "createRuntime" => {
            let list = with(hooks.create_runtime());
            hooks.set_create_runtime(list);
        }
        "createContainer" => {
            let list = with(hooks.create_container());
            hooks.set_create_container(list);
        }
        "startContainer" => {
            let list = with(hooks.start_container());
            hooks.set_start_container(list);
        }
        "poststart" => {
            let list = with(hooks.poststart());
            hooks.set_poststart(list);
        }
        "poststop" => {
            let list = with(hooks.poststop());
            hooks.set_poststop(list);
        }
        name => return Err(format!("invalid hook name {name:?}")),
    }
    spec.set_hooks(Some(hooks));
    Ok(())
}
