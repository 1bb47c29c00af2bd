//! Published ports of a sandbox: leased, then translated by the kernel or relayed by netd.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gantry_driver_api::Call;
use gantry_driver_api::network::{FirewallIntent, PortLease, Protocol, SetExternal};
use gantry_model::ContainerId;
use serde::{Deserialize, Serialize};

use crate::inner::Inner;
use crate::place::{Endpoint, Place};
use crate::ports::host_of;
use crate::relay::{self, RelayPort, Relaying, shift};
use crate::rows::{InRow, Rows};
use crate::{NetworkError, PortBinding, PortRequest, Result};

impl InRow for FirewallIntent {
    fn after(&self, by: u16) -> Option<Self> {
        let mut next = self.clone();
        match &mut next {
            Self::Publish { host, target, .. } => {
                (*host, *target) = (shift(*host, by)?, shift(*target, by)?);
            }
            Self::Direct { target, .. } => *target = shift(*target, by)?,
            Self::Bridge { .. } if by > 0 => return None,
            Self::Bridge { .. } => {}
        }
        Some(next)
    }
}

/// How ports get to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Published {
    /// What the firewall is to do.
    pub(crate) intents: Rows<FirewallIntent>,
    /// What netd is to relay.
    #[serde(default)]
    pub(crate) relays: Rows<RelayPort>,
    /// How it was decided which is which.
    #[serde(default)]
    pub(crate) relaying: Relaying,
    /// Published ports are reached at the container's own address as well.
    #[serde(default)]
    pub(crate) direct: bool,
}

impl Published {
    pub(crate) fn extend(&mut self, other: &Self) {
        self.intents.extend(other.intents.iter());
        self.relays.extend(other.relays.iter());
    }
}

/// So many ports take megabytes on their way here, in small pieces.
const MANY: usize = 4096;

/// The endpoints that have a sandbox's default routes.
type Gateways<'a> = [Option<&'a Endpoint>; 2];

impl Inner {
    pub(crate) fn publish(
        &self,
        container: &ContainerId,
        requests: Vec<PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let place = self.place(container)?;
        let mut place = place.lock();
        let old = std::mem::take(&mut place.saved.bindings);
        let old: Vec<_> = old.iter().collect();
        let requests: Rows<PortRequest> = requests.into_iter().collect();
        let leased = self.lease(&place, &old, requests.iter());
        place.saved.requests = match leased {
            Ok(_) => requests,
            Err(_) => {
                self.ports.release(container, old.into_iter());
                Rows::default()
            }
        };
        place.saved.bindings = leased.iter().flatten().cloned().collect();
        let moved = self.move_ports(&mut place);
        if moved.is_err() {
            self.ports.release(container, place.saved.bindings.iter());
            place.saved.bindings = Rows::default();
            place.saved.requests = Rows::default();
        }
        self.publish_view(&place)?;
        if leased.as_ref().is_ok_and(|leased| leased.len() > MANY) {
            gantry_sys::heap::give_back();
        }
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
        let remove: HashSet<_> = remove.iter().copied().collect();
        let (gone, mut now): (Vec<_>, Vec<_>) = bindings
            .iter()
            .partition(|b| remove.contains(&(b.protocol, b.container_port)));
        let new = self.lease(&place, &gone, add.iter().cloned())?;
        now.extend(new.iter().cloned());
        place.saved.bindings = now.iter().cloned().collect();
        let kept = requests
            .iter()
            .filter(|r| !remove.contains(&(r.protocol, r.container_port)));
        place.saved.requests = kept.chain(add.iter().cloned()).collect();
        let changed = self
            .move_ports(&mut place)
            .and_then(|()| self.publish_view(&place));
        if let Err(error) = changed {
            self.ports.release(container, new.into_iter());
            self.ports.keep(container, gone.into_iter());
            (place.saved.requests, place.saved.bindings) = (requests, bindings);
            if let Err(error) = self.move_ports(&mut place) {
                tracing::error!(%container, %error, "cannot publish the ports of before");
            }
            self.show(&place);
            return Err(error);
        }
        Ok(now)
    }

