//! Limits that make no sense.

use gantry_model::container::HostConfig;
use gantry_sys::cgroup::{Cgroups, Mode};
use gantry_sys::host::HostFacts;

use super::invalid;
use crate::Result;

/// Smallest memory limit with which a process can be started.
const MIN_MEMORY: i64 = 6 << 20;

/// Checks all limits.
pub(super) fn check(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    memory(host)?;
    cpu(host, facts)?;
    realtime(host, facts)?;
    cpuset(host)?;
    blkio(host)?;
    windows(host)
}

fn memory(host: &HostConfig) -> Result<()> {
    let (memory, swap) = (host.memory, host.memory_swap);
    if memory != 0 && memory < MIN_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap > 0 && swap < memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && host.memory_reservation > memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    Ok(())
}

fn cpu(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let cpus = i64::try_from(facts.cpus).unwrap_or(i64::MAX);
    if host.nano_cpus < 0 || host.nano_cpus > cpus.saturating_mul(1_000_000_000) {
        return invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host.cpu_shares < 0 {
        return invalid("shares: invalid argument");
    }
    if host.cpu_shares == 1 {
        return invalid("the minimum allowed cpu-shares is 2");
    }
    if host.cpu_shares > 262_144 {
        return invalid("the maximum allowed cpu-shares is 262144");
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

/// Realtime limits, which version 1 of cgroups alone has.
fn realtime(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    if period == 0 && runtime == 0 {
        return Ok(());
    }
    let v1 = |cgroups: &Cgroups| {
        cgroups.mode() != Mode::V2 && cgroups.has_file("cpu", &["cpu.rt_runtime_us"])
    };
    if !facts.cgroups.as_ref().is_some_and(v1) {
        return invalid("kernel does not support CPU real-time scheduler");
    }
    if period != 0 && runtime > period {
        return invalid("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    Ok(())
}

fn cpuset(host: &HostConfig) -> Result<()> {
    for (name, what, list, online) in [
        (
            "cpus",
            "CPUs",
            &host.cpuset_cpus,
            "/sys/devices/system/cpu/online",
        ),
        (
            "mems",
            "memory nodes",
            &host.cpuset_mems,
            "/sys/devices/system/node/online",
        ),
    ] {
        let Some(numbers) = parse_set(list) else {
            return invalid(format!(
                "Invalid value {list} for cpuset {name}: invalid format: {list}"
            ));
        };
        // A kernel without nodes says nothing of them.
        let available = std::fs::read_to_string(online).unwrap_or_default();
        let available = available.trim();
        if let Some(there) = parse_set(available)
            && !there.is_empty()
            && !numbers.iter().all(|n| there.contains(n))
        {
            return invalid(format!(
                "Requested {what} are not available - requested {list}, available: {available}"
            ));
        }
    }
    Ok(())
}

/// Limits that Linux does not have.
fn windows(host: &HostConfig) -> Result<()> {
    for (given, what) in [
        (host.io_maximum_bandwidth > 0, "bandwidth"),
        (host.io_maximum_iops > 0, "IOPs"),
    ] {
        if given {
            return invalid(format!(
                "invalid QoS settings: linux does not support configuration of maximum {what}"
            ));
        }
    }
    Ok(())
}

/// `0-2,4`; at most 8192 numbers. Empty: none.
fn parse_set(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to > 8191 {
            return None;
        }
        numbers.extend(from..=to);
    }
    Some(numbers)
}

/// Weights.
fn blkio(host: &HostConfig) -> Result<()> {
    let weights = host.blkio_weight_device.iter().flatten().map(|d| d.weight);
    for weight in weights.chain([host.blkio_weight]) {
        if weight != 0 && !(10..=1000).contains(&weight) {
            return invalid("Range of blkio weight is from 10 to 1000");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        assert_eq!(parse_set("0-2,4"), Some(vec![0, 1, 2, 4]));
        assert_eq!(parse_set(""), Some(vec![]));
        for bad in ["a", "2-1", "1,", "0-99999999"] {
            assert_eq!(parse_set(bad), None, "{bad}");
        }
    }
}
