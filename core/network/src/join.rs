//! Making an attachment: addresses, link, files.

use std::net::IpAddr;
use std::os::fd::AsFd;

use gantry_driver_api::network::{EndpointRef, EndpointSpec, JoinPlan, NetworkInfo, Scope};
use gantry_driver_api::{Call, Network as Driver};
use ipnet::IpNet;

use crate::endpoint::{dns_names, link_local, no_address, note_address};
use crate::files::{self, HostLine};
use crate::inner::{Inner, Network, knowing};
use crate::place::{Endpoint, Place, gateway};
use crate::{EndpointInfo, Link, NetworkError, NetworkRecord, Result, SandboxMode};

/// Auxiliary addresses of these names are what members take for the gateway.
const DEFAULT_GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];
/// The options that say where a network's ports are published by default.
const HOST_BINDINGS: [&str; 2] = [
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.host_binding_ipv6",
];

impl Inner {
    /// Addresses, link, files. Leaves nothing behind on failure but the addresses noted in `made`.
    pub(crate) fn attach(
        &self,
        place: &mut Place,
        network: &Network,
        info: &NetworkInfo,
        made: &mut EndpointInfo,
    ) -> Result<()> {
        let record = &network.record;
        let addresses = self.addresses(record, info, made)?;
        if !record.predefined {
            made.dns_names = dns_names(place, &made.config);
        }
        let endpoint = Endpoint {
            hosts: self.host_lines(place, made),
            info: made.clone(),
            driver: record.driver.clone(),
            spec: EndpointSpec {
                network: record.id.to_string(),
                id: made.endpoint.to_string(),
                addresses,
                mac: made.config.mac.clone(),
                link: place.next_link(),
                options: made.config.options.clone(),
            },
            plan: JoinPlan::default(),
            named: !record.predefined && info.own_namespace && self.names.is_there(),
            internal: record.internal,
            host_binding: self.host_binding(network),
        };
        self.begin(place, endpoint)?;
        let attached = self.link(place, network, info, made);
        if attached.is_err() {
            self.give_up(place);
        }
        attached
    }

    /// The addresses that core gives, noted in `made`, or that are wished of the driver.
    fn addresses(
        &self,
        record: &NetworkRecord,
        info: &NetworkInfo,
        made: &mut EndpointInfo,
    ) -> Result<Vec<IpNet>> {
        let wished = [made.config.ipv4, made.config.ipv6];
        if !info.addressed {
            return Ok(wished.into_iter().flatten().map(IpNet::from).collect());
        }
        let mut addresses = Vec::new();
        for (enabled, v6) in [(record.enable_ipv4, false), (record.enable_ipv6, true)] {
            let wished = wished[usize::from(v6)];
            if !enabled && wished.is_none() {
                continue;
            }
            let taken = self.ipam.take(&record.id, v6, wished);
            if let Some(net) = taken.map_err(|e| no_address(record, v6, e))? {
                note_address(made, net);
                addresses.push(net);
            }
        }
        Ok(addresses)
    }

    /// An attachment was not made: nothing of it is under way any more.
    fn give_up(&self, place: &mut Place) {
        place.saved.under_way = None;
        let container = place.spec().container.as_str();
        if self.saved.has(container)
            && let Err(error) = self.saved.put(container, &place.saved)
        {
            tracing::warn!(container, %error, "an attachment that was not made is still written down");
        }
    }

    /// Makes the link of the attachment that is under way, and what is due to it.
    fn link(
        &self,
        place: &mut Place,
        network: &Network,
        info: &NetworkInfo,
        made: &mut EndpointInfo,
    ) -> Result<()> {
        let Some(mut endpoint) = place.saved.under_way.clone() else {
            return Err(NetworkError::internal("no attachment is under way"));
        };
        let driver = self.driver(&network.record.driver)?;
        if info.scope == Scope::Global {
            let names = dns_names(place, &made.config);
            endpoint.spec.addresses = self.allocate(network, &endpoint.spec, names)?;
        }
        let mut plan = self.join(&*driver, place, network, &endpoint.spec)?;
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
        endpoint.info = made.clone();
        endpoint.plan = plan;
        let lines = self.host_lines(place, made);
        let known = std::mem::replace(&mut endpoint.hosts, lines);
        let noted = match known == endpoint.hosts {
            true => Ok(()),
            false => self.begin(place, endpoint.clone()),
        };
        place.saved.under_way = None;
        place.saved.endpoints.push(endpoint);
        let configured = noted.and_then(|()| self.set_up(place));
        if configured.is_err()
            && let Some(endpoint) = place.saved.endpoints.pop()
        {
            self.detach(place, &endpoint);
            if let Err(error) = self.confine(place) {
                tracing::warn!(%error, "egress rules of before");
            }
        }
        configured
    }

    /// Sets up the link of the last attachment, and adds its lines to `hosts`.
    fn set_up(&self, place: &mut Place) -> Result<()> {
        self.confine(place)?;
        let Some(endpoint) = place.endpoints().last().cloned() else {
            return Ok(());
        };
        if !endpoint.plan.link.is_empty() {
            place.configure(&endpoint.plan, &endpoint.info.config)?;
        }
        files::add_hosts(&place.files, &endpoint.hosts)
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
}
