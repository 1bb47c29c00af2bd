//! Device nodes, their links, and who may use what.

use std::path::PathBuf;

use gantry_monitor::plan::{Device, DeviceKind};
use gantry_sys::cgroup::{self, DeviceAccess, DeviceRule};
use oci_spec::runtime as oci;

use crate::spec::SpecError;

/// Devices every container has: (path, major, minor).
const NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What any container may do with devices, beyond its specification: make nodes, use those above and its terminals.
const RULES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

const SYMLINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

pub(super) fn symlinks() -> Vec<(PathBuf, PathBuf)> {
    SYMLINKS
        .iter()
        .map(|(at, to)| (PathBuf::from(at), PathBuf::from(to)))
        .collect()
}

pub(super) fn devices(linux: &oci::Linux) -> Result<Vec<Device>, SpecError> {
    let given = linux.devices().iter().flatten();
    let mut all: Vec<Device> = given.map(device).collect::<Result<_, _>>()?;
    for (path, major, minor) in NODES {
        let path = PathBuf::from(path);
        if !all.iter().any(|d| d.path == path) {
            all.push(Device {
                path,
                major,
                minor,
                mode: 0o666,
                ..Device::default()
            });
        }
    }
    Ok(all)
}

fn device(device: &oci::LinuxDevice) -> Result<Device, SpecError> {
    let kind = match device.typ() {
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Char,
        oci::LinuxDeviceType::B => DeviceKind::Block,
        oci::LinuxDeviceType::P => DeviceKind::Fifo,
        oci::LinuxDeviceType::A => {
            return Err(SpecError::Invalid(format!(
                "device {:?} of kind a",
                device.path()
            )));
        }
    };
    Ok(Device {
        path: device.path().clone(),
        host_path: PathBuf::new(),
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        exact: false,
    })
}

fn number(n: i64) -> Result<u32, SpecError> {
    u32::try_from(n).map_err(|_| SpecError::Invalid(format!("invalid device number {n}")))
}

/// The specification's rules, then what every container may do.
pub(super) fn device_rules(rules: &[oci::LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, SpecError> {
    let mut all = Vec::with_capacity(rules.len() + RULES.len());
    for rule in rules {
        // -1 is the old way to say "any".
        let any = |n: Option<i64>| n.filter(|n| *n != -1).map(number).transpose();
        let access = rule.access().as_deref().unwrap_or("rwm");
        all.push(DeviceRule {
            allow: rule.allow(),
            kind: match rule.typ() {
                None | Some(oci::LinuxDeviceType::A) => cgroup::DeviceKind::All,
                Some(oci::LinuxDeviceType::B) => cgroup::DeviceKind::Block,
                Some(_) => cgroup::DeviceKind::Char,
            },
            major: any(rule.major())?,
            minor: any(rule.minor())?,
            access: DeviceAccess::parse(access)
                .ok_or_else(|| SpecError::Invalid(format!("invalid device access: {access}")))?,
        });
    }
    all.extend(RULES.iter().filter_map(|r| DeviceRule::parse(r, true)));
    Ok(all)
}
