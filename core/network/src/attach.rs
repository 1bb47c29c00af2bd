//! Connecting sandboxes to networks, and back.

use std::net::IpAddr;
use std::os::fd::AsFd;

use gantry_driver_api::network::{EndpointRef, EndpointSpec, JoinPlan, NetworkInfo, Scope};
use gantry_driver_api::{Call, Network as Driver};
use gantry_model::{ContainerId, EndpointId};
use ipnet::IpNet;

use crate::endpoint::{check_mode, dns_names, empty_info, link_local, no_address, note_address};
use crate::files::{self, HostLine};
use crate::inner::{Inner, Network, knowing};
use crate::place::{Endpoint, Place, gateway};
use crate::{EndpointConfig, EndpointInfo, Link, NetworkError, Result, SandboxMode, wish};

/// Auxiliary addresses of these names are what members take for the gateway.
const DEFAULT_GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];
/// The options that say where a network's ports are published by default.
const HOST_BINDINGS: [&str; 2] = [
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.host_binding_ipv6",
];

impl Inner {
    /// What can be said of a wish without making it true.
    pub(crate) fn check(&self, network: &Network, config: &EndpointConfig) -> Result<()> {
        let record = &network.record;
        // Where a driver gives the addresses, it says which there are.
        let given = self.info(network).is_ok_and(|info| !info.addressed);
        let is_inside = |address| self.ipam.check(&record.id, address);
        wish::check(record, config, (!given).then_some(is_inside))
    }

    pub(crate) fn connect(
        &self,
        container: &ContainerId,
        name: &str,
        config: EndpointConfig,
    ) -> Result<EndpointInfo> {
        let network = self.find(name)?;
        if network.record.config_only {
            return Err(NetworkError::forbidden(
                "cannot create endpoint on configuration-only network",
            ));
        }
        let place = self.place(container)?;
        let mut place = place.lock();
        if place.gone {
            return Err(NetworkError::conflict(format!(
                "container {container} is not running"
            )));
        }
        self.check(&network, &config)?;
        self.ensure(&network)?;
        let info = self.info(&network)?;
        check_mode(&place, &network, &info)?;
        let endpoint = EndpointId::generate();
        match network.holders.lock().as_mut() {
            Some(holders) => holders.insert(endpoint.clone()),
            None => return Err(NetworkError::no_network(name)),
        };
        let mut made = empty_info(&network, endpoint, config);
        let result = self.attach(&mut place, &network, &info, &mut made);
        if let Err(error) = result {
            self.let_go(&made);
            return Err(error);
        }
        if let Err(error) = self.settle(&mut place) {
            self.take_off(&mut place);
            self.let_go(&made);
            return Err(error);
        }
        // What was set last is what is shown.
        let made = place.endpoints().last().map_or(made, |e| e.info.clone());
        drop(place);
        if made.dns_names.is_empty() {
            self.refresh_links(container, &made.network);
        }
        Ok(made)
    }

    /// Undoes the last attachment of a sandbox. Whatever fails, the rest is done.
    fn take_off(&self, place: &mut Place) {
        let Some(endpoint) = place.saved.endpoints.pop() else {
            return;
        };
        self.detach(place, &endpoint, true);
        let files = files::remove_hosts(&place.files, &endpoint.hosts);
        let routes = place.reroute();
        let confined = self.confine(place);
        let settled = self.settle(place);
        for error in [files, routes, confined, settled]
            .into_iter()
            .filter_map(Result::err)
        {
            let network = endpoint.info.network_name.as_str();
            tracing::warn!(network, %error, "undoing an attachment");
        }
    }

