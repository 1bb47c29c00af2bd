//! Networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_network::{NetworkCreate, NetworkRecord, Scope, SharedChange};
use gantry_wire as wire;
use gantry_wire::Filters;

use super::pools;
use crate::events::{Attributes, Events};
use crate::patterns::Patterns;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Lists networks.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<wire::Network>> {
        filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.flag("dangling")?;
        for kind in filters.get("type") {
            if !matches!(kind.as_str(), "builtin" | "custom") {
                return Err(EngineError::bad_request(format!(
                    "invalid filter: 'type'='{kind}'"
                )));
            }
        }
        let (names, ids) = (
            Patterns::new(&filters, "name"),
            Patterns::new(&filters, "id"),
        );
        let list = self.services.networks.list();
        Ok(list
            .into_iter()
            .filter(|network| {
                let kind = if network.predefined {
                    "builtin"
                } else {
                    "custom"
                };
                let unused = || {
                    !network.predefined
                        && self.services.networks.members(&network.id).is_empty()
                        && self.services.networks.peers(&network.id).is_empty()
                };
                ids.take(network.id.as_str())
                    && names.take(&network.name)
                    && filters.allows("driver", &network.driver)
                    && filters.allows("scope", scope(network.scope))
                    && filters.allows("type", kind)
                    && filters.matches_labels("label", &network.labels)
                    && dangling.is_none_or(|dangling| dangling == unused())
            })
            .map(shown)
            .collect())
    }

    /// Everything about a network.
    ///
    /// # Errors
    /// `network x not found`.
    pub async fn network_inspect(
        &self,
        id: &str,
        _verbose: bool,
        wanted: Option<&str>,
    ) -> Result<wire::Network> {
        let record = self.services.networks.get(id)?;
        if wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != scope(record.scope)) {
            return Err(EngineError::not_found(format!("network {id} not found")));
        }
        let members = self.services.networks.members(&record.id);
        let peers = self.services.networks.peers(&record.id);
        let mut network = shown(record);
        let with_prefix = |address: Option<IpAddr>, prefix: u8| {
            address
                .map(|address| format!("{address}/{prefix}"))
                .unwrap_or_default()
        };
        network.containers = members
            .into_iter()
            .map(|member| {
                let endpoint = member.endpoint;
                let container = wire::NetworkContainer {
                    name: member.name,
                    endpoint_id: endpoint.endpoint.to_string(),
                    mac_address: endpoint.mac,
                    ipv4_address: with_prefix(endpoint.ipv4, endpoint.ipv4_prefix),
                    ipv6_address: with_prefix(endpoint.ipv6, endpoint.ipv6_prefix),
                };
                (member.container.to_string(), container)
            })
            .collect();
        network.peers = peers
            .into_iter()
            .map(|peer| wire::PeerInfo {
                name: peer.name,
                ip: peer.address.map(|ip| ip.to_string()).unwrap_or_default(),
            })
            .collect();
        Ok(network)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// Names and pools that are taken or wrong, drivers that are away.
    pub async fn network_create(
        &self,
        request: wire::NetworkCreateRequest,
    ) -> Result<wire::NetworkCreateReply> {
        if request.ingress || request.scope == "swarm" {
            return Err(EngineError::unavailable(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        let enable_ipv6 = request.enable_ipv6.unwrap_or_default();
        let wanted = NetworkCreate {
            config_only: request.config_only,
            config_from: request.config_from.map(|c| c.network).unwrap_or_default(),
            name: request.name,
            driver: request.driver,
            internal: request.internal,
            attachable: request.attachable,
            ipam: pools::ipam(request.ipam.unwrap_or_default(), enable_ipv6)?,
            options: request.options.unwrap_or_default(),
            labels: request.labels.unwrap_or_default(),
            enable_ipv4: request.enable_ipv4,
            enable_ipv6,
            scope: request.scope,
        };
        let record = self
            .to_the_end(|engine| async move { Ok(engine.services.networks.create(wanted).await?) })
            .await?;
        tell(&self.events, "create", &record);
        Ok(wire::NetworkCreateReply {
            id: record.id.to_string(),
            warning: String::new(),
        })
    }

    /// Removes a network.
    ///
    /// # Errors
    /// Networks in use, predefined ones, `network x not found`.
    pub async fn network_remove(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        let record = self
            .to_the_end(|engine| async move { Ok(engine.services.networks.remove(&id).await?) })
            .await?;
        tell(&self.events, "destroy", &record);
        Ok(())
    }

    /// Removes unused networks.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn network_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        filters.check(&["until", "label", "label!"])?;
        let until = crate::until(&filters)?;
        let select = move |network: &NetworkRecord| {
            until.is_none_or(|until| network.created <= until)
                && filters.matches_labels("label", &network.labels)
                && !(filters.contains("label!")
                    && filters.matches_labels("label!", &network.labels))
        };
        let gone = self
            .to_the_end(|engine| async move { Ok(engine.services.networks.prune(select).await?) })
            .await?;
        for network in &gone {
            tell(&self.events, "destroy", network);
        }
        let attributes = Attributes::from([("reclaimed".to_owned(), "0".to_owned())]);
        self.events.tell("network", "prune", "", attributes);
        Ok(wire::PruneReply {
            deleted: gone.into_iter().map(|network| network.name).collect(),
            space_reclaimed: 0,
        })
    }

    /// From now on tells as well what other hosts do with the networks that they share with this one.
    pub(crate) fn tell_of_shared_networks(&self) {
        let events = self.events.clone();
        let tell = move |change, network: &NetworkRecord| {
            let action = match change {
                SharedChange::Made => "create",
                SharedChange::Removed => "destroy",
            };
            tell(&events, action, network);
        };
        self.services.networks.on_shared_change(tell);
    }
}

fn tell(events: &Events, action: &str, network: &NetworkRecord) {
    let attributes = Attributes::from([
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.clone()),
    ]);
    events.tell("network", action, network.id.as_str(), attributes);
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Local => "local",
        Scope::Global => "global",
    }
}

fn shown(record: NetworkRecord) -> wire::Network {
    let pools = record
        .ipam
        .pools
        .into_iter()
        .map(|pool| {
            let aux: BTreeMap<String, String> = pool
                .aux_addresses
                .into_iter()
                .map(|(name, address)| (name, address.to_string()))
                .collect();
            let text = |shown: Option<String>| shown.unwrap_or_default();
            wire::IpamConfig {
                subnet: text(pool.subnet.map(|s| s.to_string())),
                ip_range: text(pool.ip_range.map(|r| r.to_string())),
                gateway: text(pool.gateway.map(|g| g.to_string())),
                auxiliary_addresses: (!aux.is_empty()).then_some(aux),
            }
        })
        .collect();
    wire::Network {
        name: record.name,
        id: record.id.to_string(),
        created: record.created,
        scope: scope(record.scope).into(),
        driver: record.driver,
        enable_ipv4: record.enable_ipv4,
        enable_ipv6: record.enable_ipv6,
        ipam: wire::Ipam {
            driver: record.ipam.driver,
            options: Some(record.ipam.options).filter(|options| !options.is_empty()),
            config: Some(pools),
        },
        internal: record.internal,
        attachable: record.attachable,
        config_only: record.config_only,
        config_from: wire::ConfigReference {
            network: record.config_from,
        },
        options: record.options,
        labels: record.labels,
        ..wire::Network::default()
    }
}
