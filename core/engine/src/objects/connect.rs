//! Attaching containers to networks and detaching them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_model::container::{EndpointIpamConfig, EndpointSettings};
use gantry_network::{EndpointInfo, NetworkRecord};
use gantry_wire as wire;

use crate::container::Container;
use crate::container::record::Record;
use crate::{Engine, EngineError, ErrorKind, Result};

impl Engine {
    /// Attaches a container to a network, now and at every start.
    ///
    /// # Errors
    /// Unknown ones, attachments that are there, modes that allow none.
    pub async fn network_connect(
        &self,
        id: &str,
        request: wire::NetworkConnectRequest,
    ) -> Result<()> {
        let container = self.find(&request.container)?;
        let network = self.services.networks.get(id)?;
        let mut wish = request.endpoint_config.unwrap_or_default();
        // Another network may have the same name: one that hosts share beside one of this host's.
        wish.network_id = network.id.to_string();
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let record = container.record();
            connectable(&record, &network)?;
            if record.networks.contains_key(&network.name) {
                return Err(EngineError::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    record.name, network.name
                )));
            }
            if record.state.phase.has_process() {
                engine.join_network(&record, &network.name, &wish).await?;
            } else {
                let config = engine.endpoint_config(&wish)?;
                let networks = &engine.services.networks;
                networks.check(network.id.as_str(), &config)?;
            }
            let record = container.update(|record| {
                record.networks.insert(network.name.clone(), wish);
            });
            engine.records.save(&record).await
        })
        .await
    }

    /// Detaches a container from a network, now and at every start.
    ///
    /// # Errors
    /// Unknown ones, no such attachment.
    pub async fn network_disconnect(
        &self,
        id: &str,
        request: wire::NetworkDisconnectRequest,
    ) -> Result<()> {
        let network = self.services.networks.get(id)?;
        let container = match self.find(&request.container) {
            // Docker looks for an endpoint left by a container that is gone; here none is ever left.
            Err(error) if error.kind == ErrorKind::NotFound && request.force => {
                let text = format!("endpoint {} not found", request.container);
                return Err(EngineError::not_found(text));
            }
            found => found?,
        };
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let record = container.record();
            let networks = &engine.services.networks;
            let is_on = || {
                let endpoints = networks.endpoints(&container.id);
                endpoints.iter().any(|e| e.network == network.id)
            };
            let joined = is_on();
            let wished = record.networks.get(&network.name).is_some_and(|wish| {
                let meant = networks.get(engine.meant(&network.name, wish));
                meant.is_ok_and(|meant| meant.id == network.id)
            });
            if !joined && !wished {
                return Err(EngineError::forbidden(format!(
                    "container {} is not connected to network {}",
                    container.id, network.name
                )));
            }
            let left = match joined {
                true => {
                    networks
                        .disconnect(&container.id, network.id.as_str())
                        .await
                }
                false => Ok(()),
            };
            // What failed may be what it left behind: the container is off the network all the same.
            if is_on() {
                return left.map_err(Into::into);
            }
            if joined {
                engine.tell_network("disconnect", &network.id, &network.name, &record);
            }
            let record = container.update(|record| {
                record.networks.remove(&network.name);
            });
            engine.records.save(&record).await?;
            Ok(left?)
        })
        .await
    }

    /// Brings the record of a running container in line with its sandbox, which is what the container sees. A daemon that
    /// ended between writing the two had not answered yet; what it may not have told is told (again).
    pub(crate) fn follow_sandbox(&self, container: &Container) {
        let record = container.record();
        let Some(joined) = self.services.networks.attached(&record.id) else {
            return;
        };
        let is_on = |name: &String| joined.iter().any(|e| e.network_name == *name);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = record
            .networks
            .clone()
            .into_iter()
            .partition(|(name, _)| is_on(name));
        let come: Vec<_> = joined
            .iter()
            .filter(|e| !kept.contains_key(&e.network_name))
            .collect();
        if gone.is_empty() && come.is_empty() {
            return;
        }
        for endpoint in &come {
            self.tell_network(
                "connect",
                &endpoint.network,
                &endpoint.network_name,
                &record,
            );
        }
        for (name, wish) in &gone {
            if let Ok(network) = self.services.networks.get(self.meant(name, wish)) {
                self.tell_network("disconnect", &network.id, name, &record);
            }
        }
        let come = come
            .into_iter()
            .map(|endpoint| (endpoint.network_name.clone(), self.wish(&record, endpoint)));
        let networks = kept.into_iter().chain(come).collect();
        let record = container.update(|record| record.networks = networks);
        if let Err(error) = self.records.keep(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's networks");
        }
    }

    /// The wish that an attachment was made by, as far as the sandbox knows it.
    fn wish(&self, record: &Record, endpoint: &EndpointInfo) -> EndpointSettings {
        let config = &endpoint.config;
        let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let link_local = config.link_local.iter().map(IpAddr::to_string).collect();
        let ipam = EndpointIpamConfig {
            ipv4_address: text(config.ipv4),
            ipv6_address: text(config.ipv6),
            link_local_ips: Some(link_local).filter(|ips: &Vec<_>| !ips.is_empty()),
        };
        // Those of the container's mode are wished for elsewhere.
        let of_mode = self.links(record.host_config.links.iter().flatten());
        let of_mode = of_mode.unwrap_or_default();
        let links = config.links.iter().filter(|link| !of_mode.contains(link));
        let links: Vec<_> = links.map(|l| format!("{}:{}", l.name, l.alias)).collect();
        EndpointSettings {
            network_id: endpoint.network.to_string(),
            ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
            links: Some(links).filter(|links| !links.is_empty()),
            aliases: Some(config.aliases.clone()).filter(|aliases| !aliases.is_empty()),
            mac_address: config.mac.clone().unwrap_or_default(),
            driver_opts: Some(config.options.clone()).filter(|options| !options.is_empty()),
            gw_priority: config.gw_priority,
            ..EndpointSettings::default()
        }
    }
}

/// Modes in which a container has no place for another network.
fn connectable(record: &Record, network: &NetworkRecord) -> Result<()> {
    let mode = record.host_config.network_mode.as_str();
    let refuse = |why: &str| Err(EngineError::forbidden(why));
    if mode == "host" || network.name == "host" {
        return refuse("container cannot be connected to host network or disconnected from it");
    }
    if mode.starts_with("container:") {
        return refuse(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        );
    }
    let has_none = record.networks.contains_key("none");
    if has_none || (network.name == "none" && !record.networks.is_empty()) {
        return refuse(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        );
    }
    Ok(())
}
