//! Published ports of a sandbox: leased, then translated by the kernel.

use std::net::IpAddr;

use gantry_driver_api::Call;
use gantry_driver_api::network::{FirewallIntent, PortLease, Protocol, SetExternal};
use gantry_model::ContainerId;

use crate::inner::Inner;
use crate::place::{Endpoint, Place};
use crate::ports::host_of;
use crate::{NetworkError, PortBinding, PortRequest, Result};

impl Inner {
    pub(crate) fn publish(
        &self,
        container: &ContainerId,
        requests: Vec<PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let place = self.place(container)?;
        let mut place = place.lock();
        let old = std::mem::take(&mut place.saved.bindings);
        self.ports.release(container, &old);
        let leased = self.lease(&place, &[], &requests);
        place.saved.requests = if leased.is_ok() { requests } else { Vec::new() };
        place.saved.bindings = leased.as_ref().cloned().unwrap_or_default();
        let moved = self.move_ports(&mut place);
        if moved.is_err() {
            self.ports.release(container, &place.saved.bindings);
            place.saved.bindings.clear();
            place.saved.requests.clear();
        }
        self.publish_view(&place)?;
        moved.and(leased)
    }

    /// Publishes further ports of a sandbox and withdraws others; on failure all is as it was.
    pub(crate) fn change_ports(
        &self,
        container: &ContainerId,
        add: &[PortRequest],
        remove: &[(Protocol, u16)],
    ) -> Result<Vec<PortBinding>> {
        let place = self.place(container)?;
        let mut place = place.lock();
        if place.gone {
            return Err(NetworkError::conflict(format!(
                "container {container} is not running"
            )));
        }
        let (requests, bindings) = (place.saved.requests.clone(), place.saved.bindings.clone());
        let withdrawn = |protocol, port| remove.contains(&(protocol, port));
        let (gone, mut now): (Vec<_>, Vec<_>) = bindings
            .iter()
            .cloned()
            .partition(|b| withdrawn(b.protocol, b.container_port));
        let new = self.lease(&place, &gone, add)?;
        now.extend(new.iter().cloned());
        place.saved.bindings = now;
        place
            .saved
            .requests
            .retain(|r| !withdrawn(r.protocol, r.container_port));
        place.saved.requests.extend_from_slice(add);
        let changed = self
            .move_ports(&mut place)
            .and_then(|()| self.publish_view(&place));
        if let Err(error) = changed {
            self.ports.release(container, &new);
            self.ports.keep(container, &gone);
            (place.saved.requests, place.saved.bindings) = (requests, bindings);
            if let Err(error) = self.move_ports(&mut place) {
                tracing::error!(%container, %error, "cannot publish the ports of before");
            }
            self.show(&place);
            return Err(error);
        }
        Ok(place.saved.bindings.clone())
    }

    /// Leases what `requests` want in exchange for `gone`; nothing in a sandbox without a way out.
    fn lease(
        &self,
        place: &Place,
        gone: &[PortBinding],
        requests: &[PortRequest],
    ) -> Result<Vec<PortBinding>> {
        let container = &place.spec().container;
        let (v4, v6) = (place.gateway_endpoint(false), place.gateway_endpoint(true));
        let Some(first) = v4.or(v6).filter(|_| !requests.is_empty()) else {
            self.ports.release(container, gone);
            return Ok(Vec::new());
        };
        let mut hosts = Vec::new();
        let flag = self
            .config
            .bridge
            .host_ip
            .filter(|_| first.info.dns_names.is_empty());
        match first.host_binding.or(flag) {
            Some(ip) => hosts.push(ip),
            None => {
                hosts.extend(v4.map(|_| IpAddr::V4(0.into())));
                hosts.extend(v6.map(|_| IpAddr::V6(0.into())));
            }
        }
        let of = |e: &Endpoint| [e.info.ipv4, e.info.ipv6];
        let addresses: Vec<IpAddr> = of(first).into_iter().flatten().collect();
        self.ports.exchange(container, gone, requests, &hosts, &addresses).map_err(|e| {
            NetworkError::new(
                e.kind,
                format!(
                    "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): {}",
                    place.spec().name, first.info.endpoint, e.message
                ),
            )
        })
    }

    /// Makes the kernel translate the leased ports to the attachments that have the default routes now.
    pub(crate) fn move_ports(&self, place: &mut Place) -> Result<()> {
        if place.saved.bindings.is_empty() && !place.saved.requests.is_empty() {
            // There was no way out when they were asked for.
            place.saved.bindings = self.lease(place, &[], &place.saved.requests)?;
        }
        let mut intents: Vec<FirewallIntent> = Vec::new();
        for v6 in [false, true] {
            let of_family = |b: &&PortBinding| b.host_ip.is_ipv6() == v6;
            let ports: Vec<PortLease> = place
                .saved
                .bindings
                .iter()
                .filter(of_family)
                .map(lease_of)
                .collect();
            if ports.is_empty() {
                continue;
            }
            if let Some(endpoint) = place.gateway_endpoint(v6) {
                let request = SetExternal {
                    endpoint: endpoint.spec.clone(),
                    ports,
                };
                let driver = self.driver(&endpoint.driver)?;
                intents.extend(driver.set_external(&Call::new("publish"), request)?);
            }
        }
        if intents == place.saved.intents {
            return Ok(());
        }
        self.firewall
            .exchange(&place.saved.intents, &intents)
            .map_err(|e| NetworkError::io("publishing ports", &e))?;
        place.saved.intents = intents;
        Ok(())
    }
}

fn lease_of(binding: &PortBinding) -> PortLease {
    PortLease {
        protocol: binding.protocol,
        host: host_of(binding),
        container_port: binding.container_port,
    }
}
