//! A container's place in the network, from its record to the network service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use gantry_model::NetworkId;
use gantry_model::container::{EndpointSettings, HostConfig};
use gantry_network::{EndpointConfig, Link, Sandbox, SandboxMode, SandboxSpec};

use crate::container::record::Record;
use crate::create::{egress, ports};
use crate::events::Attributes;
use crate::{Engine, EngineError, ErrorKind, Result};

impl Engine {
    /// Makes the sandbox, not yet connected; in `made`, a network namespace that is new, when there is one.
    pub(super) async fn make_sandbox(
        &self,
        record: &Record,
        made: Option<OwnedFd>,
    ) -> Result<Sandbox> {
        let (config, host) = (&record.config, &record.host_config);
        let mode = match host.network_mode.as_str() {
            "host" => SandboxMode::Host,
            mode => match mode.strip_prefix("container:") {
                Some(other) => SandboxMode::Container(self.joined(other)?),
                None => SandboxMode::Own,
            },
        };
        let spec = SandboxSpec {
            container: record.id.clone(),
            name: record.name.clone(),
            dir: self.container_dir(&record.id),
            mode,
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            dns: addresses(host.dns.iter().flatten())?,
            dns_search: host.dns_search.clone().unwrap_or_default(),
            dns_options: host.dns_options.clone().unwrap_or_default(),
            extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
            links: self.links(host.links.iter().flatten())?,
            egress: egress::list(config, host)?,
        };
        let networks = &self.services.networks;
        Ok(match made {
            Some(netns) => networks.sandbox_in(spec, netns).await?,
            None => networks.sandbox(spec).await?,
        })
    }

    fn joined(&self, other: &str) -> Result<gantry_model::ContainerId> {
        let container = self.find(other)?;
        match container.record().state.phase.has_process() {
            true => Ok(container.id.clone()),
            false => Err(EngineError::conflict(format!(
                "cannot join network namespace of a non running container: {other}"
            ))),
        }
    }

    /// Connects the sandbox to every network that is wanted, the main one first, and publishes ports.
    pub(super) async fn join_networks(&self, record: &Record) -> Result<()> {
        let main = self.main_network(record);
        let mut wishes: Vec<_> = record.networks.iter().collect();
        wishes.sort_by_key(|(name, _)| **name != main);
        for (network, wish) in wishes {
            self.join_network(record, network, wish).await?;
        }
        let wanted = ports::requests(&record.config, &record.host_config)?;
        // A sandbox that is on no network has to be written down as well.
        if !wanted.is_empty() || record.networks.is_empty() {
            self.services.networks.publish(&record.id, wanted).await?;
        }
        Ok(())
    }

    /// Connects a sandbox to one network.
    pub(crate) async fn join_network(
        &self,
        record: &Record,
        network: &str,
        wish: &EndpointSettings,
    ) -> Result<()> {
        let mut config = self.endpoint_config(wish)?;
        if network == self.main_network(record) {
            config
                .links
                .extend(self.links(record.host_config.links.iter().flatten())?);
        }
        let networks = &self.services.networks;
        let network = self.meant(network, wish);
        let joined = networks.connect(&record.id, network, config).await?;
        self.tell_network("connect", &joined.network, &joined.network_name, record);
        Ok(())
    }

    /// How a network of this name is found that a container wishes for: by the ID that it had, as long as it is there.
    pub(crate) fn meant<'a>(&self, name: &'a str, wish: &'a EndpointSettings) -> &'a str {
        let known = self.services.networks.get(&wish.network_id);
        let is_there = known.is_ok_and(|n| n.name == name && n.id.as_str() == wish.network_id);
        if is_there { &wish.network_id } else { name }
    }

    /// The name of the network that a container's mode means.
    fn main_network(&self, record: &Record) -> String {
        let mode = &record.host_config.network_mode;
        let known = self.services.networks.get(mode);
        known.map_or_else(|_| mode.clone(), |network| network.name)
    }

