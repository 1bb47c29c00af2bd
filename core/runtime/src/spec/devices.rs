//! Device nodes of a container, and who may use them.

use std::fs::FileType;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use gantry_sys::cgroup::{DeviceAccess, DeviceKind, DeviceRule};
use oci_spec::runtime as oci;

use super::{DeviceInput, SpecError, SpecInput};

/// Character devices every container may use, by number; beside these come those the runtime itself makes.
const DEFAULT_RULES: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// Parts of the host's /dev that a privileged container does not get: it has its own of these.
const SKIPPED: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "console",
];

/// How deep, and how many devices, a directory is searched for.
const MAX_DEPTH: usize = 16;
const MAX_DEVICES: usize = 65_536;

/// Nodes and rules.
pub(super) struct Devices {
    pub(super) nodes: Vec<oci::LinuxDevice>,
    pub(super) rules: Vec<oci::LinuxDeviceCgroup>,
}

pub(super) fn collect(input: &SpecInput) -> Result<Devices, SpecError> {
    let mut nodes = Vec::new();
    if input.privileged {
        let dev = Path::new("/dev");
        walk(dev, dev, MAX_DEPTH, &mut nodes)
            .map_err(|e| SpecError::Invalid(format!("unable to list /dev: {e}")))?;
        for device in &input.devices {
            nodes.retain(|n| n.path() != Path::new(&device.path_in_container));
            nodes.extend(named(device)?);
        }
        let mut all = rule(&DeviceRule::everything(true));
        all.set_access(Some("rwm".into()));
        return Ok(Devices {
            nodes,
            rules: vec![all],
        });
    }
    let mut rules = vec![rule(&DeviceRule::everything(false))];
    for (major, minor) in DEFAULT_RULES {
        rules.push(oci_rule(oci::LinuxDeviceType::C, major, minor, "rwm"));
    }
    for device in &input.devices {
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            device.permissions.as_str()
        };
        if DeviceAccess::parse(access).is_none() {
            return Err(SpecError::Invalid(format!("invalid device mode: {access}")));
        }
        for node in named(device)? {
            rules.push(oci_rule(node.typ(), node.major(), node.minor(), access));
            nodes.push(node);
        }
    }
    for text in &input.device_cgroup_rules {
        let parsed = DeviceRule::parse(text, true).ok_or_else(|| {
            SpecError::Invalid(format!("invalid device cgroup rule format: '{text}'"))
        })?;
        rules.push(rule(&parsed));
    }
    Ok(Devices { nodes, rules })
}

fn rule(rule: &DeviceRule) -> oci::LinuxDeviceCgroup {
    let kind = match rule.kind {
        DeviceKind::All => oci::LinuxDeviceType::A,
        DeviceKind::Char => oci::LinuxDeviceType::C,
        DeviceKind::Block => oci::LinuxDeviceType::B,
    };
    let mut out = oci::LinuxDeviceCgroup::default();
    out.set_allow(rule.allow);
    out.set_typ(Some(kind));
    out.set_major(rule.major.map(i64::from));
    out.set_minor(rule.minor.map(i64::from));
    out.set_access(Some(rule.access.to_string()));
    out
}

fn oci_rule(
    kind: oci::LinuxDeviceType,
    major: i64,
    minor: i64,
    access: &str,
) -> oci::LinuxDeviceCgroup {
    let mut out = oci::LinuxDeviceCgroup::default();
    out.set_allow(true);
    out.set_typ(Some(kind));
    out.set_major(Some(major));
    out.set_minor(Some(minor));
    out.set_access(Some(access.into()));
    out
}

/// The nodes that one `--device` stands for.
fn named(device: &DeviceInput) -> Result<Vec<oci::LinuxDevice>, SpecError> {
    let host = &device.path_on_host;
    let failed = |why: &dyn std::fmt::Display| {
        SpecError::Invalid(format!(
            "error gathering device information while adding custom device {host:?}: {why}"
        ))
    };
    let meta = std::fs::metadata(host).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failed(&"no such file or directory"),
        _ => failed(&e),
    })?;
    let target = Path::new(&device.path_in_container);
    if let Some(node) = node(target, &meta) {
        return Ok(vec![node]);
    }
    let mut nodes = Vec::new();
    if meta.is_dir() {
        walk(host, target, MAX_DEPTH, &mut nodes).map_err(|e| failed(&e))?;
    }
    if nodes.is_empty() {
        return Err(failed(&"not a device node"));
    }
    Ok(nodes)
}

/// The node of a file, when it is a device.
fn node(path: &Path, meta: &std::fs::Metadata) -> Option<oci::LinuxDevice> {
    let kind = device_type(meta.file_type())?;
    let number = meta.rdev();
    let mut out = oci::LinuxDevice::default();
    out.set_path(path.to_owned());
    out.set_typ(kind);
    out.set_major(rustix::fs::major(number).into());
    out.set_minor(rustix::fs::minor(number).into());
    out.set_file_mode(Some(meta.mode() & 0o7777));
    out.set_uid(Some(meta.uid()));
    out.set_gid(Some(meta.gid()));
    Some(out)
}

fn device_type(kind: FileType) -> Option<oci::LinuxDeviceType> {
    if kind.is_char_device() {
        Some(oci::LinuxDeviceType::C)
    } else if kind.is_block_device() {
        Some(oci::LinuxDeviceType::B)
    } else {
        None
    }
}

/// Every device below a directory, links left out.
fn walk(
    dir: &Path,
    target: &Path,
    depth: usize,
    nodes: &mut Vec<oci::LinuxDevice>,
) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_owned();
        // A device that vanishes meanwhile is none.
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if SKIPPED.iter().any(|s| name == *s) || nodes.len() >= MAX_DEVICES {
            continue;
        }
        if meta.is_dir() && depth > 0 {
            walk(&path, &target.join(&name), depth - 1, nodes)?;
        } else if let Some(node) = node(&target.join(&name), &meta) {
            nodes.push(node);
        }
    }
    Ok(())
}
