//! What `docker info` shows.

use std::time::Duration;

use futures_util::future::join_all;
use gantry_driver_api::{Call, Health, Kind};
use gantry_driver_registry as registry;
use gantry_model::Timestamp;
use gantry_sys::cgroup::Mode;
use gantry_wire::SystemInfo;
use gantry_wire::system::{
    DeviceInfo, FirewallInfo, PluginsInfo, RateLimit, RegistryServiceConfig,
};

use crate::Engine;
use crate::container::record::Phase;
use crate::engine::blocking;

/// How long a driver may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// What `docker info` shows.
    pub async fn info(&self) -> SystemInfo {
        let mut info = SystemInfo {
            plugins: PluginsInfo {
                volume: self.driver_names(Kind::Volume),
                network: self.driver_names(Kind::Network),
                authorization: None,
                log: gantry_logs::DRIVERS
                    .iter()
                    .map(|d| (*d).to_owned())
                    .collect(),
            },
            index_server_address: "https://index.docker.io/v1/".into(),
            firewall_backend: Some(FirewallInfo {
                driver: "nftables".into(),
                info: Vec::new(),
            }),
            n_events_listener: i64::try_from(self.events.listeners()).unwrap_or(0),
            ..SystemInfo::default()
        };
        self.configured(&mut info);
        self.measured(&mut info);
        self.counted(&mut info);
        let dirs = self.config.load().cdi_spec_dirs.clone();
        let devices = blocking(move || gantry_runtime::cdi::Devices::discover(&dirs)).await;
        let devices = devices.unwrap_or_default();
        info.discovered_devices = devices
            .names()
            .map(|name| DeviceInfo {
                source: "cdi".into(),
                id: name.to_owned(),
            })
            .collect();
        let images = self.services.images.clone();
        let images = blocking(move || images.list(&gantry_image::ListQuery::default())).await;
        let images = images.map_or(0, |list| list.map_or(0, |list| list.len()));
        info.images = i64::try_from(images).unwrap_or(i64::MAX);
        (info.driver, info.driver_status) = self.storage_status().await;
        let mut warnings = self.warnings();
        warnings.extend(self.complaints().await);
        info.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
        info
    }

    /// What the configuration says.
    fn configured(&self, info: &mut SystemInfo) {
        let config = self.config.load_full();
        info.id.clone_from(&config.engine_id);
        info.debug = config.debug;
        info.logging_driver.clone_from(&config.log_driver);
        info.registry_config = Some(self.registries());
        info.docker_root_dir = config.data_root.to_string_lossy().into_owned();
        [info.http_proxy, info.https_proxy, info.no_proxy] = config.proxies.clone();
        info.labels.clone_from(&config.labels);
        info.experimental_build = config.experimental;
        info.server_version.clone_from(&config.version);
        info.runtimes.clone_from(&config.runtimes);
        info.default_runtime = config.runtime().unwrap_or("gantry").into();
        info.live_restore_enabled = config.live_restore;
        info.init_binary = config
            .init_path
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        info.default_address_pools.clone_from(&config.address_pools);
        info.security_options = security(self.services.runtime.host(), &config.seccomp);
        let dirs = &config.cdi_spec_dirs;
        info.cdi_spec_dirs = dirs.iter().map(|d| d.display().to_string()).collect();
        if config.userns.remap.is_some() {
            info.security_options.push("name=userns".to_owned());
        }
    }

    /// How registries are spoken to, and what they last said.
    fn registries(&self) -> RegistryServiceConfig {
        let limits = self.services.images.rate_limits().into_iter();
        let shown = |limit: gantry_image::RateLimit| RateLimit {
            limit: limit.limit,
            remaining: limit.remaining,
            window: limit.window,
            source: limit.source,
            told: limit.told.to_string(),
        };
        RegistryServiceConfig {
            rate_limits: limits.map(|(name, limit)| (name, shown(limit))).collect(),
            ..self.config.load().registry.clone()
        }
    }

    /// What the host is like.
    fn measured(&self, info: &mut SystemInfo) {
        let facts = self.services.runtime.host();
        let cgroups = facts.cgroup_mode();
        let limits = cgroups.is_some();
        info.memory_limit = limits;
        info.swap_limit = limits;
        info.cpu_cfs_period = limits;
        info.cpu_cfs_quota = limits;
        info.cpu_shares = limits;
        info.cpu_set = limits;
        info.pids_limit = limits;
        info.oom_kill_disable = cgroups.is_some_and(|mode| mode != Mode::V2);
        info.cgroup_driver = if limits { "cgroupfs" } else { "none" }.into();
        info.cgroup_version = cgroups.map_or("", Mode::version).into();
        info.ipv4_forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .is_ok_and(|text| text.trim() == "1");
        info.n_fd = entries("/proc/self/fd");
        // Threads of this process: what the API calls goroutines is of no use to us.
        info.n_goroutines = entries("/proc/self/task");
        info.system_time = Timestamp::now().to_string();
        info.kernel_version.clone_from(&facts.kernel_release);
        info.operating_system = os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".into());
        info.os_version = os_release("VERSION_ID").unwrap_or_default();
        info.os_type = "linux".into();
        info.architecture.clone_from(&facts.machine);
        info.n_cpu = i64::try_from(facts.cpus).unwrap_or(0);
        info.mem_total = i64::try_from(facts.memory_total).unwrap_or(i64::MAX);
        info.name.clone_from(&facts.hostname);
    }

    fn counted(&self, info: &mut SystemInfo) {
        for container in self.containers.all() {
            info.containers += 1;
            match container.record().state.phase {
                Phase::Running | Phase::Restarting => info.containers_running += 1,
                Phase::Paused => info.containers_paused += 1,
                _ => info.containers_stopped += 1,
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.services.networks.warnings();
        if self.services.runtime.host().cgroup_mode().is_none() {
            warnings
                .push("WARNING: No control groups are mounted: limits cannot be enforced".into());
        }
        let away = self
            .services
            .drivers
            .list()
            .into_iter()
            .filter(|driver| !driver.state.serves());
        warnings.extend(away.map(|driver| {
            format!(
                "WARNING: driver {}/{} is not available: {}",
                driver.kind, driver.name, driver.reason
            )
        }));
        warnings
    }

    /// The storage driver's name, and what it tells of itself.
    async fn storage_status(&self) -> (String, Vec<[String; 2]>) {
        let name = self.services.drivers.default_name(Kind::Storage);
        let health = self.health(Kind::Storage, &name).await;
        let status = health.status.into_iter().map(|(k, v)| [k, v]).collect();
        (name, status)
    }

    /// Why drivers that are there do worse than they should.
    async fn complaints(&self) -> Vec<String> {
        let drivers = self.services.drivers.list().into_iter();
        let ready = drivers.filter(|driver| driver.state == registry::DriverState::Ready);
        let asked = ready.map(async |driver| {
            let health = self.health(driver.kind, &driver.name).await;
            let text = || {
                let (kind, name, why) = (driver.kind, driver.name, health.message);
                format!("WARNING: driver {kind}/{name}: {why}")
            };
            (!health.healthy).then(text)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What a driver tells of itself; one that does not is not well.
    pub(crate) async fn health(&self, kind: Kind, name: &str) -> Health {
        let failed = |message: String| Health {
            healthy: false,
            message,
            status: Vec::new(),
        };
        let driver = match self.services.drivers.driver(kind, name) {
            Ok(driver) => driver,
            Err(error) => return failed(error.to_string()),
        };
        let call = Call::new("info").with_timeout(PATIENCE);
        match blocking(move || driver.health(&call)).await {
            Ok(Ok(health)) => health,
            Ok(Err(error)) => failed(error.message),
            Err(error) => failed(error.message),
        }
    }

    fn driver_names(&self, kind: Kind) -> Vec<String> {
        self.services
            .drivers
            .list()
            .into_iter()
            .filter(|d| d.kind == kind && d.state.serves())
            .map(|d| d.name)
            .collect()
    }
}

/// How many entries a directory has.
fn entries(path: &str) -> i64 {
    std::fs::read_dir(path).map_or(0, |entries| i64::try_from(entries.count()).unwrap_or(0))
}

fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

fn security(
    facts: &gantry_sys::host::HostFacts,
    seccomp: &crate::config::SeccompDefault,
) -> Vec<String> {
    use crate::config::SeccompDefault as S;
    let mut options = Vec::new();
    if facts.apparmor {
        options.push("name=apparmor".to_owned());
    }
    let profile = match seccomp {
        S::Builtin => "builtin",
        S::Unconfined => "unconfined",
        S::Profile(_) => "custom",
    };
    options.push(format!("name=seccomp,profile={profile}"));
    if facts.cgroup_mode() == Some(Mode::V2) {
        options.push("name=cgroupns".to_owned());
    }
    options
}
