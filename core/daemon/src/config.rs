//! The engine's configuration: flags and file merged, typed, checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gantry_wire::spec::Ulimit;
use serde::Deserialize;
use serde_json::Value;

use crate::file;
use crate::flags::Flags;
use crate::options::{Effect, by_key};
use crate::{registries, values};

/// The configuration file that is read when none is named; it need not exist.
pub(crate) const DEFAULT_FILE: &str = "/etc/gantry/daemon.json";

/// A configuration that cannot be used, in dockerd's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read or is wrong in itself or together with the flags.
    #[error("unable to configure the Docker daemon with file {path}: {reason}")]
    File { path: String, reason: String },
    /// A value is wrong.
    #[error("{0}")]
    Value(String),
}

/// A range of addresses from which networks get their subnets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AddressPool {
    #[serde(alias = "Base")]
    pub(crate) base: String,
    #[serde(alias = "Size")]
    pub(crate) size: u8,
}

/// A foreign OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuntimeEntry {
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) runtime_args: Vec<String>,
    #[serde(default)]
    pub(crate) runtime_type: String,
}

/// Proxies as the file has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Proxies {
    pub(crate) http_proxy: String,
    pub(crate) https_proxy: String,
    pub(crate) no_proxy: String,
}

/// Everything the daemon acts on. Fields are named after the keys of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Config {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) hosts: Vec<String>,
    pub(crate) group: String,
    pub(crate) tls: bool,
    pub(crate) tlsverify: bool,
    pub(crate) tlscacert: String,
    pub(crate) tlscert: String,
    pub(crate) tlskey: String,
    pub(crate) debug: bool,
    pub(crate) log_level: String,
    pub(crate) log_format: String,
    pub(crate) raw_logs: bool,
    pub(crate) min_api_version: String,
    pub(crate) labels: Vec<String>,
    pub(crate) experimental: bool,
    pub(crate) features: BTreeMap<String, Value>,
    pub(crate) default_runtime: String,
    pub(crate) runtimes: BTreeMap<String, RuntimeEntry>,
    pub(crate) exec_opts: Vec<String>,
    pub(crate) cgroup_parent: String,
    pub(crate) default_cgroupns_mode: String,
    pub(crate) default_ipc_mode: String,
    pub(crate) default_shm_size: Value,
    pub(crate) default_ulimits: BTreeMap<String, Ulimit>,
    pub(crate) default_stop_timeout: i64,
    pub(crate) shutdown_timeout: i64,
    pub(crate) live_restore: Option<bool>,
    pub(crate) init: bool,
    pub(crate) init_path: String,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp_profile: String,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) storage_driver: String,
    pub(crate) storage_opts: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    /// Where certificates and `hosts.toml` of registries are; empty: the usual places.
    pub(crate) registry_config_dirs: Vec<PathBuf>,
    pub(crate) max_concurrent_downloads: i64,
    pub(crate) max_concurrent_uploads: i64,
    pub(crate) max_download_attempts: i64,
    pub(crate) proxies: Proxies,
    pub(crate) http_proxy: String,
    pub(crate) https_proxy: String,
    pub(crate) no_proxy: String,
    pub(crate) bridge: String,
    pub(crate) bip: String,
    pub(crate) bip6: String,
    pub(crate) fixed_cidr: String,
    pub(crate) fixed_cidr_v6: String,
    pub(crate) default_gateway: Option<IpAddr>,
    pub(crate) default_gateway_v6: Option<IpAddr>,
    pub(crate) ipv6: bool,
    pub(crate) icc: bool,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) ip_masq: bool,
    pub(crate) ip_forward: bool,
    pub(crate) iptables: bool,
    pub(crate) ip6tables: bool,
    pub(crate) userland_proxy: bool,
    pub(crate) published_ports_obey_input: bool,
    pub(crate) published_ports_shortcut: bool,
    pub(crate) allow_direct_routing: bool,
    pub(crate) mtu: i64,
    pub(crate) default_address_pools: Vec<AddressPool>,
    pub(crate) default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) dns_opts: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) host_gateway_ips: Vec<IpAddr>,
    pub(crate) resolv_conf: String,
    pub(crate) oom_score_adjust: i64,
    pub(crate) userns_remap: String,
    pub(crate) cdi_spec_dirs: Vec<String>,
    /// By kind: a driver's name, or an object of driver names with their options.
    pub(crate) drivers: Value,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_root: "/var/lib/gantry".into(),
            exec_root: "/run/gantry".into(),
            pidfile: PathBuf::new(),
            hosts: Vec::new(),
            group: "docker".into(),
            tls: false,
            tlsverify: false,
            tlscacert: String::new(),
            tlscert: String::new(),
            tlskey: String::new(),
            debug: false,
            log_level: "info".into(),
            log_format: "text".into(),
            raw_logs: false,
            min_api_version: String::new(),
            labels: Vec::new(),
            experimental: false,
            features: BTreeMap::new(),
            default_runtime: String::new(),
            runtimes: BTreeMap::new(),
            exec_opts: Vec::new(),
            cgroup_parent: String::new(),
            default_cgroupns_mode: String::new(),
            default_ipc_mode: "private".into(),
            default_shm_size: Value::Null,
            default_ulimits: BTreeMap::new(),
            default_stop_timeout: 10,
            shutdown_timeout: 15,
            live_restore: None,
            init: false,
            init_path: String::new(),
            no_new_privileges: false,
            seccomp_profile: String::new(),
            log_driver: "json-file".into(),
            log_opts: BTreeMap::new(),
            storage_driver: String::new(),
            storage_opts: Vec::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            registry_config_dirs: Vec::new(),
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            proxies: Proxies::default(),
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            bridge: String::new(),
            bip: String::new(),
            bip6: String::new(),
            fixed_cidr: String::new(),
            fixed_cidr_v6: String::new(),
            default_gateway: None,
            default_gateway_v6: None,
            ipv6: false,
            icc: true,
            ip: None,
            ip_masq: true,
            ip_forward: true,
            iptables: true,
            ip6tables: true,
            userland_proxy: true,
            published_ports_obey_input: false,
            published_ports_shortcut: true,
            allow_direct_routing: false,
            mtu: 1500,
            default_address_pools: Vec::new(),
            default_network_opts: BTreeMap::new(),
            dns: Vec::new(),
            dns_opts: Vec::new(),
            dns_search: Vec::new(),
            host_gateway_ips: Vec::new(),
            resolv_conf: String::new(),
            oom_score_adjust: 0,
            userns_remap: String::new(),
            cdi_spec_dirs: Vec::new(),
            drivers: Value::Null,
        }
    }
}

