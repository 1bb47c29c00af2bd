//! Networks that reach over several hosts: Ethernet in UDP (VXLAN) between bridges, with etcd as what the hosts agree by.
//!
//! - `share` and `unshare` change the set of networks, one change after the other (`share`); `allocate` takes addresses
//!   for an endpoint (`addresses`). Both are transactions of the store: of two hosts that want the same, one gets it.
//! - `follow` keeps a mirror of the store; `shared` and `members` are answered from it, and every change of endpoints is
//!   told to the kernel by a thread of its own (`plane`).
//! - `beat` keeps this host's lease, removes what lost hosts had after a grace of minutes, and puts back what this host
//!   has when it was away itself.
//! - `lost` gives a store that was emptied or set back what the hosts know; `mark` is how they notice.
//! - `secure` has the kernel encrypt what goes between hosts for networks that ask for it.
//!
//! Invariants:
//! - The kernel keeps forwarding while the driver, the engine or the store is away; nothing on the way of a packet asks
//!   any of them. What cannot be given back to the store now is noted and given back later.
//! - An address has one key in the store. It goes in the same transaction as its endpoint, never alone.
//! - Every link that this driver makes is named after the engine's tag.
//!
//! It does not learn, flood, or carry broadcasts between hosts.

mod address;
mod addresses;
mod beat;
mod claim;
mod cluster;
mod etcd;
mod follow;
mod forget;
mod lost;
mod mark;
mod member;
mod mirror;
mod options;
mod plane;
mod pools;
mod records;
mod secure;
mod share;
mod space;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::bridges::{self, Bridge, Veth};
use gantry_plugin_sdk::links;
use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, Members, NetworkInfo, NetworkPlan,
    NetworkRef, NetworkSpec, Scope, SetExternal, SharedEndpoint, SharedNetwork, SharedNetworks,
    Watch,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Network,
    Reconcile,
};
use ipnet::IpNet;

use cluster::Cluster;
use member::Member;
use options::{NetworkOptions, Options};
use plane::{Plan, Plane, VETH};

/// The driver.
#[derive(Debug)]
pub struct OverlayNetwork {
    plane: Arc<Plane>,
    member: Option<Member>,
}

/// The longest that a call waits for changes.
const LONGEST_WATCH: Duration = Duration::from_secs(30);

/// Until when a call may wait for changes: somewhat less than its caller does.
fn until(call: &Call<'_>) -> Instant {
    let timeout = call.timeout.unwrap_or(LONGEST_WATCH).min(LONGEST_WATCH);
    Instant::now() + timeout - (timeout / 10).min(Duration::from_secs(1))
}

impl OverlayNetwork {
    /// A driver for the network namespace of the calling thread.
    ///
    /// # Errors
    /// When an option is wrong, or netlink or the driver's directory cannot be used. That the store does not answer is
    /// no error.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        let options = Options::parse(config.options)?;
        let is_member = !options.etcd.is_empty();
        let root = &config.root;
        let cluster = match is_member {
            true => Some(Arc::new(Cluster::new(options, root, log.clone())?)),
            false => None,
        };
        let host = cluster.as_ref().map_or("", |cluster| &cluster.host);
        let plane = Arc::new(Plane::open(root, &config.tag, host, log)?);
        let start = |cluster| Member::start(cluster, Arc::clone(&plane));
        let member = cluster.map(start).transpose()?;
        Ok(Self { plane, member })
    }

    fn member(&self) -> DriverResult<&Member> {
        self.member.as_ref().ok_or_else(|| {
            DriverError::new(
                ErrorCode::FailedPrecondition,
                "This host is not a member of a cluster, which overlay networks need. Say where etcd is in the daemon's \
                 configuration, and try again: \"drivers\": {\"network\": {\"overlay\": {\"options\": {\"etcd\": \
                 [\"http://10.0.0.1:2379\"]}}}}",
            )
        })
    }

    fn attach(&self, call: &Call<'_>, spec: &EndpointSpec, plan: &JoinPlan) -> DriverResult<()> {
        let Some(netns) = call.fds.first() else {
            return Err(DriverError::invalid("join needs the sandbox's namespace"));
        };
        let veth = Veth {
            outer: &plan.outer,
            inner: &plan.link,
            mac: plan.mac.parse().ok(),
            netns: *netns,
        };
        let (bridge, _) = self.bridge(&spec.network)?;
        self.plane.removals.join(&plan.outer, &spec.addresses);
        match self.plane.bridges.attach(&bridge, &veth) {
            Err(e) if e.code == ErrorCode::NotFound => {
                // Somebody removed the bridge under us.
                self.plane.doubt(&spec.network);
                let (bridge, _) = self.bridge(&spec.network)?;
                self.plane.bridges.attach(&bridge, &veth)
            }
            result => result,
        }
    }

    /// A network's bridge. One that this process had not looked at was told nothing meanwhile.
    fn bridge(&self, network: &str) -> DriverResult<(Bridge, NetworkSpec)> {
        let is_served = self.plane.is_served(network);
        let found = self.plane.bridge(network)?;
        if !is_served {
            self.tell(network);
        }
        Ok(found)
    }

    /// Tells a network's link what the mirror knows.
    fn tell(&self, network: &str) {
        let touched = mirror::Touched::These([network.to_owned()].into());
        if let Some(member) = &self.member {
            let mirror = &member.cluster.mirror;
            mirror.look(|tables| self.plane.tell(tables, &touched));
        }
    }
}

