//! Limits in Docker's terms, in the OCI's and in the kernel's.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use gantry_sys::cgroup::{DeviceValue, Limits};
use oci_spec::runtime as oci;

use super::{BlkioDevice, Resources, SpecError};

/// The kernel's form. Memory without a word on swap may take as much swap again, as with Docker.
pub(crate) fn to_limits(r: &Resources) -> Result<Limits, SpecError> {
    let memory = r.memory.filter(|m| *m != 0);
    let memory_swap = match (r.memory_swap.filter(|s| *s != 0), memory) {
        (Some(both), _) => Some(both),
        (None, Some(memory)) if memory > 0 => Some(memory.saturating_mul(2)),
        (None, _) => None,
    };
    Ok(Limits {
        memory,
        memory_swap,
        memory_reservation: r.memory_reservation.filter(|m| *m != 0),
        memory_swappiness: r.memory_swappiness,
        kernel_memory_tcp: r.kernel_memory_tcp.filter(|m| *m != 0),
        oom_kill_disable: r.oom_kill_disable,
        cpu_shares: r.cpu_shares.filter(|n| *n != 0),
        cpu_quota: r.cpu_quota.filter(|n| *n != 0),
        cpu_period: r.cpu_period.filter(|n| *n != 0),
        cpu_realtime_runtime: r.cpu_realtime_runtime.filter(|n| *n != 0),
        cpu_realtime_period: r.cpu_realtime_period.filter(|n| *n != 0),
        cpuset_cpus: r.cpuset_cpus.clone().filter(|s| !s.is_empty()),
        cpuset_mems: r.cpuset_mems.clone().filter(|s| !s.is_empty()),
        pids: r.pids_limit,
        blkio_weight: r.blkio_weight.filter(|n| *n != 0),
        blkio_weight_device: devices(&r.blkio_weight_device)?,
        read_bps: devices(&r.blkio_read_bps)?,
        write_bps: devices(&r.blkio_write_bps)?,
        read_iops: devices(&r.blkio_read_iops)?,
        write_iops: devices(&r.blkio_write_iops)?,
    })
}

fn devices(list: &[BlkioDevice]) -> Result<Vec<DeviceValue>, SpecError> {
    list.iter()
        .map(|device| {
            let path = device.path.display();
            let meta = std::fs::metadata(&device.path)
                .map_err(|e| SpecError::Invalid(format!("{path}: {e}")))?;
            if !meta.file_type().is_block_device() {
                return Err(SpecError::Invalid(format!("{path}: not a block device")));
            }
            Ok(DeviceValue {
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
                value: device.rate,
            })
        })
        .collect()
}

/// The OCI form, without device rules.
pub(super) fn to_oci(r: &Resources) -> Result<oci::LinuxResources, SpecError> {
    let l = to_limits(r)?;
    let mut out = oci::LinuxResources::default();
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(l.memory);
    memory.set_swap(l.memory_swap);
    memory.set_reservation(l.memory_reservation);
    memory.set_swappiness(l.memory_swappiness);
    memory.set_kernel_tcp(l.kernel_memory_tcp);
    memory.set_disable_oom_killer(l.oom_kill_disable);
    out.set_memory((memory != oci::LinuxMemory::default()).then_some(memory));
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(l.cpu_shares);
    cpu.set_quota(l.cpu_quota);
    cpu.set_period(l.cpu_period);
    cpu.set_realtime_runtime(l.cpu_realtime_runtime);
    cpu.set_realtime_period(l.cpu_realtime_period);
    cpu.set_cpus(l.cpuset_cpus);
    cpu.set_mems(l.cpuset_mems);
    out.set_cpu((cpu != oci::LinuxCpu::default()).then_some(cpu));
    out.set_pids(l.pids.map(|limit| {
        let mut pids = oci::LinuxPids::default();
        pids.set_limit(if limit > 0 { limit } else { -1 });
        pids
    }));
    let mut io = oci::LinuxBlockIo::default();
    io.set_weight(l.blkio_weight);
    io.set_weight_device(each(&l.blkio_weight_device, weight)?);
    io.set_throttle_read_bps_device(each(&l.read_bps, throttle)?);
    io.set_throttle_write_bps_device(each(&l.write_bps, throttle)?);
    io.set_throttle_read_iops_device(each(&l.read_iops, throttle)?);
    io.set_throttle_write_iops_device(each(&l.write_iops, throttle)?);
    out.set_block_io((io != oci::LinuxBlockIo::default()).then_some(io));
    Ok(out)
}

