//! What a request leaves open, and log drivers.

use std::collections::BTreeMap;

use gantry_model::container::HostConfig;
use gantry_runtime::LogTarget;
use gantry_runtime::spec::{default_masked_paths, default_readonly_paths};
use gantry_sys::cgroup::Mode;

use crate::container::record::Record;
use crate::{Engine, EngineError, Result};

/// Options that every log driver takes; those about labels and tags change nothing in what is written.
const COMMON: &[&str] = &[
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "max-buffer-size",
    "mode",
    "tag",
];

impl Engine {
    /// Fills in what the request leaves to the engine, and replaces names of containers by identifiers.
    pub(super) fn defaults(&self, host: &mut HostConfig) -> Result<()> {
        let config = self.config.load();
        if matches!(host.network_mode.as_str(), "" | "default") {
            host.network_mode = "bridge".into();
        }
        for mode in [
            &mut host.network_mode,
            &mut host.ipc_mode,
            &mut host.pid_mode,
        ] {
            if let Some(name) = mode.strip_prefix("container:").filter(|n| !n.is_empty()) {
                *mode = format!("container:{}", self.find(name)?.id);
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
        if log.kind == config.log_driver {
            for (name, value) in &config.log_opts {
                log.config
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        Ok(())
    }

    /// Checks the log driver and its options.
    pub(super) fn check_log(&self, host: &HostConfig) -> Result<()> {
        check_log_driver(&host.log_config.kind, &host.log_config.config)
    }

    /// Where a container's output goes; `None`: nowhere.
    pub(crate) fn log_target(&self, record: &Record) -> Result<Option<LogTarget>> {
        let log = &record.host_config.log_config;
        let Some(limits) = log_limits(&log.kind, &log.config)? else {
            return Ok(None);
        };
        Ok(Some(LogTarget {
            path: self.log_path(&record.id),
            max_size: limits.max_size,
            max_files: limits.max_files,
            attrs: super::attrs::of(record)?,
        }))
    }
}

/// Checks a log driver and its options.
///
/// # Errors
/// Drivers and options that there are not.
pub fn check_log_driver(driver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    super::attrs::check(options)?;
    log_limits(driver, options).map(drop)
}

/// How large a log may grow.
struct Limits {
    max_size: Option<u64>,
    max_files: u32,
}

fn log_limits(driver: &str, options: &BTreeMap<String, String>) -> Result<Option<Limits>> {
    let (max_size, max_files) = match driver {
        "none" => return Ok(None),
        "json-file" => (None, 1),
        "local" => (Some(20 << 20), 5),
        other => {
            return Err(EngineError::bad_request(format!(
                "logger: no log driver named '{other}' is registered"
            )));
        }
    };
    let mut limits = Limits {
        max_size,
        max_files,
    };
    for (name, value) in options {
        let bad =
            || EngineError::bad_request(format!("invalid value for log opt {name}: {value:?}"));
        match name.as_str() {
            "max-size" => limits.max_size = Some(bytes(value).filter(|b| *b > 0).ok_or_else(bad)?),
            "max-file" => {
                limits.max_files =
                    value.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                        EngineError::bad_request("max-file cannot be less than 1")
                    })?;
            }
            "compress" => drop(value.parse::<bool>().map_err(|_| bad())?),
            "mode" if !matches!(value.as_str(), "blocking" | "non-blocking") => {
                return Err(EngineError::bad_request(format!(
                    "logger: logging mode not supported: {value}"
                )));
            }
            name if COMMON.contains(&name) => {}
            name => {
                return Err(EngineError::bad_request(format!(
                    "unknown log opt '{name}' for {driver} log driver"
                )));
            }
        }
    }
    if driver == "json-file" && limits.max_size.is_none() && limits.max_files > 1 {
        return Err(EngineError::bad_request(
            "cannot set max-file option without max-size option",
        ));
    }
    Ok(Some(limits))
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

    fn limits(driver: &str, options: &[(&str, &str)]) -> Result<Option<(Option<u64>, u32)>> {
        let options = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Ok(log_limits(driver, &options)?.map(|l| (l.max_size, l.max_files)))
    }

    #[test]
    fn log_options() {
        assert_eq!(limits("none", &[]).unwrap(), None);
        assert_eq!(limits("json-file", &[]).unwrap(), Some((None, 1)));
        assert_eq!(
            limits(
                "json-file",
                &[("max-size", "10m"), ("max-file", "3"), ("tag", "x")]
            )
            .unwrap(),
            Some((Some(10 << 20), 3))
        );
        assert_eq!(limits("local", &[]).unwrap(), Some((Some(20 << 20), 5)));
        for (driver, options, want) in [
            (
                "nope",
                &[][..],
                "logger: no log driver named 'nope' is registered",
            ),
            (
                "json-file",
                &[("x", "y")],
                "unknown log opt 'x' for json-file log driver",
            ),
            (
                "json-file",
                &[("max-file", "2")],
                "cannot set max-file option without max-size option",
            ),
            (
                "json-file",
                &[("max-file", "0")],
                "max-file cannot be less than 1",
            ),
        ] {
            assert_eq!(limits(driver, options).unwrap_err().message, want);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("1k"), Some(1024));
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        assert_eq!(bytes("x"), None);
        assert_eq!(bytes("1x"), None);
    }
}
