//! What an update does to a host configuration, without doing it.

use gantry_model::container::{HostConfig, RestartPolicy, ThrottleDevice, WeightDevice};

use crate::container::restart;
use crate::{EngineError, Result};

/// What is to become of a container.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    /// The whole configuration afterwards.
    pub(super) after: HostConfig,
    /// The limits that are to be written to the cgroup of a running container; zero: not this one.
    pub(super) limits: HostConfig,
}

/// Takes over the members of `wish` that say something.
///
/// # Errors
/// What contradicts what was there, in Docker's words.
pub(super) fn merge(before: &HostConfig, wish: &HostConfig) -> Result<Change> {
    contradictions(before, wish)?;
    let mut after = before.clone();
    let mut limits = HostConfig::default();
    macro_rules! take {
        ($($field:ident),*) => { $(
            if says(&wish.$field) {
                after.$field.clone_from(&wish.$field);
                limits.$field.clone_from(&wish.$field);
            }
        )* };
    }
    take!(
        blkio_weight,
        cpu_shares,
        nano_cpus,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory,
        memory_swap,
        memory_reservation,
        memory_swappiness,
        oom_kill_disable,
        pids_limit
    );
    if after.pids_limit.is_some_and(|limit| limit <= 0) {
        after.pids_limit = Some(0);
    }
    if wish.memory != 0 || wish.memory_swap != 0 {
        // Memory and swap are one limit to clients, two to version 2 of cgroups: the pair is written together.
        limits.memory = after.memory;
        limits.memory_swap = after.memory_swap;
    }
    macro_rules! take_devices {
        ($($field:ident),*) => { $(
            limits.$field.clone_from(&wish.$field);
            by_device(&mut after.$field, &wish.$field);
        )* };
    }
    take_devices!(
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops
    );
    after.restart_policy = policy(before, &wish.restart_policy)?;
    Ok(Change { after, limits })
}

/// Whether a member is there: Go's zero values say nothing.
fn says<T: Default + PartialEq>(member: &T) -> bool {
    *member != T::default()
}