fn each<T>(
    list: &[DeviceValue],
    make: fn(&DeviceValue) -> Result<T, oci_spec::OciSpecError>,
) -> Result<Option<Vec<T>>, SpecError> {
    let made: Vec<T> = list.iter().map(make).collect::<Result<_, _>>()?;
    Ok((!made.is_empty()).then_some(made))
}

fn weight(value: &DeviceValue) -> Result<oci::LinuxWeightDevice, oci_spec::OciSpecError> {
    oci::LinuxWeightDeviceBuilder::default()
        .major(i64::from(value.major))
        .minor(i64::from(value.minor))
        .weight(u16::try_from(value.value).unwrap_or(u16::MAX))
        .build()
}

fn throttle(value: &DeviceValue) -> Result<oci::LinuxThrottleDevice, oci_spec::OciSpecError> {
    oci::LinuxThrottleDeviceBuilder::default()
        .major(i64::from(value.major))
        .minor(i64::from(value.minor))
        .rate(value.value)
        .build()
}

/// The kernel's form of the OCI's: what [`to_oci`] made, or someone by hand.
pub(crate) fn from_oci(r: &oci::LinuxResources) -> Result<Limits, SpecError> {
    let unsupported = [
        ("hugepageLimits", r.hugepage_limits().is_some()),
        ("network", r.network().is_some()),
        ("rdma", r.rdma().is_some()),
        ("unified", r.unified().is_some()),
    ];
    if let Some((name, _)) = unsupported.iter().find(|(_, there)| *there) {
        return Err(SpecError::Unsupported(format!("linux.resources.{name}")));
    }
    let memory = r.memory().unwrap_or_default();
    let cpu = r.cpu().clone().unwrap_or_default();
    let io = r.block_io().clone().unwrap_or_default();
    let value = |major: i64, minor: i64, value: u64| -> Result<DeviceValue, SpecError> {
        let number = |n: i64| {
            u32::try_from(n).map_err(|_| SpecError::Invalid(format!("invalid device number {n}")))
        };
        Ok(DeviceValue {
            major: number(major)?,
            minor: number(minor)?,
            value,
        })
    };
    let throttles = |list: &Option<Vec<oci::LinuxThrottleDevice>>| {
        list.iter()
            .flatten()
            .map(|d| value(d.major(), d.minor(), d.rate()))
            .collect::<Result<Vec<_>, _>>()
    };
    let weights = io.weight_device().iter().flatten();
    Ok(Limits {
        memory: memory.limit(),
        memory_swap: memory.swap(),
        memory_reservation: memory.reservation(),
        memory_swappiness: memory.swappiness(),
        kernel_memory_tcp: memory.kernel_tcp(),
        oom_kill_disable: memory.disable_oom_killer(),
        cpu_shares: cpu.shares(),
        cpu_quota: cpu.quota(),
        cpu_period: cpu.period(),
        cpu_realtime_runtime: cpu.realtime_runtime(),
        cpu_realtime_period: cpu.realtime_period(),
        cpuset_cpus: cpu.cpus().clone(),
        cpuset_mems: cpu.mems().clone(),
        pids: r.pids().as_ref().map(oci::LinuxPids::limit),
        blkio_weight: io.weight(),
        blkio_weight_device: weights
            .map(|d| value(d.major(), d.minor(), d.weight().unwrap_or(0).into()))
            .collect::<Result<_, _>>()?,
        read_bps: throttles(io.throttle_read_bps_device())?,
        write_bps: throttles(io.throttle_write_bps_device())?,
        read_iops: throttles(io.throttle_read_iops_device())?,
        write_iops: throttles(io.throttle_write_iops_device())?,
    })
}
