//! The engine itself.

use std::collections::BTreeMap;

use gantry_driver_api::{Call, Kind};
use gantry_driver_registry as registry;
use gantry_model::Timestamp;
use gantry_sys::cgroup::Mode;
use gantry_wire as wire;
use gantry_wire::system::{Component, FirewallInfo, PluginsInfo, ProductName};

use super::volumes::shown;
use crate::container::record::Phase;
use crate::engine::blocking;
use crate::query::{EventsQuery, ImageListQuery, ListQuery};
use crate::{Engine, EventStream, Result};

impl Engine {
    /// What `docker version` shows.
    #[must_use]
    pub fn version(&self) -> wire::SystemVersion {
        let config = self.config.load();
        let facts = self.services.runtime.host();
        let arch = go_arch(&facts.machine).to_owned();
        let max = wire::ApiVersion::MAX.to_string();
        let min = wire::ApiVersion::MIN.to_string();
        let details = BTreeMap::from([
            ("ApiVersion".to_owned(), max.clone()),
            ("MinAPIVersion".to_owned(), min.clone()),
            ("Os".to_owned(), "linux".to_owned()),
            ("Arch".to_owned(), arch.clone()),
            ("KernelVersion".to_owned(), facts.kernel_release.clone()),
            ("Experimental".to_owned(), config.experimental.to_string()),
            ("GitCommit".to_owned(), String::new()),
            ("GoVersion".to_owned(), String::new()),
            ("BuildTime".to_owned(), String::new()),
        ]);
        wire::SystemVersion {
            platform: ProductName {
                name: "Gantry".into(),
            },
            components: vec![Component {
                name: "Engine".into(),
                version: config.version.clone(),
                details,
            }],
            version: config.version.clone(),
            api_version: max,
            min_api_version: min,
            os: "linux".into(),
            arch,
            kernel_version: facts.kernel_release.clone(),
            experimental: config.experimental,
            ..wire::SystemVersion::default()
        }
    }

    /// What `docker info` shows.
    pub async fn info(&self) -> wire::SystemInfo {
        let config = self.config.load_full();
        let facts = self.services.runtime.host();
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for container in self.containers.all() {
            match container.record().state.phase {
                Phase::Running | Phase::Restarting => running += 1,
                Phase::Paused => paused += 1,
                _ => stopped += 1,
            }
        }
        let images = self.services.images.clone();
        let images = blocking(move || images.list(&gantry_image::ListQuery::default())).await;
        let images = images.map_or(0, |list| list.map_or(0, |list| list.len()));
        let (driver, driver_status) = self.storage_status().await;
        let cgroups = facts.cgroup_mode();
        let limits = cgroups.is_some();
        let mut warnings = self.services.networks.warnings();
        if !limits {
            warnings
                .push("WARNING: No control groups are mounted: limits cannot be enforced".into());
        }
        for status in self.services.drivers.list() {
            if status.state != registry::DriverState::Ready {
                warnings.push(format!(
                    "WARNING: driver {}/{} is not available: {}",
                    status.kind, status.name, status.reason
                ));
            }
        }
        wire::SystemInfo {
            id: config.engine_id.clone(),
            containers: running + paused + stopped,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images: i64::try_from(images).unwrap_or(i64::MAX),
            driver,
            driver_status,
            plugins: PluginsInfo {
                volume: self.driver_names(Kind::Volume),
                network: self.driver_names(Kind::Network),
                authorization: None,
                log: vec!["json-file".into(), "local".into(), "none".into()],
            },
            memory_limit: limits,
            swap_limit: limits,
            cpu_cfs_period: limits,
            cpu_cfs_quota: limits,
            cpu_shares: limits,
            cpu_set: limits,
            pids_limit: limits,
            ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                .is_ok_and(|text| text.trim() == "1"),
            debug: config.debug,
            n_fd: std::fs::read_dir("/proc/self/fd")
                .map_or(0, |entries| i64::try_from(entries.count()).unwrap_or(0)),
            oom_kill_disable: cgroups.is_some_and(|mode| mode != Mode::V2),
            n_goroutines: tasks(),
            system_time: Timestamp::now().to_string(),
            logging_driver: config.log_driver.clone(),
            cgroup_driver: if limits { "cgroupfs" } else { "none" }.into(),
            cgroup_version: cgroups.map_or("", Mode::version).into(),
            n_events_listener: i64::try_from(self.events.listeners()).unwrap_or(0),
            kernel_version: facts.kernel_release.clone(),
            operating_system: os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".into()),
            os_version: os_release("VERSION_ID").unwrap_or_default(),
            os_type: "linux".into(),
            architecture: facts.machine.clone(),
            index_server_address: "https://index.docker.io/v1/".into(),
            registry_config: Some(config.registry.clone()),
            n_cpu: i64::try_from(facts.cpus).unwrap_or(0),
            mem_total: i64::try_from(facts.memory_total).unwrap_or(i64::MAX),
            docker_root_dir: config.data_root.to_string_lossy().into_owned(),
            http_proxy: config.proxies[0].clone(),
            https_proxy: config.proxies[1].clone(),
            no_proxy: config.proxies[2].clone(),
            name: facts.hostname.clone(),
            labels: config.labels.clone(),
            experimental_build: config.experimental,
            server_version: config.version.clone(),
            runtimes: config.runtimes.clone(),
            default_runtime: config.runtime().unwrap_or("gantry").into(),
            live_restore_enabled: config.live_restore,
            init_binary: config
                .init_path
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            security_options: security(facts, &config.seccomp),
            default_address_pools: config.address_pools.clone(),
            firewall_backend: Some(FirewallInfo {
                driver: "nftables".into(),
                info: Vec::new(),
            }),
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            ..wire::SystemInfo::default()
        }
    }