impl Driver for OverlayNetwork {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        Ok(match self.member() {
            Ok(member) => member.health(),
            Err(error) => Health {
                healthy: true,
                message: error.message,
                status: Vec::new(),
            },
        })
    }

    fn reconcile(&self, _: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        let present = self.member.as_ref().and_then(|member| {
            let local = member.cluster.address().ok()?;
            Some((local, &member.cluster.options))
        });
        self.plane.reconcile(&live.live, &live.endpoints, |plan| {
            if let Some((local, options)) = present {
                plan.local = local;
                plan.port = options.port_of(plan.encrypted);
            }
        })?;
        let Some(member) = &self.member else {
            return Ok(());
        };
        let cluster = &member.cluster;
        let held = cluster.held.lock().all();
        for (id, _) in held.iter().filter(|(id, _)| !live.endpoints.contains(id)) {
            cluster.give_back(id)?;
        }
        cluster
            .mirror
            .look(|tables| self.plane.tell(tables, &mirror::Touched::Any));
        Ok(())
    }

    fn drain(&self, _: &Call<'_>) -> DriverResult<()> {
        self.plane.finish();
        Ok(())
    }

    fn shutdown(&self, _: &Call<'_>) -> DriverResult<()> {
        self.plane.finish();
        Ok(())
    }
}

