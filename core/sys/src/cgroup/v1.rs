//! Version 1: one directory a hierarchy.

use std::path::{Path, PathBuf};

use super::devices::{DeviceRule, for_v1};
use super::files::{self, CgroupError};
use super::group::no_controller;
use super::{DeviceValue, Group, Limits};

/// Makes `mount/path`. In the cpuset hierarchy a new group has no processors until it is given its parent's.
pub(super) fn create(mount: &Path, path: &Path, cpuset: bool) -> Result<(), CgroupError> {
    let dir = mount.join(path);
    let made = |done: rustix::io::Result<()>| match done {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(CgroupError::new("mkdir", &dir, e.into())),
    };
    match rustix::fs::mkdir(&dir, 0o755.into()) {
        Err(rustix::io::Errno::NOENT) => {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                create(mount, parent, cpuset)?;
            }
            made(rustix::fs::mkdir(&dir, 0o755.into()))?;
        }
        done => made(done)?,
    }
    if cpuset {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(mount, &dir, file)?;
        }
    }
    Ok(())
}

/// The value of `file` in `dir`, which is its parent's unless it has one. Another container's start may have made the
/// parent and not filled it yet: whoever comes first does.
fn inherit(mount: &Path, dir: &Path, file: &str) -> Result<String, CgroupError> {
    let own = dir.join(file);
    let value = files::read(&own)?;
    let parent = match dir.parent() {
        Some(parent) if value.is_empty() && dir != mount => parent,
        _ => return Ok(value),
    };
    let value = inherit(mount, parent, file)?;
    files::write(&own, &value)?;
    Ok(value)
}

/// A file of a controller that the host must have.
fn file(group: &Group, controller: &str, name: &str) -> Result<PathBuf, CgroupError> {
    let dir = group
        .dir(controller)
        .ok_or_else(|| no_controller(controller))?;
    Ok(dir.join(name))
}

fn set<T: ToString>(
    group: &Group,
    controller: &str,
    name: &str,
    value: Option<T>,
) -> Result<(), CgroupError> {
    match value {
        Some(value) => files::write(&file(group, controller, name)?, value.to_string()),
        None => Ok(()),
    }
}

pub(super) fn apply(group: &Group, l: &Limits) -> Result<(), CgroupError> {
    set_memory(group, l)?;
    set(
        group,
        "memory",
        "memory.soft_limit_in_bytes",
        l.memory_reservation,
    )?;
    set(group, "memory", "memory.swappiness", l.memory_swappiness)?;
    let disable = l.oom_kill_disable.map(u8::from);
    set(group, "memory", "memory.oom_control", disable)?;
    set_cpu(group, l)?;
    set(group, "cpuset", "cpuset.cpus", l.cpuset_cpus.as_deref())?;
    set(group, "cpuset", "cpuset.mems", l.cpuset_mems.as_deref())?;
    let pids = l.pids.map(|n| {
        if n > 0 {
            n.to_string()
        } else {
            "max".to_owned()
        }
    });
    set(group, "pids", "pids.max", pids)?;
    set_blkio(group, l)
}

/// The kernel keeps memory <= memory+swap at every moment, so what grows is written first.
fn set_memory(group: &Group, l: &Limits) -> Result<(), CgroupError> {
    let memory = |v| set(group, "memory", "memory.limit_in_bytes", v);
    let swap = |v| set(group, "memory", "memory.memsw.limit_in_bytes", v);
    // Unlimited memory with a limit on memory and swap cannot be.
    let wanted = match (l.memory, l.memory_swap) {
        (Some(-1), None) if has_swap_accounting(group) => Some(-1),
        (_, swap) => swap,
    };
    if let (Some(_), Some(both)) = (l.memory, wanted) {
        let now = files::number(&file(group, "memory", "memory.memsw.limit_in_bytes")?);
        let grows = both < 0 || now.is_some_and(|now| now < both.cast_unsigned());
        if grows {
            swap(wanted)?;
            return memory(l.memory);
        }
    }
    memory(l.memory)?;
    swap(wanted)
}

fn has_swap_accounting(group: &Group) -> bool {
    file(group, "memory", "memory.memsw.limit_in_bytes").is_ok_and(|f| f.exists())
}

/// A quota must fit its period at every moment; which to write first depends on what was there.
fn set_cpu(group: &Group, l: &Limits) -> Result<(), CgroupError> {
    set(group, "cpu", "cpu.shares", l.cpu_shares)?;
    let period = || set(group, "cpu", "cpu.cfs_period_us", l.cpu_period);
    let quota = || set(group, "cpu", "cpu.cfs_quota_us", l.cpu_quota);
    match period() {
        Err(e) if e.errno() == libc::EINVAL && l.cpu_quota.is_some() => {
            quota()?;
            period()?;
        }
        other => {
            other?;
            quota()?;
        }
    }
    set(group, "cpu", "cpu.rt_period_us", l.cpu_realtime_period)?;
    set(group, "cpu", "cpu.rt_runtime_us", l.cpu_realtime_runtime)
}

fn set_blkio(group: &Group, l: &Limits) -> Result<(), CgroupError> {
    // The weight's file depends on the I/O scheduler of the kernel.
    let weight = |plain: &'static str, bfq: &'static str| {
        file(group, "blkio", plain).map(|f| if f.exists() { plain } else { bfq })
    };
    if l.blkio_weight.is_some() {
        let name = weight("blkio.weight", "blkio.bfq.weight")?;
        set(group, "blkio", name, l.blkio_weight)?;
    }
    if !l.blkio_weight_device.is_empty() {
        let name = weight("blkio.weight_device", "blkio.bfq.weight_device")?;
        set_per_device(group, name, &l.blkio_weight_device)?;
    }
    set_per_device(group, "blkio.throttle.read_bps_device", &l.read_bps)?;
    set_per_device(group, "blkio.throttle.write_bps_device", &l.write_bps)?;
    set_per_device(group, "blkio.throttle.read_iops_device", &l.read_iops)?;
    set_per_device(group, "blkio.throttle.write_iops_device", &l.write_iops)
}

fn set_per_device(group: &Group, name: &str, values: &[DeviceValue]) -> Result<(), CgroupError> {
    values.iter().try_for_each(|v| {
        let line = format!("{}:{} {}", v.major, v.minor, v.value);
        set(group, "blkio", name, Some(line))
    })
}

/// A new group has its parent's rules: everything is taken away first.
pub(super) fn set_devices(group: &Group, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let allow = files::Writer::open(file(group, "devices", "devices.allow")?)?;
    let deny = files::Writer::open(file(group, "devices", "devices.deny")?)?;
    deny.write("a")?;
    for_v1(rules).iter().try_for_each(|rule| {
        let to = if rule.allow { &allow } else { &deny };
        to.write(&rule.to_string())
    })
}