impl Config {
    /// Merges flags and file.
    ///
    /// # Errors
    /// In dockerd's words: unknown keys, keys given twice, wrong types, wrong values.
    pub(crate) fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (path, required) = match &flags.config_file {
            Some(path) => (path.as_str(), true),
            None => (DEFAULT_FILE, false),
        };
        let file = file::read(Path::new(path), required).map_err(|reason| ConfigError::File {
            path: path.into(),
            reason,
        })?;
        let merged = file::merge(&flags.given, file).map_err(|reason| ConfigError::File {
            path: path.into(),
            reason,
        })?;
        let config: Self =
            serde_path_to_error::deserialize(Value::Object(merged)).map_err(|e| {
                ConfigError::File {
                    path: path.into(),
                    reason: e.to_string(),
                }
            })?;
        config.check()?;
        Ok(config)
    }

    /// Default size of `/dev/shm`; `None`: the engine's default.
    pub(crate) fn shm_size(&self) -> Result<Option<u64>, ConfigError> {
        match &self.default_shm_size {
            Value::Null => Ok(None),
            Value::Number(n) => n
                .as_u64()
                .map(Some)
                .ok_or_else(|| ConfigError::Value(format!("invalid default-shm-size: {n}"))),
            Value::String(text) => values::bytes(text).map(Some).map_err(ConfigError::Value),
            other => Err(ConfigError::Value(format!(
                "invalid default-shm-size: {other}"
            ))),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |message: String| Err(ConfigError::Value(message));
        for label in &self.labels {
            if !label.contains('=') || label.starts_with('=') {
                return fail(format!("bad attribute format: {label}"));
            }
        }
        if !matches!(
            self.log_level.as_str(),
            "debug" | "info" | "warn" | "error" | "fatal"
        ) {
            return fail(format!("invalid logging level: {}", self.log_level));
        }
        if !matches!(self.log_format.as_str(), "text" | "json") {
            return fail(format!("invalid log format: {}", self.log_format));
        }
        for (name, value) in [
            ("max concurrent downloads", self.max_concurrent_downloads),
            ("max concurrent uploads", self.max_concurrent_uploads),
            ("default MTU", self.mtu),
        ] {
            if value < 0 {
                return fail(format!("invalid {name}: {value}"));
            }
        }
        if self.max_download_attempts < 1 {
            return fail(format!(
                "invalid max download attempts: {}",
                self.max_download_attempts
            ));
        }
        if !matches!(self.default_ipc_mode.as_str(), "" | "private" | "shareable") {
            return fail(format!(
                "default IPC mode must be \"private\" or \"shareable\", not {:?}",
                self.default_ipc_mode
            ));
        }
        if !matches!(self.default_cgroupns_mode.as_str(), "" | "private" | "host") {
            return fail(format!(
                "default cgroup namespace mode must be \"private\" or \"host\", not {:?}",
                self.default_cgroupns_mode
            ));
        }
        for option in &self.exec_opts {
            self.check_exec_opt(option)?;
        }
        if !self.bridge.is_empty() && !self.bip.is_empty() && self.bridge != "none" {
            return fail(
                "You specified -b & --bip, mutually exclusive options. Please specify only one"
                    .into(),
            );
        }
        registries::shown(self)?;
        self.shm_size().map(drop)
    }

    fn check_exec_opt(&self, option: &str) -> Result<(), ConfigError> {
        match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs")) => Ok(()),
            Some(("native.cgroupdriver", driver)) => Err(ConfigError::Value(format!(
                "native.cgroupdriver option {driver} is not supported; only cgroupfs is"
            ))),
            _ => Err(ConfigError::Value(format!("invalid exec option: {option}"))),
        }
    }
}

