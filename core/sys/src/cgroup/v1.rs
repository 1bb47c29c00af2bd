//! Version 1: one directory a hierarchy.

use std::path::{Path, PathBuf};

use super::devices::{DeviceRule, for_v1};
use super::files::{self, CgroupError};
use super::group::no_controller;
use super::writes::Writes;
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

/// The files of one group, and how they are written.
struct To<'a> {
    group: &'a Group,
    writes: &'a Writes,
}

impl To<'_> {
    fn set<T: ToString>(
        &self,
        controller: &str,
        name: &str,
        value: Option<T>,
    ) -> Result<(), CgroupError> {
        match value {
            Some(value) => self
                .writes
                .write(&file(self.group, controller, name)?, value.to_string()),
            None => Ok(()),
        }
    }
    fn set_per_device(&self, name: &str, values: &[DeviceValue]) -> Result<(), CgroupError> {
        values.iter().try_for_each(|v| {
            let path = file(self.group, "blkio", name)?;
            let device = format!("{}:{}", v.major, v.minor);
            // 0 takes a device's line away.
            self.writes
                .write_device(&path, &device, &v.value.to_string(), "0")
        })
    }
}

pub(super) fn apply(group: &Group, l: &Limits, writes: &Writes) -> Result<(), CgroupError> {
    let to = To { group, writes };
    set_memory(&to, l)?;
    to.set("memory", "memory.soft_limit_in_bytes", l.memory_reservation)?;
    to.set("memory", "memory.swappiness", l.memory_swappiness)?;
    to.set(
        "memory",
        "memory.kmem.tcp.limit_in_bytes",
        l.kernel_memory_tcp,
    )?;
    if let Some(disable) = l.oom_kill_disable {
        let path = file(group, "memory", "memory.oom_control")?;
        let now = files::field(&path, "oom_kill_disable");
        let old = now.unwrap_or(0).to_string();
        writes.write_part(&path, u8::from(disable).to_string(), |_| old)?;
    }
    set_cpu(&to, l)?;
    to.set("cpuset", "cpuset.cpus", l.cpuset_cpus.as_deref())?;
    to.set("cpuset", "cpuset.mems", l.cpuset_mems.as_deref())?;
    let pids = l.pids.map(|n| {
        if n > 0 {
            n.to_string()
        } else {
            "max".to_owned()
        }
    });
    to.set("pids", "pids.max", pids)?;
    set_blkio(&to, l)
}

/// The kernel keeps memory <= memory+swap at every moment, so what grows is written first.
fn set_memory(to: &To, l: &Limits) -> Result<(), CgroupError> {
    let memory = |v| {
        let done = to.set("memory", "memory.limit_in_bytes", v);
        done.map_err(|e| in_use(to.group, v, e))
    };
    let swap = |v| to.set("memory", "memory.memsw.limit_in_bytes", v);
    // Unlimited memory with a limit on memory and swap cannot be.
    let wanted = match (l.memory, l.memory_swap) {
        (Some(-1), None) if has_swap_accounting(to.group) => Some(-1),
        // No limit is what a kernel that does not count swap has.
        (_, Some(-1)) if !has_swap_accounting(to.group) => None,
        (_, swap) => swap,
    };
    if let (Some(_), Some(both)) = (l.memory, wanted) {
        let now = files::number(&file(to.group, "memory", "memory.memsw.limit_in_bytes")?);
        let grows = both < 0 || now.is_some_and(|now| now < both.cast_unsigned());
        if grows {
            swap(wanted)?;
            return memory(l.memory);
        }
    }
    memory(l.memory)?;
    swap(wanted)
}

/// The kernel could not get below a limit: says what is in use, as runc does.
fn in_use(group: &Group, limit: Option<i64>, error: CgroupError) -> CgroupError {
    if error.errno() != libc::EBUSY {
        return error;
    }
    let number = |name| {
        let file = file(group, "memory", name).ok()?;
        files::number(&file)
    };
    let (limit, now, peak) = (
        limit.unwrap_or(-1),
        number("memory.usage_in_bytes").unwrap_or(0),
        number("memory.max_usage_in_bytes").unwrap_or(0),
    );
    CgroupError {
        what: format!(
            "unable to set memory limit to {limit} (current usage: {now}, peak usage: {peak}): write"
        ),
        ..error
    }
}

fn has_swap_accounting(group: &Group) -> bool {
    file(group, "memory", "memory.memsw.limit_in_bytes").is_ok_and(|f| f.exists())
}

/// A quota must fit its period at every moment; which to write first depends on what was there.
fn set_cpu(to: &To, l: &Limits) -> Result<(), CgroupError> {
    to.set("cpu", "cpu.shares", l.cpu_shares)?;
    let period = || to.set("cpu", "cpu.cfs_period_us", l.cpu_period);
    let quota = || to.set("cpu", "cpu.cfs_quota_us", l.cpu_quota);
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
    to.set("cpu", "cpu.rt_period_us", l.cpu_realtime_period)?;
    to.set("cpu", "cpu.rt_runtime_us", l.cpu_realtime_runtime)
}

fn set_blkio(to: &To, l: &Limits) -> Result<(), CgroupError> {
    // The weight's file depends on the I/O scheduler of the kernel.
    let weight = |plain: &'static str, bfq: &'static str| {
        file(to.group, "blkio", plain).map(|f| if f.exists() { plain } else { bfq })
    };
    if l.blkio_weight.is_some() {
        let name = weight("blkio.weight", "blkio.bfq.weight")?;
        to.set("blkio", name, l.blkio_weight)?;
    }
    if !l.blkio_weight_device.is_empty() {
        let name = weight("blkio.weight_device", "blkio.bfq.weight_device")?;
        to.set_per_device(name, &l.blkio_weight_device)?;
    }
    to.set_per_device("blkio.throttle.read_bps_device", &l.read_bps)?;
    to.set_per_device("blkio.throttle.write_bps_device", &l.write_bps)?;
    to.set_per_device("blkio.throttle.read_iops_device", &l.read_iops)?;
    to.set_per_device("blkio.throttle.write_iops_device", &l.write_iops)
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