fn contradictions(before: &HostConfig, wish: &HostConfig) -> Result<()> {
    let conflict = |message: &str| Err(EngineError::conflict(message));
    if wish.nano_cpus > 0 && before.cpu_period > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if wish.nano_cpus > 0 && before.cpu_quota > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if wish.cpu_period > 0 && before.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if wish.cpu_quota > 0 && before.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if wish.memory != 0 && wish.memory_swap == 0 && wish.memory > before.memory_swap {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    Ok(())
}

fn policy(before: &HostConfig, wish: &RestartPolicy) -> Result<RestartPolicy> {
    let mut policy = before.restart_policy.clone();
    if !wish.name.is_empty() {
        if before.auto_remove && wish.name != "no" {
            return Err(EngineError::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        policy.name.clone_from(&wish.name);
        policy.maximum_retry_count = wish.maximum_retry_count;
        // Docker's clients do not know the flag; it has no meaning without restarts.
        policy.unhealthy = policy.unhealthy.filter(|_| wish.name != "no");
    }
    policy.unhealthy = wish.unhealthy.or(policy.unhealthy);
    restart::check(&policy, before.auto_remove)?;
    Ok(policy)
}

/// A limit of one device.
trait OfDevice: Clone {
    fn path(&self) -> &str;
    /// Whether it takes the device's limit away.
    fn is_none(&self) -> bool;
}

impl OfDevice for WeightDevice {
    fn path(&self) -> &str {
        &self.path
    }
    fn is_none(&self) -> bool {
        self.weight == 0
    }
}

impl OfDevice for ThrottleDevice {
    fn path(&self) -> &str {
        &self.path
    }
    fn is_none(&self) -> bool {
        self.rate == 0
    }
}

/// Replaces the limits of the devices that are named, and leaves the others'.
fn by_device<T: OfDevice>(list: &mut Option<Vec<T>>, wish: &Option<Vec<T>>) {
    for new in wish.iter().flatten() {
        let list = list.get_or_insert_default();
        list.retain(|old| old.path() != new.path());
        if !new.is_none() {
            list.push(new.clone());
        }
    }
}

/// The members that an update cannot change and that are given all the same.
pub(super) fn ignored(wish: &HostConfig) -> Option<String> {
    let given = [
        ("CgroupParent", !wish.cgroup_parent.is_empty()),
        ("Devices", is_some(&wish.devices)),
        ("DeviceCgroupRules", is_some(&wish.device_cgroup_rules)),
        ("DeviceRequests", is_some(&wish.device_requests)),
        ("Ulimits", is_some(&wish.ulimits)),
        ("Init", wish.init.is_some()),
    ];
    let names: Vec<&str> = given
        .iter()
        .filter(|(_, on)| *on)
        .map(|(n, _)| *n)
        .collect();
    (!names.is_empty()).then(|| format!("An update does not change {}.", names.join(", ")))
}

fn is_some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn limited() -> HostConfig {
        HostConfig {
            memory: 100 * MIB,
            memory_swap: 200 * MIB,
            cpu_shares: 512,
            ..HostConfig::default()
        }
    }

    fn refused(before: &HostConfig, wish: HostConfig) -> String {
        merge(before, &wish).map_or_else(|e| e.message, |_| "accepted".into())
    }

    #[test]
    fn only_what_is_said_changes() {
        let wish = HostConfig {
            cpu_shares: 2048,
            pids_limit: Some(-1),
            cpuset_cpus: "0".into(),
            ..HostConfig::default()
        };
        let change = merge(&limited(), &wish).unwrap();
        assert_eq!(change.after.memory, 100 * MIB);
        assert_eq!(change.after.cpu_shares, 2048);
        assert_eq!(change.after.pids_limit, Some(0));
        assert_eq!(change.after.cpuset_cpus, "0");
        assert_eq!(change.limits.memory, 0);
        assert_eq!(change.limits.cpu_shares, 2048);
    }

    #[test]
    fn memory_and_swap_are_written_together() {
        let wish = HostConfig {
            memory: 150 * MIB,
            ..HostConfig::default()
        };
        let limits = merge(&limited(), &wish).unwrap().limits;
        assert_eq!((limits.memory, limits.memory_swap), (150 * MIB, 200 * MIB));
        let wish = HostConfig {
            memory: 201 * MIB,
            ..HostConfig::default()
        };
        assert!(refused(&limited(), wish.clone()).starts_with("Memory limit should be smaller"));
        assert!(refused(&HostConfig::default(), wish).starts_with("Memory limit should be"));
    }

    #[test]
    fn cpus_and_quota_exclude_each_other() {
        let nano = HostConfig {
            nano_cpus: 500_000_000,
            ..HostConfig::default()
        };
        let quota = HostConfig {
            cpu_quota: 50_000,
            ..HostConfig::default()
        };
        let period = HostConfig {
            cpu_period: 50_000,
            ..HostConfig::default()
        };
        assert!(refused(&nano, quota.clone()).contains("CPU Quota cannot be updated"));
        assert!(refused(&nano, period.clone()).contains("CPU Period cannot be updated"));
        assert!(refused(&quota, nano.clone()).contains("CPU Quota has already"));
        assert!(refused(&period, nano.clone()).contains("CPU Period has already"));
        assert_eq!(refused(&nano, nano.clone()), "accepted");
    }

    #[test]
    fn devices_are_changed_one_by_one() {
        let rate = |path: &str, rate| ThrottleDevice {
            path: path.into(),
            rate,
        };
        let before = HostConfig {
            blkio_device_read_bps: Some(vec![rate("/dev/a", 1), rate("/dev/b", 2)]),
            ..HostConfig::default()
        };
        let wish = HostConfig {
            blkio_device_read_bps: Some(vec![rate("/dev/a", 0), rate("/dev/c", 3)]),
            ..HostConfig::default()
        };
        let change = merge(&before, &wish).unwrap();
        assert_eq!(
            change.after.blkio_device_read_bps,
            Some(vec![rate("/dev/b", 2), rate("/dev/c", 3)])
        );
        assert_eq!(
            change.limits.blkio_device_read_bps,
            wish.blkio_device_read_bps
        );
    }

    #[test]
    fn policies() {
        let always = HostConfig {
            restart_policy: RestartPolicy {
                name: "always".into(),
                ..RestartPolicy::default()
            },
            ..HostConfig::default()
        };
        let after = merge(&limited(), &always).unwrap().after;
        assert_eq!(after.restart_policy.name, "always");
        let kept = merge(&after, &HostConfig::default()).unwrap().after;
        assert_eq!(kept.restart_policy.name, "always");
        let unhealthy = |name: &str, unhealthy| HostConfig {
            restart_policy: RestartPolicy {
                name: name.into(),
                maximum_retry_count: 0,
                unhealthy,
            },
            ..HostConfig::default()
        };
        let after = merge(&after, &unhealthy("", Some(true))).unwrap().after;
        assert_eq!(after.restart_policy.name, "always");
        let after = merge(&after, &unhealthy("unless-stopped", None)).unwrap();
        assert_eq!(after.after.restart_policy.unhealthy, Some(true));
        let after = merge(&after.after, &unhealthy("no", None)).unwrap().after;
        assert_eq!(after.restart_policy.unhealthy, None);
        assert!(refused(&limited(), unhealthy("", Some(true))).contains("when unhealthy needs"));
        let transient = HostConfig {
            auto_remove: true,
            ..HostConfig::default()
        };
        assert_eq!(
            refused(&transient, always),
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        );
    }

    #[test]
    fn what_is_ignored_is_said() {
        assert_eq!(ignored(&limited()), None);
        let wish = HostConfig {
            cgroup_parent: "/x".into(),
            ..limited()
        };
        assert_eq!(
            ignored(&wish).unwrap(),
            "An update does not change CgroupParent."
        );
    }
}