    /// The storage driver's name, and what it tells of itself.
    async fn storage_status(&self) -> (String, Vec<[String; 2]>) {
        let name = self.services.drivers.default_name(Kind::Storage);
        let Ok(driver) = self.services.drivers.storage(&name) else {
            return (name, Vec::new());
        };
        let health = blocking(move || driver.health(&Call::new("info"))).await;
        let status = match health {
            Ok(Ok(health)) => health.status.into_iter().map(|(k, v)| [k, v]).collect(),
            _ => Vec::new(),
        };
        (name, status)
    }

    fn driver_names(&self, kind: Kind) -> Vec<String> {
        self.services
            .drivers
            .list()
            .into_iter()
            .filter(|d| d.kind == kind && d.state == registry::DriverState::Ready)
            .map(|d| d.name)
            .collect()
    }

    /// Every driver that is known.
    #[must_use]
    pub fn drivers(&self) -> Vec<wire::DriverStatus> {
        let shown = |driver: registry::DriverStatus| wire::DriverStatus {
            kind: driver.kind.to_string(),
            name: driver.name,
            version: driver.version,
            protocol: gantry_driver_api::PROTOCOL,
            state: match driver.state {
                registry::DriverState::Ready => wire::DriverState::Ready,
                registry::DriverState::Faulted => wire::DriverState::Faulted,
                registry::DriverState::Unavailable => wire::DriverState::Refused,
            },
            reason: driver.reason,
            isolation: match driver.isolation {
                registry::Isolation::Process => "process".into(),
                _ => "in-process".into(),
            },
            generation: driver.generation,
            default: driver.default,
            capabilities: driver.capabilities,
            path: driver
                .source
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
        };
        self.services
            .drivers
            .list()
            .into_iter()
            .map(shown)
            .collect()
    }

    /// Past and coming events.
    ///
    /// # Errors
    /// Unknown filters.
    pub fn events(&self, query: EventsQuery) -> Result<EventStream> {
        self.events.stream(query)
    }

    /// What occupies how much (`docker system df`), as the API's JSON.
    ///
    /// # Errors
    /// A service that does not answer.
    pub async fn disk_usage(&self) -> Result<serde_json::Value> {
        let images = self.services.images.clone();
        let layers = blocking(move || images.layers_size()).await??;
        let list = self
            .image_list(ImageListQuery {
                shared_size: true,
                ..ImageListQuery::default()
            })
            .await?;
        let containers = self
            .container_list(ListQuery {
                all: true,
                size: true,
                ..ListQuery::default()
            })
            .await?;
        let mut volumes = Vec::new();
        for volume in self.services.volumes.list().await {
            let size = self.services.volumes.usage(&volume.record.name).await;
            let usage = wire::VolumeUsage {
                ref_count: i64::try_from(volume.users.len()).unwrap_or(i64::MAX),
                size: size.map_or(-1, |s| i64::try_from(s).unwrap_or(i64::MAX)),
            };
            let mut volume = shown(volume);
            volume.usage_data = Some(usage);
            volumes.push(volume);
        }
        Ok(serde_json::json!({
            "LayersSize": layers,
            "Images": list,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": [],
        }))
    }

    /// Ends the engine's work; with `stop_containers`, that of the containers as well.
    pub async fn shutdown(&self, stop_containers: bool) {
        if stop_containers {
            let timeout = self.config.load().shutdown_timeout;
            let mut stopping = tokio::task::JoinSet::new();
            for container in self.containers.all() {
                if !container.record().state.phase.is_running() {
                    continue;
                }
                let engine = self.clone();
                stopping.spawn(async move {
                    // Its policy starts it again with the daemon: a client did not stop it.
                    let before = container.record().manually_stopped;
                    let patience = container.record().config.stop_timeout.unwrap_or(timeout);
                    if let Err(error) = engine.stop(&container, None, Some(patience)).await {
                        tracing::warn!(container = %container.id, %error, "cannot stop a container");
                    }
                    let record = container.update(|record| record.manually_stopped = before);
                    if !container.progress().removed
                        && let Err(error) = engine.records.save(&record).await
                    {
                        tracing::warn!(container = %container.id, %error, "cannot write a container's state");
                    }
                });
            }
            while stopping.join_next().await.is_some() {}
        }
        self.events.flush().await;
        let idle = !self
            .containers
            .all()
            .iter()
            .any(|c| c.record().state.phase.has_process());
        self.services.networks.shutdown(idle).await;
        if idle {
            self.services.runtime.tidy().await;
        }
    }
}

fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Threads of this process: what the API calls goroutines is of no use to us.
fn tasks() -> i64 {
    std::fs::read_dir("/proc/self/task")
        .map_or(0, |entries| i64::try_from(entries.count()).unwrap_or(0))
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