    /// Addresses, link, files. Leaves nothing behind on failure but the addresses noted in `made`.
    fn attach(
        &self,
        place: &mut Place,
        network: &Network,
        info: &NetworkInfo,
        made: &mut EndpointInfo,
    ) -> Result<()> {
        let record = &network.record;
        let mut addresses = Vec::new();
        if info.addressed {
            for (enabled, v6) in [(record.enable_ipv4, false), (record.enable_ipv6, true)] {
                let wished = if v6 {
                    made.config.ipv6
                } else {
                    made.config.ipv4
                };
                if !enabled && wished.is_none() {
                    continue;
                }
                let taken = self.ipam.take(&record.id, v6, wished);
                if let Some(net) = taken.map_err(|e| no_address(record, v6, e))? {
                    note_address(made, net);
                    addresses.push(net);
                }
            }
        } else {
            let wished = [made.config.ipv4, made.config.ipv6].into_iter().flatten();
            addresses.extend(wished.map(IpNet::from));
        }
        let mut spec = EndpointSpec {
            network: record.id.to_string(),
            id: made.endpoint.to_string(),
            addresses,
            mac: made.config.mac.clone(),
            link: place.next_link(),
            options: made.config.options.clone(),
        };
        if info.scope == Scope::Global {
            spec.addresses = self.allocate(network, &spec, dns_names(place, &made.config))?;
        }
        let driver = self.driver(&record.driver)?;
        let plan = self.join(&*driver, place, network, &spec)?;
        let mut plan = plan;
        if !info.addressed {
            // The first of a family is the one that is shown.
            let given = plan.addresses.iter().rev();
            given.for_each(|net| note_address(made, *net));
        }
        plan.addresses.extend(link_local(&made.config));
        made.link.clone_from(&plan.link);
        made.mac.clone_from(&plan.mac);
        made.gateway = gateway(&plan, false);
        made.gateway_v6 = gateway(&plan, true);
        let named = !record.predefined && info.own_namespace && self.names.is_there();
        if !record.predefined {
            made.dns_names = dns_names(place, &made.config);
        }
        let endpoint = Endpoint {
            hosts: self.host_lines(place, made),
            info: made.clone(),
            driver: record.driver.clone(),
            spec,
            plan: plan.clone(),
            named,
            internal: record.internal,
            host_binding: self.host_binding(network),
        };
        place.saved.endpoints.push(endpoint);
        let confined = self.confine(place);
        let configured = confined.and_then(|()| match plan.link.is_empty() {
            true => Ok(()),
            false => place.configure(&plan, &made.config),
        });
        let configured = configured.and_then(|()| {
            let lines = place
                .endpoints()
                .last()
                .map(|e| e.hosts.clone())
                .unwrap_or_default();
            files::add_hosts(&place.files, &lines)
        });
        if configured.is_err()
            && let Some(endpoint) = place.saved.endpoints.pop()
        {
            self.detach(place, &endpoint, true);
            if let Err(error) = self.confine(place) {
                tracing::warn!(%error, "egress rules of before");
            }
        }
        configured
    }

    fn join(
        &self,
        driver: &dyn Driver,
        place: &Place,
        network: &Network,
        spec: &EndpointSpec,
    ) -> Result<JoinPlan> {
        let call = Call::new("connect");
        let fds: Vec<_> = place.netns.iter().map(|fd| fd.as_fd()).collect();
        let made = knowing(driver, network, || {
            driver.create_endpoint(&call, spec.clone())
        });
        let joined = made.and_then(|()| driver.join(&call.with_fds(&fds), spec.clone()));
        let mut plan = match joined {
            Ok(plan) => plan,
            Err(error) => {
                let reference = EndpointRef {
                    network: spec.network.clone(),
                    id: spec.id.clone(),
                };
                // The first error is the one to tell.
                let _ = driver.leave(&call.with_fds(&fds), reference.clone());
                let _ = driver.delete_endpoint(&call, reference);
                return Err(error.into());
            }
        };
        if !network.record.internal {
            // The user may have a router of their own on the network; the daemon's flags come as auxiliary addresses too.
            let pools = network.record.ipam.pools.iter();
            let named = pools.flat_map(|pool| &pool.aux_addresses);
            for (_, ip) in named.filter(|(name, _)| DEFAULT_GATEWAYS.contains(&name.as_str())) {
                plan.gateways.retain(|g| g.is_ipv4() != ip.is_ipv4());
                plan.gateways.push(*ip);
            }
        }
        Ok(plan)
    }

