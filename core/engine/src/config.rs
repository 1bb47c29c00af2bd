//! What the daemon decides for the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_model::container::Ulimit;
use gantry_wire::system;

pub use crate::userns::UsernsConfig;

/// The default filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompDefault {
    /// Docker's profile.
    #[default]
    Builtin,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// Roots, defaults of new containers, and what `info` shows.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Persistent state.
    pub data_root: PathBuf,
    /// State that may vanish with a reboot.
    pub exec_root: PathBuf,
    /// Changes whenever the machine boots.
    pub boot_id: String,
    /// Version of the engine.
    pub version: String,
    /// Identifies this engine to clients.
    pub engine_id: String,
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Logs for debugging.
    pub debug: bool,
    /// Reports experimental features as on.
    pub experimental: bool,
    /// Name of the runtime for containers that name none; empty or `gantry`: the engine's own.
    pub default_runtime: String,
    /// Foreign runtimes, for `info`.
    pub runtimes: BTreeMap<String, system::Runtime>,
    /// Log driver for containers that name none.
    pub log_driver: String,
    /// Its options.
    pub log_opts: BTreeMap<String, String>,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// `private`, `host` or empty: what the cgroup version suggests.
    pub cgroupns_mode: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: i64,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Seconds from the stop signal to SIGKILL.
    pub stop_timeout: i64,
    /// Whether containers get an init.
    pub init: bool,
    /// The init program.
    pub init_path: Option<PathBuf>,
    /// Whether processes may never gain privileges.
    pub no_new_privileges: bool,
    /// Filter of system calls.
    pub seccomp: SeccompDefault,
    /// Directories of CDI specifications; none: no devices by name.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// User namespaces.
    pub userns: UsernsConfig,
    /// Containers outlive the daemon.
    pub live_restore: bool,
    /// Seconds that containers get when the daemon takes them with it.
    pub shutdown_timeout: i64,
    /// For `info`.
    pub registry: system::RegistryServiceConfig,
    /// For `info`.
    pub address_pools: Vec<system::AddressPool>,
    /// For `info`: proxies for HTTP, HTTPS, and exceptions.
    pub proxies: [String; 3],
}

impl EngineConfig {
    /// Docker's defaults for an engine on these roots.
    #[must_use]
    pub fn new(data_root: PathBuf, exec_root: PathBuf, boot_id: String) -> Self {
        Self {
            data_root,
            exec_root,
            boot_id,
            version: env!("CARGO_PKG_VERSION").into(),
            engine_id: String::new(),
            labels: Vec::new(),
            debug: false,
            experimental: false,
            default_runtime: String::new(),
            runtimes: BTreeMap::new(),
            log_driver: "json-file".into(),
            log_opts: BTreeMap::new(),
            ipc_mode: "private".into(),
            cgroupns_mode: String::new(),
            shm_size: 64 << 20,
            ulimits: Vec::new(),
            stop_timeout: 10,
            init: false,
            init_path: None,
            no_new_privileges: false,
            seccomp: SeccompDefault::default(),
            cdi_spec_dirs: gantry_runtime::cdi::DEFAULT_DIRS.map(PathBuf::from).into(),
            userns: UsernsConfig::default(),
            live_restore: true,
            shutdown_timeout: 15,
            registry: system::RegistryServiceConfig::default(),
            address_pools: Vec::new(),
            proxies: Default::default(),
        }
    }
    /// The runtime that a container without a wish gets; `None`: the engine's own.
    #[must_use]
    pub fn runtime(&self) -> Option<&str> {
        Some(self.default_runtime.as_str()).filter(|name| !matches!(*name, "" | "gantry"))
    }
}
