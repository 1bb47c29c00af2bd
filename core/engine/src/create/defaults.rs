//! What a request leaves open.

use gantry_model::container::HostConfig;
use gantry_runtime::spec::{default_masked_paths, default_readonly_paths};
use gantry_sys::cgroup::Mode;

use crate::{Engine, EngineError, Result};

impl Engine {
    /// Fills in what the request leaves to the engine, and replaces names of containers by identifiers.
    pub(super) fn defaults(&self, host: &mut HostConfig) -> Result<()> {
        let config = self.config.load();
        if matches!(host.network_mode.as_str(), "" | "default") {
            host.network_mode = "bridge".into();
        }
        for (mode, needed) in [
            // A network's owner may come later: its start says what is missing.
            (&mut host.network_mode, false),
            (&mut host.ipc_mode, true),
            (&mut host.pid_mode, true),
        ] {
            if let Some(name) = mode.strip_prefix("container:").filter(|n| !n.is_empty()) {
                match self.find(name) {
                    Ok(found) => *mode = format!("container:{}", found.id),
                    Err(error) if needed => return Err(super::in_request(error)),
                    Err(_) => {}
                }
            }
        }
        if host.ipc_mode.is_empty() {
            host.ipc_mode.clone_from(&config.ipc_mode);
        }
        if host.cgroupns_mode.is_empty() {
            let v2 = self.services.runtime.host().cgroup_mode() == Some(Mode::V2);
            host.cgroupns_mode = match (config.cgroupns_mode.as_str(), v2) {
                ("", true) if !host.privileged => "private".into(),
                ("", _) => "host".into(),
                (mode, _) => mode.to_owned(),
            };
        }
        if !host.privileged {
            host.masked_paths
                .get_or_insert_with(|| default_masked_paths("/sys".as_ref()));
            host.readonly_paths
                .get_or_insert_with(default_readonly_paths);
        }
        if self.services.runtime.host().cgroup_mode() != Some(Mode::V2) {
            host.oom_kill_disable.get_or_insert(false);
        }
        host.links = host.links.take().filter(|links| !links.is_empty());
        host.mounts = host.mounts.take().filter(|mounts| !mounts.is_empty());
        if host.shm_size == 0 {
            host.shm_size = config.shm_size;
        }
        if host.memory > 0 && host.memory_swap == 0 {
            host.memory_swap = host.memory.saturating_mul(2);
        }
        if host.restart_policy.name.is_empty() {
            host.restart_policy.name = "no".into();
        }
        if host.runtime.is_empty() {
            host.runtime = config.runtime().unwrap_or("gantry").to_owned();
        } else if host.runtime != "gantry" && !config.runtimes.contains_key(&host.runtime) {
            return Err(EngineError::bad_request(format!(
                "unknown or invalid runtime name: {}",
                host.runtime
            )));
        }
        let log = &mut host.log_config;
        if log.kind.is_empty() {
            log.kind.clone_from(&config.log_driver);
        }
        // Options are of a driver, but those of the local copy are of all.
        let same = log.kind == config.log_driver;
        for (name, value) in &config.log_opts {
            if same || name.starts_with("cache-") {
                log.config
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        Ok(())
    }
}

/// `10m`, `1g`, `512`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match lower[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("1k"), Some(1024));
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        assert_eq!(bytes("x"), None);
        assert_eq!(bytes("1x"), None);
    }
}
