//! A sandbox from its making to its release.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use gantry_driver_api::Call;
use gantry_driver_api::network::{FirewallIntent, PortLease, SetExternal};
use gantry_model::ContainerId;
use gantry_netd::{Alias, Membership, SandboxNames};
use parking_lot::Mutex;

use crate::files::{self, HostLine};
use crate::inner::{Inner, Slot};
use crate::place::{Endpoint, Place};
use crate::ports::host_of;
use crate::resolv::Resolv;
use crate::{
    NetworkError, PortBinding, PortRequest, Result, Sandbox, SandboxFiles, SandboxMode, SandboxSpec,
};

impl Inner {
    pub(crate) fn sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        self.release(&spec.container);
        let container = spec.container.clone();
        let own_files = SandboxFiles::of(&spec.dir);
        let (netns, socket, files) = match &spec.mode {
            SandboxMode::Own => {
                let prepared = self
                    .pool
                    .take()
                    .map_err(|e| NetworkError::io("creating a network namespace", &e))?;
                (
                    Some(Arc::new(prepared.netns)),
                    Some(prepared.socket),
                    own_files,
                )
            }
            SandboxMode::Host => (None, None, own_files),
            SandboxMode::Container(other) => {
                let place = self.place(other)?;
                let place = place.lock();
                (place.netns.clone(), None, place.files.clone())
            }
        };
        let resolv = Resolv::of_host().for_container(&self.config, &spec);
        let mode = spec.mode.clone();
        let mut place = Place {
            saved: self.empty_saved(spec),
            files: files.clone(),
            netns,
            socket,
            resolv,
            gone: false,
        };
        self.write_files(&mut place)?;
        let netns = place.netns.as_ref().map(|fd| fd.try_clone()).transpose();
        let netns = netns.map_err(|e| NetworkError::io("duplicating a descriptor", &e))?;
        match mode {
            // It is about to be connected, and written down then.
            SandboxMode::Own => self.show(&place),
            _ => self.publish_view(&place)?,
        }
        let slot = Slot {
            mode,
            place: Arc::new(Mutex::new(place)),
        };
        self.sandboxes.lock().insert(container.clone(), slot);
        Ok(Sandbox {
            container,
            netns,
            files,
        })
    }

    fn write_files(&self, place: &mut Place) -> Result<()> {
        let spec = place.spec();
        let extra = self.extra_hosts(spec)?;
        let text = match spec.mode {
            SandboxMode::Container(_) => return Ok(()),
            SandboxMode::Host => {
                files::write_hosts(&place.files, Some(Path::new("/etc/hosts")), &extra)?;
                place.resolv.text()
            }
            SandboxMode::Own => {
                files::write_hosts(&place.files, None, &extra)?;
                place.resolv.clone().reachable().text()
            }
        };
        files::write_hostname(&place.files, &spec.hostname)?;
        files::write_resolv(&place.files, &text, None)?;
        place.saved.resolv = text;
        Ok(())
    }

    fn extra_hosts(&self, spec: &SandboxSpec) -> Result<Vec<HostLine>> {
        let mut lines = Vec::new();
        for entry in &spec.extra_hosts {
            let bad = || NetworkError::invalid(format!("bad format for add-host: {entry:?}"));
            let (name, address) = entry.split_once(':').ok_or_else(bad)?;
            if address == "host-gateway" {
                lines.extend(self.host_gateway().into_iter().map(|address| HostLine {
                    address,
                    names: name.to_owned(),
                }));
                continue;
            }
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let address = address.parse().map_err(|_| bad())?;
            lines.push(HostLine {
                address,
                names: name.to_owned(),
            });
        }
        Ok(lines)
    }

    pub(crate) fn publish(
        &self,
        container: &ContainerId,
        requests: Vec<PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let place = self.place(container)?;
        let mut place = place.lock();
        let old = std::mem::take(&mut place.saved.bindings);
        self.ports.release(container, &old);
        let leased = self.lease(&place, &requests);
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

    fn lease(&self, place: &Place, requests: &[PortRequest]) -> Result<Vec<PortBinding>> {
        let (v4, v6) = (place.gateway_endpoint(false), place.gateway_endpoint(true));
        let Some(first) = v4.or(v6).filter(|_| !requests.is_empty()) else {
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
        let container = &place.spec().container;
        self.ports.lease(container, requests, &hosts, &addresses).map_err(|e| {
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
            place.saved.bindings = self.lease(place, &place.saved.requests)?;
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

    /// Tells netd of the sandbox, and the sandbox of netd.
    pub(crate) fn tell_names(&self, place: &mut Place) -> Result<()> {
        if !place.endpoints().iter().any(|e| e.named) {
            return Ok(());
        }
        let Some(netns) = place.netns.clone() else {
            return Ok(());
        };
        self.names.put(sandbox_names(place), &netns)?;
        let text = place.resolv.internal_text();
        if text != place.saved.resolv {
            files::write_resolv(&place.files, &text, Some(&place.saved.resolv))?;
            place.saved.resolv = text;
        }
        Ok(())
    }

    pub(crate) fn rename(&self, container: &ContainerId, name: &str) -> Result<()> {
        let Ok(place) = self.place(container) else {
            return Ok(());
        };
        let mut place = place.lock();
        place.saved.spec.name = name.to_owned();
        let mut endpoints = std::mem::take(&mut place.saved.endpoints);
        for endpoint in endpoints
            .iter_mut()
            .filter(|e| !e.info.dns_names.is_empty())
        {
            endpoint.info.dns_names = crate::attach::dns_names(&place, &endpoint.info.config);
        }
        place.saved.endpoints = endpoints;
        self.tell_names(&mut place)?;
        self.publish_view(&place)
    }

    /// Gives everything back. What fails is logged and left to the next reconciliation.
    pub(crate) fn release(&self, container: &ContainerId) {
        let Some(slot) = self.sandboxes.lock().remove(container) else {
            return;
        };
        let mut place = slot.place.lock();
        place.gone = true;
        self.views.write().remove(container);
        let complain = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(%container, %error, "{what}");
        };
        if let Err(error) = self.firewall.exchange(&place.saved.intents, &[]) {
            complain("withdrawing ports", &error);
        }
        self.ports.release(container, &place.saved.bindings);
        if place.endpoints().iter().any(|e| e.named)
            && let Err(error) = self.names.remove(container.as_str())
        {
            complain("forgetting names", &error);
        }
        // A namespace that nobody else lives in takes its links with it.
        let live = slot.mode == SandboxMode::Own && self.is_shared(container);
        for endpoint in std::mem::take(&mut place.saved.endpoints) {
            self.detach(&place, &endpoint, live);
            self.let_go(&endpoint.info);
        }
        place.socket = None;
        place.netns = None;
        if let Err(error) = self.saved.remove(container.as_str()) {
            complain("forgetting a sandbox", &error);
        }
    }
}

fn lease_of(binding: &PortBinding) -> PortLease {
    PortLease {
        protocol: binding.protocol,
        host: host_of(binding),
        container_port: binding.container_port,
    }
}

/// What netd is told of a sandbox.
pub(crate) fn sandbox_names(place: &Place) -> SandboxNames {
    let membership = |endpoint: &Endpoint| Membership {
        network: endpoint.info.network.to_string(),
        network_name: endpoint.info.network_name.clone(),
        names: endpoint.info.dns_names.clone(),
        addresses: [endpoint.info.ipv4, endpoint.info.ipv6]
            .into_iter()
            .flatten()
            .collect(),
        aliases: endpoint
            .info
            .config
            .links
            .iter()
            .map(|link| Alias {
                alias: link.alias.clone(),
                name: link.name.clone(),
            })
            .collect(),
    };
    let leads_out = place.endpoints().iter().any(|e| !e.internal);
    SandboxNames {
        id: place.spec().container.to_string(),
        memberships: place
            .endpoints()
            .iter()
            .filter(|e| e.named)
            .map(membership)
            .collect(),
        upstreams: if leads_out {
            place.resolv.servers.clone()
        } else {
            Vec::new()
        },
    }
}

/// The pairs that [`crate::names::NameService::restore`] takes.
pub(crate) fn known_to_netd(place: &Place) -> Option<(SandboxNames, Arc<OwnedFd>)> {
    place.endpoints().iter().any(|e| e.named).then_some(())?;
    Some((sandbox_names(place), place.netns.clone()?))
}