impl Network for OverlayNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Global,
            own_namespace: true,
            addressed: true,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        self.member()?;
        match NetworkOptions::parse(&spec.options)?.encrypted {
            true => secure::check(),
            false => Ok(()),
        }
    }

    fn create_network(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        let cluster = &self.member()?.cluster;
        let options = NetworkOptions::parse(&spec.options)?;
        let Some(vni) = options.vni else {
            return Err(DriverError::invalid(format!(
                "network {} was not shared: it has no {}",
                spec.id,
                options::VNI
            )));
        };
        let id = spec.id.clone();
        let subnets = spec.subnets.iter().map(|s| s.net).collect();
        let internal = spec.internal;
        let bridge = self.plane.ensure(Plan {
            spec,
            vni,
            port: cluster.options.port_of(options.encrypted),
            local: cluster.address()?,
            mtu: options.mtu,
            encrypted: options.encrypted,
        })?;
        self.tell(&id);
        // Keys may be to be drawn.
        cluster.nudge.notify_one();
        Ok(NetworkPlan {
            firewall: vec![FirewallIntent::Bridge {
                link: bridge.link,
                subnets,
                masquerade: !internal,
                internal,
                icc: true,
                ways: Default::default(),
            }],
            ..NetworkPlan::default()
        })
    }

    fn delete_network(&self, _: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        self.plane.remove(&network.id)
    }

    fn create_endpoint(&self, _: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        self.bridge(&spec.network)?;
        links::mac(&spec).map(drop)
    }

    fn delete_endpoint(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        match &self.member {
            Some(member) => member.give_back(call, &endpoint.id),
            None => Ok(()),
        }
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        let (bridge, network) = self.bridge(&spec.network)?;
        let gateways = bridge.addresses.iter().map(IpNet::addr);
        let plan = JoinPlan {
            link: links::inner_name(&spec).unwrap_or_else(|| spec.link.clone()),
            mac: links::mac(&spec)?.to_string(),
            addresses: spec.addresses.clone(),
            gateways: gateways.filter(|_| !network.internal).collect(),
            mtu: bridge.mtu,
            outer: self.plane.names.name(VETH, &spec.id),
            ..JoinPlan::default()
        };
        self.attach(call, &spec, &plan)?;
        Ok(plan)
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        let outer = self.plane.names.name(VETH, &endpoint.id);
        self.plane.removals.leave(outer, !call.fds.is_empty())
    }

    fn set_external(
        &self,
        _: &Call<'_>,
        request: SetExternal,
    ) -> DriverResult<Vec<FirewallIntent>> {
        let (bridge, _) = self.bridge(&request.endpoint.network)?;
        if !request.ports.is_empty() {
            let outer = self.plane.names.name(VETH, &request.endpoint.id);
            self.plane.bridges.allow_hairpin(&bridge, &outer)?;
        }
        let published = request.ports.iter().filter_map(|lease| {
            let target = bridges::target(&request.endpoint, lease)?;
            Some(bridges::publish(lease, target, &bridge.link))
        });
        Ok(published.collect())
    }

    fn share(&self, call: &Call<'_>, network: SharedNetwork) -> DriverResult<SharedNetwork> {
        let member = self.member()?;
        records::check_id(&network.id)?;
        if network.name.is_empty() || !(network.enable_ipv4 || network.enable_ipv6) {
            return Err(DriverError::invalid(
                "a network has a name, and IPv4 or IPv6 enabled",
            ));
        }
        if NetworkOptions::parse(&network.options)?.encrypted {
            secure::check()?;
        }
        let routes = share::routes();
        member.run(
            call,
            share::share(Arc::clone(&member.cluster), network, routes),
        )
    }

    fn unshare(&self, call: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        let member = self.member()?;
        records::check_id(&network.id)?;
        member.run(
            call,
            share::unshare(Arc::clone(&member.cluster), network.id),
        )
    }

    fn shared(&self, call: &Call<'_>, watch: Watch) -> DriverResult<SharedNetworks> {
        let mirror = &self.member()?.cluster.mirror;
        let found = mirror.networks(watch.since, until(call));
        found.ok_or_else(Cluster::unheard)
    }

    fn allocate(&self, call: &Call<'_>, wish: SharedEndpoint) -> DriverResult<Vec<IpNet>> {
        let member = self.member()?;
        let cluster = &member.cluster;
        let id = wish.endpoint.id.clone();
        records::check_id(&id)?;
        records::check_id(&wish.endpoint.network)?;
        let is_held = cluster
            .held
            .lock()
            .get(&id)
            .is_some_and(|held| !held.released);
        let given = member.run(call, addresses::allocate(Arc::clone(cluster), wish));
        if given.is_err() && !is_held {
            // The store may have given them all the same.
            cluster.give_back(&id)?;
        }
        given
    }

    fn members(&self, call: &Call<'_>, watch: Watch) -> DriverResult<Members> {
        let mirror = &self.member()?.cluster.mirror;
        let found = mirror.members(watch.since, until(call));
        found.ok_or_else(Cluster::unheard)
    }
}

gantry_plugin_sdk::plugin! {
    kind: network,
    driver: OverlayNetwork,
    name: "overlay",
    capabilities: ["share", "unshare", "shared", "allocate", "members"],
    options: r#"{
        "type": "object",
        "properties": {
            "etcd": {
                "type": "array", "items": {"type": "string"},
                "description": "Where etcd (version 3) answers, as URLs: http://10.0.0.1:2379. The next one is asked when one does not answer."
            },
            "advertise": {"type": "string", "description": "The address that other hosts send to. Default: the one that etcd sees."},
            "prefix": {"type": "string", "description": "What all keys in etcd begin with. Default: /gantry."},
            "pools": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"base": {"type": "string"}, "size": {"type": "integer"}},
                    "required": ["base", "size"], "additionalProperties": false
                },
                "description": "What subnets are chosen from. Default: 10.64.0.0/10 in subnets of /24."
            },
            "port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "UDP port of all hosts. Default: 4789."},
            "encrypted_port": {
                "type": "integer", "minimum": 1, "maximum": 65535, "description": "UDP port of encrypted networks. Default: 4790."
            },
            "lease": {"type": "integer", "minimum": 2, "description": "Seconds until a silent host is shown as away. Default: 10."},
            "forget": {"type": "integer", "minimum": 2, "description": "Seconds until what a host had that is away is given to others. Default: 300."},
            "user": {"type": "string", "description": "This host's user at an etcd that has users."},
            "password_file": {"type": "string", "description": "File with that user's password, which others may not read."},
            "tls": {
                "type": "object",
                "properties": {
                    "ca": {"type": "string", "description": "File with the authorities that have signed etcd's certificate."},
                    "certificate": {"type": "string", "description": "File with what this host shows."},
                    "key": {"type": "string", "description": "File with its key."}
                },
                "additionalProperties": false
            }
        },
        "additionalProperties": false
    }"#
}

#[cfg(test)]
mod tests;