    /// Leases what `requests` want in exchange for `gone`; nothing in a sandbox without a way out.
    fn lease(
        &self,
        place: &Place,
        gone: &[PortBinding],
        requests: impl Iterator<Item = PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let container = &place.spec().container;
        let gateways: Gateways = [false, true].map(|v6| place.gateway_endpoint(v6));
        let mut requests = requests.peekable();
        let first = gateways[0].or(gateways[1]);
        let Some(first) = first.filter(|_| requests.peek().is_some()) else {
            self.ports.release(container, gone.iter().cloned());
            return Ok(Vec::new());
        };
        let mut routed = Vec::new();
        let requests = requests.inspect(|request| routed.extend(unleased(request, gateways)));
        let hosts = self.hosts(first, gateways);
        let of = |e: &Endpoint| [e.info.ipv4, e.info.ipv6];
        let addresses: Vec<IpAddr> = of(first).into_iter().flatten().collect();
        let leased = self
            .ports
            .exchange(container, gone, requests, hosts, &addresses);
        let mut leased = leased.map_err(|e| unpublished(place, first, e))?;
        leased.extend(routed);
        Ok(leased)
    }

    /// Where a request's port is taken on the host: where it leads somewhere.
    fn hosts<'a>(
        &self,
        first: &Endpoint,
        gateways: Gateways<'a>,
    ) -> impl Fn(&PortRequest) -> Vec<IpAddr> + use<'a> {
        let [v4, v6] = [false, true]
            .map(|v6| gateways[usize::from(v6)].filter(|endpoint| !is_routed(endpoint, v6)));
        // Without IPv6 of its own, a container gets what comes by IPv6 from netd.
        let crossing =
            v4.is_some() && gateways[1].is_none() && self.relaying() != Relaying::Nothing;
        let host_v6 = v6.is_some() || (crossing && relay::host_has_v6());
        let leads = move |ip: IpAddr, protocol| match ip {
            IpAddr::V4(_) => v4.is_some(),
            IpAddr::V6(_) => v6.is_some() || (crossing && relay::is_udp(protocol).is_some()),
        };
        let flag = self
            .config
            .bridge
            .host_ip
            .filter(|_| first.info.dns_names.is_empty());
        let any = match first.host_binding.or(flag) {
            Some(ip) => vec![ip],
            None => {
                let v4 = Some(IpAddr::from(Ipv4Addr::UNSPECIFIED));
                let v6 = host_v6.then_some(IpAddr::from(Ipv6Addr::UNSPECIFIED));
                v4.into_iter().chain(v6).collect()
            }
        };
        move |request| {
            let mut ips = match request.host_ip {
                Some(ip) => vec![ip],
                None => any.clone(),
            };
            ips.retain(|ip| leads(*ip, request.protocol));
            ips
        }
    }

    /// Has the leased ports lead to the attachments that have the default routes now.
    pub(crate) fn move_ports(&self, place: &mut Place) -> Result<()> {
        self.lead_ports(place, false)
    }

    /// The same. `patient`: a port that another program has is no error, and is relayed when it is free.
    pub(crate) fn lead_ports(&self, place: &mut Place, patient: bool) -> Result<()> {
        if place.saved.bindings.is_empty() && !place.saved.requests.is_empty() {
            // There was no way out when they were asked for.
            let leased = self.lease(place, &[], place.saved.requests.iter())?;
            place.saved.bindings = leased.into_iter().collect();
        }
        let mut published = Published::default();
        if !place.saved.bindings.is_empty() {
            (published.relaying, published.direct) = self.ways();
        }
        for v6 in [false, true] {
            if let Some(endpoint) = place.gateway_endpoint(v6) {
                self.ways_to(place, endpoint, v6, &mut published)?;
            }
        }
        if published == place.saved.published {
            return Ok(());
        }
        self.exchange(place, &published, patient)?;
        place.saved.published = published;
        Ok(())
    }

    /// How ports get to sandboxes by the daemon's options.
    pub(crate) fn ways(&self) -> (Relaying, bool) {
        (self.relaying(), self.config.allow_direct_routing)
    }

    /// What the driver of an endpoint says about the ports of one family, and what of it is relayed.
    fn ways_to(
        &self,
        place: &Place,
        endpoint: &Endpoint,
        v6: bool,
        published: &mut Published,
    ) -> Result<()> {
        let alone = place.gateway_endpoint(true).is_none();
        let (native, crossing): (Vec<_>, Vec<_>) = place
            .saved
            .bindings
            .iter()
            .filter(|b| b.host_ip.is_ipv6() == v6 || (alone && !v6))
            .partition(|b| b.host_ip.is_ipv6() == v6);
        let mut ports: Vec<PortLease> = native.iter().map(lease_of).collect();
        let own: HashSet<_> = native.iter().map(|b| (b.protocol, host_of(b))).collect();
        let mut inside: HashSet<_> = native
            .iter()
            .map(|b| (b.protocol, b.container_port))
            .collect();
        // The driver knows only ports of the container's family.
        let stand_in = |b: &PortBinding| PortLease {
            host: (Ipv4Addr::UNSPECIFIED, b.host_port).into(),
            ..lease_of(b)
        };
        let more = crossing
            .iter()
            .filter(|b| inside.insert((b.protocol, b.container_port)));
        ports.extend(more.map(stand_in));
        if ports.is_empty() {
            return Ok(());
        }
        let request = SetExternal {
            endpoint: endpoint.spec.clone(),
            ports,
        };
        let driver = self.driver(&endpoint.driver)?;
        let answer = driver.set_external(&Call::new("publish"), request)?;
        let relaying = self.relaying();
        let mut targets = HashMap::new();
        for intent in answer {
            if let FirewallIntent::Publish {
                protocol,
                host,
                target,
                ..
            } = &intent
            {
                targets.insert((*protocol, target.port()), *target);
                if !own.contains(&(*protocol, *host)) {
                    continue;
                }
                published.relays.extend(self.relay_of(&intent));
                if self.config.allow_direct_routing {
                    published.intents.push(FirewallIntent::Direct {
                        protocol: *protocol,
                        target: *target,
                    });
                }
                // The kernel cannot translate ::1, and need not know of it.
                if host.ip() == Ipv6Addr::LOCALHOST {
                    continue;
                }
            }
            published.intents.push(intent);
        }
        let crossing = crossing.iter().filter(|_| relaying != Relaying::Nothing);
        let relays = crossing.filter_map(|b| {
            let target = targets.get(&(b.protocol, b.container_port))?;
            self.relay_port(b.protocol, host_of(b), *target)
        });
        published.relays.extend(relays);
        Ok(())
    }

    /// Tells netd and the kernel, in the order in which nothing is led where nobody waits for it.
    fn exchange(&self, place: &Place, published: &Published, patient: bool) -> Result<()> {
        let id = place.spec().container.as_str();
        let before = &place.saved.published;
        if before.relays != published.relays {
            let relays = relay::for_netd(&published.relays);
            let told = self.names.relay(id, relays, patient);
            told.map_err(|e| match place.gateway_endpoint(false) {
                Some(endpoint) => unpublished(place, endpoint, e),
                None => e,
            })?;
        }
        self.firewall.exchange(before, published).map_err(|e| {
            if let Err(error) = self.names.relay(id, relay::for_netd(&before.relays), true) {
                tracing::warn!(container = id, %error, "relays of before");
            }
            NetworkError::io("publishing ports", &e)
        })
    }

    /// Withdraws all ports of a sandbox that ends. What fails is logged and left to the next reconciliation.
    pub(crate) fn withdraw_ports(&self, place: &Place) {
        let id = place.spec().container.as_str();
        let published = &place.saved.published;
        if let Err(error) = self.firewall.exchange(published, &Published::default()) {
            tracing::warn!(container = id, %error, "withdrawing ports");
        }
        if let Err(error) = self.names.forget_relays(id) {
            tracing::warn!(container = id, %error, "ending relays");
        }
        self.ports
            .release(&place.spec().container, place.saved.bindings.iter());
    }
}

