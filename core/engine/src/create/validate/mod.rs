//! Requests that make no sense are refused here, in Docker's words.

mod adjust;
mod network;
mod resources;

pub(crate) use adjust::adjust;
pub(crate) use network::{network_mode, network_warnings};

use gantry_model::container::{ContainerConfig, HostConfig, RestartPolicy};
use gantry_runtime::spec::SpecError;
use gantry_sys::caps;
use gantry_sys::host::HostFacts;

use crate::container::restart;
use crate::{EngineError, Result, signal};

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(EngineError::bad_request(message))
}

impl From<SpecError> for EngineError {
    fn from(error: SpecError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// Checks the portable part.
pub(crate) fn config(config: &ContainerConfig) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return invalid(format!("invalid environment variable: {variable}"));
        }
    }
    // HOST_NAME_MAX of the kernel.
    if config.hostname.len() > 64 {
        return invalid(format!("invalid hostname format: {}", config.hostname));
    }
    if let Some(check) = &config.healthcheck {
        health(check)?;
    }
    Ok(())
}

fn health(check: &gantry_model::container::HealthConfig) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if check.retries < 0 {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    crate::life::check_test(&check.test)
}

/// Checks the part that depends on the host.
pub(crate) fn host_config(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    restart::check(&host.restart_policy, host.auto_remove)?;
    modes(host)?;
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    for entry in host.extra_hosts.iter().flatten() {
        extra_host(entry)?;
    }
    capabilities(host, facts)?;
    for key in host.storage_opt.keys() {
        if key != "size" {
            return invalid(format!("Unknown option {key}"));
        }
    }
    resources::check(host, facts)
}

/// Checks what of a host configuration an update can change.
pub(crate) fn limits(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    // Whether bad health fits is known with the policy there is.
    let policy = RestartPolicy {
        unhealthy: None,
        ..host.restart_policy.clone()
    };
    restart::check(&policy, false)?;
    resources::check(host, facts)
}

/// Words that choose namespaces.
fn modes(host: &HostConfig) -> Result<()> {
    if !matches!(host.isolation.to_ascii_lowercase().as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation: {:?} - linux only supports 'default'",
            host.isolation
        ));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return invalid(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        ));
    }
    let joined = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|c| !c.is_empty())
    };
    if !matches!(host.pid_mode.as_str(), "" | "host") && !joined(&host.pid_mode) {
        return invalid(format!("invalid PID mode: {}", host.pid_mode));
    }
    if !matches!(
        host.ipc_mode.as_str(),
        "" | "host" | "none" | "private" | "shareable"
    ) && !joined(&host.ipc_mode)
    {
        return invalid(format!("invalid IPC mode: {}", host.ipc_mode));
    }
    Ok(())
}

fn extra_host(entry: &str) -> Result<()> {
    let (name, address) = entry.split_once([':', '=']).unwrap_or((entry, ""));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || address.is_empty() {
        return invalid(format!("bad format for add-host: {entry:?}"));
    }
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return invalid(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(())
}

fn capabilities(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    let list = |words: &Option<gantry_model::container::StrSlice>| {
        words.as_ref().map(|w| w.0.clone()).unwrap_or_default()
    };
    let (add, drop) = (list(&host.cap_add), list(&host.cap_drop));
    let base = caps::CapSet::docker_default();
    caps::tweak(base, &add, &[], facts.bounding_set)
        .map_err(|e| EngineError::bad_request(format!("invalid CapAdd: {e}")))?;
    caps::tweak(base, &[], &drop, facts.bounding_set)
        .map_err(|e| EngineError::bad_request(format!("invalid CapDrop: {e}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn refused(change: impl FnOnce(&mut ContainerConfig, &mut HostConfig)) -> String {
        let (mut config, mut host) = (ContainerConfig::default(), HostConfig::default());
        change(&mut config, &mut host);
        let facts = HostFacts::probe(Path::new("/proc"), Path::new("/sys")).unwrap();
        super::config(&config)
            .and_then(|()| network_mode(&config, &host))
            .and_then(|()| host_config(&host, &facts))
            .map_or_else(|e| e.message, |()| "accepted".into())
    }

    #[test]
    fn dockers_words() {
        assert_eq!(refused(|_, _| {}), "accepted");
        assert_eq!(
            refused(|_, h| h.memory = 1 << 20),
            "Minimum memory limit allowed is 6MB"
        );
        assert_eq!(
            refused(|_, h| h.memory_swap = 1 << 30),
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        );
        assert!(refused(|_, h| h.nano_cpus = 10_000_000_000_000).starts_with("Range of CPUs"));
        assert!(refused(|_, h| h.cpuset_cpus = "8000".into()).starts_with("Requested CPUs"));
        assert_eq!(
            refused(|_, h| h.cpuset_mems = "x".into()),
            "Invalid value x for cpuset mems: invalid format: x"
        );
        assert!(refused(|_, h| h.cpuset_mems = "77".into()).starts_with("Requested memory nodes"));
        assert_eq!(
            refused(|_, h| h.cpu_shares = 1),
            "the minimum allowed cpu-shares is 2"
        );
        assert_eq!(
            refused(|_, h| h.io_maximum_iops = 1),
            "invalid QoS settings: linux does not support configuration of maximum IOPs"
        );
        assert_eq!(
            refused(|c, h| {
                c.hostname = "h".into();
                h.network_mode = "container:x".into();
            }),
            "conflicting options: hostname and the network mode"
        );
        assert_eq!(
            refused(|_, h| h.cap_add = Some(["CAP_FLY"].into_iter().collect())),
            "invalid CapAdd: unknown capability: \"CAP_FLY\""
        );
        assert_eq!(
            refused(|c, _| c.working_dir = "x".into()),
            "the working directory 'x' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            refused(|c, _| c.stop_signal = "SIGX".into()),
            "invalid signal: SIGX"
        );
    }
}