    fn host_binding(&self, network: &Network) -> Option<IpAddr> {
        let options = &network.record.options;
        let given = HOST_BINDINGS.iter().filter_map(|key| options.get(*key));
        given
            .filter_map(|ip| ip.parse().ok())
            .find(|ip: &IpAddr| !ip.is_unspecified())
    }

    /// What a new attachment puts into `hosts`: the container's own name, and links on the default network.
    pub(crate) fn host_lines(&self, place: &Place, made: &EndpointInfo) -> Vec<HostLine> {
        let spec = place.spec();
        if spec.mode != SandboxMode::Own {
            return Vec::new();
        }
        let names = if spec.domainname.is_empty() {
            spec.hostname.clone()
        } else {
            format!("{0}.{1} {0}", spec.hostname, spec.domainname)
        };
        let own = [made.ipv4, made.ipv6].into_iter().flatten();
        let mut lines: Vec<HostLine> = own
            .map(|address| HostLine {
                address,
                names: names.clone(),
            })
            .collect();
        if made.dns_names.is_empty() {
            let views = self.views.read();
            let mut links: Vec<&Link> = Vec::new();
            for link in made.config.links.iter().chain(&spec.links) {
                if !links.contains(&link) {
                    links.push(link);
                }
            }
            for link in links {
                let other = views.get(&link.container);
                let there =
                    other.and_then(|v| v.endpoints.iter().find(|e| e.network == made.network));
                lines.extend(there.and_then(|e| e.ipv4).map(|address| HostLine {
                    address,
                    names: format!("{} {} {}", link.alias, link.container.short(), link.name),
                }));
            }
        }
        lines
    }

    pub(crate) fn disconnect(&self, container: &ContainerId, name: &str) -> Result<()> {
        let network = self.find(name)?;
        let record = &network.record;
        let missing = || {
            NetworkError::forbidden(format!(
                "container {container} is not connected to network {}",
                record.name
            ))
        };
        let place = self.place(container).map_err(|_| missing())?;
        let mut place = place.lock();
        let found = place
            .endpoints()
            .iter()
            .position(|e| e.info.network == record.id);
        let at = found.ok_or_else(missing)?;
        if place.spec().mode == SandboxMode::Host {
            return Err(NetworkError::conflict(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let endpoint = place.saved.endpoints.remove(at);
        self.detach(&place, &endpoint, true);
        self.let_go(&endpoint.info);
        // Whatever fails, the rest is done: the attachment is gone.
        let done = [
            files::remove_hosts(&place.files, &endpoint.hosts),
            place.reroute(),
            self.confine(&place),
            self.settle(&mut place),
        ];
        done.into_iter().collect()
    }

    /// Has the driver take an attachment away. `live`: its namespace stays; the kernel removes what is in one that does not.
    pub(crate) fn detach(&self, place: &Place, endpoint: &Endpoint, live: bool) {
        let call = Call::new("disconnect");
        let reference = EndpointRef {
            network: endpoint.spec.network.clone(),
            id: endpoint.spec.id.clone(),
        };
        let fds: Vec<_> = place
            .netns
            .iter()
            .filter(|_| live || endpoint.plan.configured)
            .map(|fd| fd.as_fd())
            .collect();
        let result = self.driver(&endpoint.driver).and_then(|driver| {
            driver.leave(&call.with_fds(&fds), reference.clone())?;
            Ok(driver.delete_endpoint(&call, reference)?)
        });
        if let Err(error) = result {
            // The next reconciliation finds what is left.
            tracing::warn!(network = endpoint.info.network_name, %error, "detaching");
        }
    }

    /// Brings ports, names and files in line with the attachments, writes the sandbox down and shows it.
    pub(crate) fn settle(&self, place: &mut Place) -> Result<()> {
        self.move_ports(place)?;
        self.tell_names(place)?;
        self.publish_view(place)
    }
}