/// The error of a sandbox whose ports are not to be had.
fn unpublished(place: &Place, endpoint: &Endpoint, why: NetworkError) -> NetworkError {
    let text = format!(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): {}",
        place.spec().name,
        endpoint.info.endpoint,
        why.message
    );
    NetworkError::new(why.kind, text)
}

fn lease_of(binding: &PortBinding) -> PortLease {
    PortLease {
        protocol: binding.protocol,
        host: host_of(binding),
        container_port: binding.container_port,
    }
}

fn is_routed(endpoint: &Endpoint, v6: bool) -> bool {
    match v6 {
        true => endpoint.plan.routed_ipv6,
        false => endpoint.plan.routed_ipv4,
    }
}

/// A port that is reached at the container's own address, for which none of the host is taken.
fn unleased<'a>(
    request: &PortRequest,
    gateways: Gateways<'a>,
) -> impl Iterator<Item = PortBinding> + use<'a> {
    let (protocol, container_port) = (request.protocol, request.container_port);
    let wished = request.host_ip.map(|ip| ip.is_ipv6());
    let families = [false, true].into_iter().filter(move |v6| {
        let endpoint = gateways[usize::from(*v6)];
        endpoint.is_some_and(|e| is_routed(e, *v6)) && wished.is_none_or(|wished| wished == *v6)
    });
    families.map(move |v6| PortBinding {
        protocol,
        container_port,
        host_ip: match v6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        },
        host_port: 0,
    })
}
