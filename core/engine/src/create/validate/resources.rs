//! Limits that make no sense.

use gantry_model::container::HostConfig;
use gantry_sys::host::HostFacts;

use super::invalid;
use crate::Result;

/// Smallest memory limit with which a process can be started.
const MIN_MEMORY: i64 = 6 << 20;

/// Checks memory limits.
pub(super) fn memory(host: &HostConfig) -> Result<()> {
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

/// Checks CPU limits.
pub(super) fn cpu(host: &HostConfig, facts: &HostFacts) -> Result<()> {
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
        return invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        ));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let Some(numbers) = parse_set(list) else {
            return invalid(format!("Invalid value {list} for cpuset {name}"));
        };
        if name == "cpus"
            && !numbers.is_empty()
            && let Some(online) = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()
            && let Some(online) = parse_set(online.trim())
            && !numbers.iter().all(|n| online.contains(n))
        {
            let available: Vec<String> = online.iter().map(ToString::to_string).collect();
            return invalid(format!(
                "Requested CPUs are not available - requested {list}, available: {}",
                available.join(",")
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

/// Checks block I/O weights.
pub(super) fn blkio(host: &HostConfig) -> Result<()> {
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
