//! Networks on a Linux bridge, containers attached by veth pairs.
//!
//! One bridge per network, made when the network is. An endpoint's inner link is born inside the sandbox and joined to
//! the bridge in one message to the kernel; nothing is ever moved between namespaces. Addresses inside, routes, NAT
//! and ports are core's.
//!
//! Invariants:
//! - Every link that this driver makes is named after the engine's tag, or (a bridge whose name the user chose) noted
//!   in the driver's directory before it is made; a bridge that was there before is used and never removed.
//! - What is on a bridge of this driver's is what its network wants: addresses of an earlier configuration go.
//! - Removing a network answers at once; the kernel takes its time with the link on a thread of its own. A new network
//!   that wants the name waits for it.
//!
//! It keeps no list of endpoints that must survive: link names follow from endpoint IDs.

mod options;
mod state;

use gantry_plugin_sdk::bridges::{self, Bridges, Removals, Veth};
use gantry_plugin_sdk::links::{self, Names};
use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, GatewayMode, JoinPlan, NetworkInfo, NetworkPlan,
    NetworkRef, NetworkSpec, Scope, SetExternal,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Network, Reconcile,
};

use ipnet::IpNet;
use options::Options;
use state::{Bridge, State};

/// The first letters of link names.
const BRIDGE: char = 'b';
const VETH: char = 'v';

/// The driver.
#[derive(Debug)]
pub struct BridgeNetwork {
    names: Names,
    state: State,
    bridges: Bridges,
    removals: Removals,
    log: Log,
}

impl BridgeNetwork {
    /// A driver for the network namespace of the calling thread.
    ///
    /// # Errors
    /// When netlink or the driver's directory cannot be used.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        Ok(Self {
            names: Names::new(&config.tag),
            removals: Removals::open(&config.root, &config.tag, log.clone())?,
            state: State::open(config.root)?,
            bridges: Bridges::open()?,
            log,
        })
    }

    /// The bridge of a network that was made, by this process or by one before it.
    fn bridge(&self, id: &str) -> DriverResult<Bridge> {
        if let Some(bridge) = self.state.get(id) {
            return Ok(bridge);
        }
        let Some(note) = self.state.noted(id) else {
            return Err(DriverError::not_found(format!("network {id} is not known")));
        };
        let options = Options::of(&note.spec)?;
        self.ensure(&note.spec, options)
    }

    /// The bridge of a network, made or found, with its addresses on it and up.
    fn ensure(&self, spec: &NetworkSpec, options: Options) -> DriverResult<Bridge> {
        let known = self.state.noted(&spec.id);
        let link = options
            .link
            .clone()
            .or_else(|| known.as_ref().map(|note| note.link.clone()))
            .unwrap_or_else(|| self.names.name(BRIDGE, &spec.id));
        if let Some(other) = self.state.owner(&link).filter(|owner| *owner != spec.id) {
            return Err(DriverError::new(
                ErrorCode::PermissionDenied,
                format!(
                    "cannot create network {}: bridge name {link} is in use by network {other}",
                    spec.id
                ),
            ));
        }
        self.removals.wait_for(&link);
        let found = self.bridges.link(&link)?;
        // A link that is there at first sight is somebody else's.
        let ours = known.map_or(found.is_none(), |note| note.ours);
        self.state.note(spec, &link, ours)?;
        let gateways = spec.subnets.iter();
        let gateways: Vec<IpNet> = gateways
            .filter_map(|s| IpNet::new(s.gateway?, s.net.prefix_len()).ok())
            .collect();
        let has = |net: &&IpNet| options.has_address(net.addr().is_ipv6());
        let mut host = bridges::Bridge {
            link,
            index: found.as_ref().map_or(0, |found| found.index),
            addresses: gateways.iter().filter(has).copied().collect(),
            mtu: options.mtu,
            isolated: !options.icc,
        };
        // Where the bridge is given no address, it may have got one of the user's.
        if ours && found.is_some() && !options.inhibit_ipv4 {
            self.bridges.drop_other_addresses(&host)?;
        }
        host.index = self.bridges.ensure(&spec.id, &host)?;
        let bridge = Bridge {
            host,
            gateways,
            subnets: spec.subnets.iter().map(|s| s.net).collect(),
            internal: spec.internal,
            options,
        };
        self.state.set(&spec.id, bridge.clone());
        Ok(bridge)
    }

    fn attach(
        &self,
        call: &Call<'_>,
        spec: &EndpointSpec,
        bridge: &Bridge,
        plan: &JoinPlan,
    ) -> DriverResult<()> {
        let Some(netns) = call.fds.first() else {
            return Err(DriverError::invalid("join needs the sandbox's namespace"));
        };
        let veth = Veth {
            outer: &plan.outer,
            inner: &plan.link,
            mac: plan.mac.parse().ok(),
            netns: *netns,
        };
        self.removals.join(&plan.outer, &spec.addresses);
        match self.bridges.attach(&bridge.host, &veth) {
            Err(e) if e.code == ErrorCode::NotFound => {
                // Somebody removed the bridge under us.
                let link = &bridge.host.link;
                self.log
                    .warn(format!("bridge {link} is gone, making it again"));
                let mut bridge = bridge.clone();
                bridge.host.index = self.bridges.ensure(&spec.network, &bridge.host)?;
                self.state.set(&spec.network, bridge.clone());
                self.bridges.attach(&bridge.host, &veth)
            }
            result => result,
        }
    }
}

