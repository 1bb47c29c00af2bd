//! Everything about one container.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_model::container::{EndpointSettings, PortMap};
use gantry_network::{EndpointInfo, SandboxFiles};
use gantry_wire as wire;

use crate::container::record::{MountKind, MountPoint, Phase, Record, State};
use crate::create::mounts::visible;
use crate::engine::blocking;
use crate::{Engine, Result};

impl Engine {
    /// Everything about a container; with `size`, what it has written is measured.
    ///
    /// # Errors
    /// An unknown container.
    pub async fn container_inspect(&self, id: &str, size: bool) -> Result<wire::ContainerInspect> {
        let container = self.find(id)?;
        let record = container.record();
        let (size_rw, size_root_fs) = match size {
            true => self.sizes(&record).await,
            false => (None, None),
        };
        let files = SandboxFiles::of(&self.container_dir(&record.id));
        let shown = |path: &Path| match record.state.started_at.is_zero() {
            true => String::new(),
            false => path.to_string_lossy().into_owned(),
        };
        let mut argv = record.argv();
        let path = match argv.is_empty() {
            true => String::new(),
            false => argv.remove(0),
        };
        let log_path = match record.host_config.log_config.kind.as_str() {
            "json-file" if !record.state.started_at.is_zero() => {
                self.log_path(&record.id).to_string_lossy().into_owned()
            }
            _ => String::new(),
        };
        let execs = self.execs.running(&record.id);
        Ok(wire::ContainerInspect {
            id: record.id.to_string(),
            created: record.created,
            path,
            args: argv,
            state: state(&record.state),
            image: record.image.to_string(),
            resolv_conf_path: shown(&files.resolv_conf),
            hostname_path: shown(&files.hostname),
            hosts_path: shown(&files.hosts),
            log_path,
            name: format!("/{}", record.name),
            restart_count: record.restart_count.into(),
            driver: record.storage_driver.clone(),
            platform: record.platform.clone(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: String::new(),
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: record.host_config.clone(),
            graph_driver: self.graph_driver(&record).await,
            size_rw,
            size_root_fs,
            mounts: visible(&record).map(mount_point).collect(),
            config: record.config.clone(),
            network_settings: self.network_settings(&record),
            image_manifest_descriptor: None,
        })
    }

    pub(super) async fn sizes(&self, record: &Record) -> (Option<i64>, Option<i64>) {
        let written = self.written(record).await.unwrap_or_default();
        let written = i64::try_from(written).unwrap_or(i64::MAX);
        let (images, image) = (self.services.images.clone(), record.image.clone());
        let below = blocking(move || images.size(&image)).await;
        let below = match below {
            Ok(Ok(size)) => i64::try_from(size).unwrap_or(i64::MAX),
            // The image may have been removed by force.
            _ => 0,
        };
        (Some(written), Some(written.saturating_add(below)))
    }

    async fn graph_driver(&self, record: &Record) -> wire::DriverData {
        let (images, driver, id) = (
            self.services.images.clone(),
            record.storage_driver.clone(),
            record.id.clone(),
        );
        match blocking(move || images.container_graph_driver(&driver, id.as_str())).await {
            Ok(Ok(graph)) => wire::DriverData {
                data: Some(graph.data),
                name: graph.name,
            },
            _ => wire::DriverData {
                data: None,
                name: record.storage_driver.clone(),
            },
        }
    }

    /// The attachments of a container by the network's name: as they are, or as they are wished when it does not run.
    pub(super) fn attachments(&self, record: &Record) -> BTreeMap<String, EndpointSettings> {
        let joined = self.services.networks.endpoints(&record.id);
        let mut all: BTreeMap<String, EndpointSettings> = record
            .networks
            .iter()
            .map(|(name, wish)| {
                let mut wish = wish.clone();
                if let Ok(network) = self.services.networks.get(self.meant(name, &wish)) {
                    wish.network_id = network.id.to_string();
                }
                (name.clone(), wish)
            })
            .collect();
        for endpoint in joined {
            let wish = all.remove(&endpoint.network_name).unwrap_or_default();
            all.insert(endpoint.network_name.clone(), attached(wish, &endpoint));
        }
        all
    }

    fn network_settings(&self, record: &Record) -> wire::NetworkSettings {
        let networks = self.attachments(record);
        let mut settings = wire::NetworkSettings {
            ports: self.ports(record),
            ..wire::NetworkSettings::default()
        };
        if record.state.phase.has_process() {
            settings.sandbox_id = record.id.to_string();
            settings.sandbox_key = format!("/proc/{}/ns/net", record.state.pid);
        }
        if let Some(bridge) = networks.get("bridge") {
            settings.endpoint_id.clone_from(&bridge.endpoint_id);
            settings.gateway.clone_from(&bridge.gateway);
            settings.ip_address.clone_from(&bridge.ip_address);
            settings.ip_prefix_len = bridge.ip_prefix_len;
            settings.ipv6_gateway.clone_from(&bridge.ipv6_gateway);
            settings
                .global_ipv6_address
                .clone_from(&bridge.global_ipv6_address);
            settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
            settings.mac_address.clone_from(&bridge.mac_address);
        }
        settings.networks = networks;
        settings
    }

    /// Exposed ports with `null`, published ones with their bindings; nothing for a container that does not run.
    fn ports(&self, record: &Record) -> PortMap {
        let mut ports = PortMap::new();
        if !record.state.phase.has_process() {
            return ports;
        }
        for exposed in record.config.exposed_ports.keys() {
            ports.insert(&exposed, None);
        }
        for binding in self.services.networks.ports(&record.id) {
            let key = format!("{}/{}", binding.container_port, binding.protocol.as_str());
            let shown = gantry_model::container::PortBinding {
                host_ip: binding.host_ip.to_string(),
                // None is taken where containers are reached at their own addresses.
                host_port: match binding.host_port {
                    0 => String::new(),
                    port => port.to_string(),
                },
            };
            ports.update(&key, |shown_before| {
                shown_before.get_or_insert_default().push(shown);
            });
        }
        ports
    }
}

fn attached(mut wish: EndpointSettings, endpoint: &EndpointInfo) -> EndpointSettings {
    let text =
        |address: Option<std::net::IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    wish.network_id = endpoint.network.to_string();
    wish.endpoint_id = endpoint.endpoint.to_string();
    wish.mac_address.clone_from(&endpoint.mac);
    wish.gateway = text(endpoint.gateway);
    wish.ip_address = text(endpoint.ipv4);
    wish.ip_prefix_len = endpoint.ipv4_prefix.into();
    wish.ipv6_gateway = text(endpoint.gateway_v6);
    wish.global_ipv6_address = text(endpoint.ipv6);
    wish.global_ipv6_prefix_len = endpoint.ipv6_prefix.into();
    wish.dns_names = Some(endpoint.dns_names.clone()).filter(|names| !names.is_empty());
    wish
}

pub(super) fn mount_point(point: &MountPoint) -> wire::MountPoint {
    wire::MountPoint {
        kind: point.kind.as_str().into(),
        name: point.name.clone(),
        source: point.source.clone(),
        destination: point.destination.clone(),
        driver: match point.kind {
            // Of an image it is the storage driver, which is nobody's business.
            MountKind::Image => String::new(),
            _ => point.driver.clone(),
        },
        mode: point.mode.clone(),
        rw: point.rw,
        propagation: point.propagation.clone(),
    }
}

fn state(state: &State) -> wire::ContainerState {
    wire::ContainerState {
        status: state.phase.as_str().into(),
        running: state.phase.is_running(),
        paused: state.phase == Phase::Paused,
        restarting: state.phase == Phase::Restarting,
        oom_killed: state.oom_killed,
        dead: false,
        pid: state.pid.into(),
        exit_code: state.exit_code.into(),
        error: state.error.clone(),
        started_at: state.started_at,
        finished_at: state.finished_at,
        health: state.health.as_ref().map(|health| wire::Health {
            status: health.status.as_str().to_owned(),
            failing_streak: health.failing_streak.into(),
            log: Some(
                health
                    .log
                    .iter()
                    .map(|result| wire::HealthcheckResult {
                        start: result.start,
                        end: result.end,
                        exit_code: result.exit_code.into(),
                        output: result.output.clone(),
                    })
                    .collect(),
            ),
        }),
    }
}