    /// Checks what is wished of networks before there is a container; networks that are missing may come.
    pub(crate) fn check_wishes(
        &self,
        wishes: &BTreeMap<String, EndpointSettings>,
        host: &HostConfig,
    ) -> Result<()> {
        self.links(host.links.iter().flatten())?;
        for (name, wish) in wishes {
            let prefixed = |error: EngineError| match error.kind {
                ErrorKind::BadRequest => {
                    error.context(format!("invalid config for network {name}"))
                }
                _ => error,
            };
            let config = self.endpoint_config(wish).map_err(prefixed)?;
            let network = self.meant(name, wish);
            match self.services.networks.check(network, &config) {
                Ok(_) => {}
                Err(error) if error.kind == gantry_network::ErrorKind::NotFound => {}
                Err(error) => return Err(prefixed(error.into())),
            }
        }
        Ok(())
    }

    /// Gives the sandbox back.
    pub(super) async fn leave_networks(&self, record: &Record) -> Result<()> {
        let networks = &self.services.networks;
        let left = networks.endpoints(&record.id);
        networks.release(&record.id).await?;
        for endpoint in left {
            self.tell_network(
                "disconnect",
                &endpoint.network,
                &endpoint.network_name,
                record,
            );
        }
        Ok(())
    }

    /// Tells that a container joined or left a network.
    pub(crate) fn tell_network(
        &self,
        action: &str,
        network: &NetworkId,
        name: &str,
        record: &Record,
    ) {
        let known = self.services.networks.get(network.as_str());
        let attributes = Attributes::from([
            ("container".to_owned(), record.id.to_string()),
            ("name".to_owned(), name.to_owned()),
            (
                "type".to_owned(),
                known.map(|n| n.driver).unwrap_or_default(),
            ),
        ]);
        self.events
            .tell("network", action, network.as_str(), attributes);
    }

    /// A wish in the network service's terms.
    pub(crate) fn endpoint_config(&self, wish: &EndpointSettings) -> Result<EndpointConfig> {
        let ipam = wish.ipam_config.clone().unwrap_or_default();
        let address = |text: &str, what: &str| match text {
            "" => Ok(None),
            text => text.parse::<IpAddr>().map(Some).map_err(|_| {
                EngineError::bad_request(format!(
                    "invalid endpoint settings:\ninvalid {what} address: {text}"
                ))
            }),
        };
        Ok(EndpointConfig {
            aliases: wish.aliases.clone().unwrap_or_default(),
            ipv4: address(&ipam.ipv4_address, "IPv4")?,
            ipv6: address(&ipam.ipv6_address, "IPv6")?,
            link_local: ipam
                .link_local_ips
                .iter()
                .flatten()
                .filter_map(|text| address(text, "link-local IP").transpose())
                .collect::<Result<_>>()?,
            mac: Some(wish.mac_address.clone()).filter(|mac| !mac.is_empty()),
            options: wish.driver_opts.clone().unwrap_or_default(),
            gw_priority: wish.gw_priority,
            links: self.links(wish.links.iter().flatten())?,
        })
    }

    /// Checks that the containers that are linked to are there.
    pub(crate) fn check_links(&self, host: &HostConfig) -> Result<()> {
        self.links(host.links.iter().flatten()).map(drop)
    }

    /// `container[:alias]`.
    pub(crate) fn links<'a>(&self, links: impl Iterator<Item = &'a String>) -> Result<Vec<Link>> {
        links
            .map(|link| {
                let (name, alias) = link.split_once(':').unwrap_or((link, link));
                let other = self.find(name).map_err(|error| {
                    EngineError::bad_request(format!(
                        "could not get container for {name}: {}",
                        error.message
                    ))
                })?;
                Ok(Link {
                    container: other.id.clone(),
                    name: other.record().name.clone(),
                    alias: alias.trim_start_matches('/').to_owned(),
                })
            })
            .collect()
    }
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Result<Vec<IpAddr>> {
    texts
        .map(|text| {
            text.parse()
                .map_err(|_| EngineError::bad_request(format!("invalid IP address: {text}")))
        })
        .collect()
}