impl Driver for BridgeNetwork {
    fn reconcile(&self, _: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        let veths: Vec<String> = live
            .endpoints
            .iter()
            .map(|id| self.names.name(VETH, id))
            .collect();
        let kept = self.state.retain(&live.live);
        for link in self.bridges.links()? {
            let orphan = if self.names.is(VETH, &link.name) {
                !veths.contains(&link.name)
            } else {
                let made_here = self.names.is(BRIDGE, &link.name);
                (made_here || kept.orphans.contains(&link.name)) && !kept.live.contains(&link.name)
            };
            if orphan {
                self.log
                    .info(format!("removing leftover link {}", link.name));
                self.removals.begin(&[&link.name]);
            }
        }
        Ok(())
    }

    fn drain(&self, _: &Call<'_>) -> DriverResult<()> {
        self.removals.finish();
        Ok(())
    }

    fn shutdown(&self, _: &Call<'_>) -> DriverResult<()> {
        self.removals.finish();
        Ok(())
    }
}

impl Network for BridgeNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: true,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        Options::of(&spec).map(drop)
    }

    fn create_network(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        let bridge = self.ensure(&spec, Options::of(&spec)?)?;
        let options = bridge.options;
        let isolated = |v6| options.ways.mode(v6) == GatewayMode::Isolated;
        Ok(NetworkPlan {
            no_gateway_ipv4: isolated(false) || (bridge.internal && options.inhibit_ipv4),
            no_gateway_ipv6: isolated(true),
            firewall: vec![FirewallIntent::Bridge {
                link: bridge.host.link,
                subnets: bridge.subnets,
                masquerade: options.masquerade && !bridge.internal,
                internal: bridge.internal,
                icc: options.icc,
                ways: options.ways,
            }],
        })
    }

    fn delete_network(&self, _: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        if let Some(note) = self.state.noted(&network.id)
            && note.ours
        {
            self.removals.begin(&[&note.link]);
        }
        self.state.forget(&network.id)
    }

    fn create_endpoint(&self, _: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        self.bridge(&spec.network)?;
        links::mac(&spec).map(drop)
    }

    fn delete_endpoint(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        Ok(())
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        let bridge = self.bridge(&spec.network)?;
        let mac = links::mac(&spec)?;
        let gateways = if bridge.internal {
            Vec::new()
        } else {
            bridge.gateways.iter().map(IpNet::addr).collect()
        };
        let plan = JoinPlan {
            link: bridge.options.inner_link(&spec),
            mac: mac.to_string(),
            addresses: spec.addresses.clone(),
            gateways,
            mtu: bridge.options.mtu,
            outer: self.names.name(VETH, &spec.id),
            routed_ipv4: bridge.options.ways.ipv4 == GatewayMode::Routed,
            routed_ipv6: bridge.options.ways.ipv6 == GatewayMode::Routed,
            ..JoinPlan::default()
        };
        self.attach(call, &spec, &bridge, &plan)?;
        Ok(plan)
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        let outer = self.names.name(VETH, &endpoint.id);
        self.removals.leave(outer, !call.fds.is_empty())
    }

    fn set_external(
        &self,
        _: &Call<'_>,
        request: SetExternal,
    ) -> DriverResult<Vec<FirewallIntent>> {
        let bridge = self.bridge(&request.endpoint.network)?;
        if !request.ports.is_empty() {
            let outer = self.names.name(VETH, &request.endpoint.id);
            self.bridges.allow_hairpin(&bridge.host, &outer)?;
        }
        let ways = &bridge.options.ways;
        let mut intents = Vec::with_capacity(request.ports.len());
        for lease in &request.ports {
            let Some(target) = bridges::target(&request.endpoint, lease) else {
                continue;
            };
            let routed = ways.mode(target.is_ipv6()) == GatewayMode::Routed;
            if !routed {
                intents.push(bridges::publish(lease, target, &bridge.host.link));
            }
            if routed || !ways.trusted.is_empty() {
                intents.push(FirewallIntent::Direct {
                    protocol: lease.protocol,
                    target,
                });
            }
        }
        Ok(intents)
    }
}

gantry_plugin_sdk::plugin! { kind: network, driver: BridgeNetwork, name: "bridge" }

#[cfg(test)]
mod tests;