/// The notices about options that are accepted without effect.
pub(crate) fn notices(keys: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    keys.filter_map(|key| match by_key(key.as_ref())?.effect {
        Effect::Ignored(why) => Some(format!("option {:?} has no effect: {why}", key.as_ref())),
        _ => None,
    })
    .collect()
}

/// Keys of the file, for notices; empty when it cannot be read (which [`Config::load`] reports).
pub(crate) fn file_keys(flags: &Flags) -> Vec<String> {
    let path = flags.config_file.as_deref().unwrap_or(DEFAULT_FILE);
    file::read(Path::new(path), false)
        .map(|file| file.keys().cloned().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(line: &str, file: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(&path, file).unwrap();
        let line = format!("gantryd {line} --config-file {}", path.display());
        let matches = crate::flags::command().get_matches_from(line.split_whitespace());
        Config::load(&crate::flags::read(&matches))
    }

    fn reason(line: &str, file: &str) -> String {
        match load(line, file) {
            Err(ConfigError::File { reason, .. }) => reason,
            Err(ConfigError::Value(reason)) => reason,
            Ok(_) => panic!("accepted: {line} {file}"),
        }
    }

    #[test]
    fn defaults_and_merge() {
        assert_eq!(load("", "").unwrap(), Config::default());
        let config = load(
            "-H unix:///a --icc=false --add-runtime a=/a",
            r#"{"debug": true, "runtimes": {"b": {"path": "/b"}}, "default-shm-size": "1k", "dns": ["1.1.1.1"],
               "builder": {"gc": {"enabled": true}}, "live-restore": false, "drivers": {"storage": "overlayfs"}}"#,
        )
        .unwrap();
        assert_eq!(config.hosts, ["unix:///a"]);
        assert_eq!(config.runtimes.len(), 2);
        assert_eq!(config.shm_size(), Ok(Some(1024)));
        assert_eq!(config.live_restore, Some(false));
        assert!(config.debug && !config.icc);
    }

    #[test]
    fn refusals() {
        assert_eq!(
            reason("", r#"{"nonsense": 1, "x": 2}"#),
            "the following directives don't match any configuration option: nonsense, x"
        );
        assert_eq!(
            reason(
                "--debug -H fd://",
                r#"{"debug": false, "hosts": ["unix:///a"]}"#
            ),
            "the following directives are specified both as a flag and in the configuration file: \
             debug: (from flag: true, from file: false), hosts: (from flag: [fd://], from file: [unix:///a])"
        );
        assert!(reason("", "{").starts_with("invalid JSON"));
        assert!(reason("", r#"{"mtu": "x"}"#).contains("invalid type"));
        assert_eq!(reason("-l loud", ""), "invalid logging level: loud");
        assert_eq!(reason("--mtu -1", ""), "invalid default MTU: -1");
        assert_eq!(
            reason("--selinux-enabled", ""),
            "selinux-enabled is not supported by this engine"
        );
        assert!(load("--selinux-enabled=false", "").is_ok());
    }

    #[test]
    fn missing_file() {
        let matches =
            crate::flags::command().get_matches_from(["gantryd", "--config-file", "/nonexistent"]);
        let error = Config::load(&crate::flags::read(&matches)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to configure the Docker daemon with file /nonexistent: open /nonexistent: no such file or directory"
        );
    }

    #[test]
    fn told_about_what_has_no_effect() {
        let told = notices(["userland-proxy-path", "debug", "containerd"].iter());
        assert_eq!(told.len(), 2);
        assert!(told[1].contains("without containerd"));
    }
}
