//! Networks without a bridge: each container has a link to the host of its own, and the host routes between them. No
//! Ethernet is shared, so no container sees another's frames.

use std::io;
use std::net::{IpAddr, SocketAddr};

use gantry_plugin_sdk::links::{self, Names};
use gantry_plugin_sdk::network::*;
use gantry_plugin_sdk::notes::Notes;
use gantry_plugin_sdk::sys::netlink::{Change, NewVeth, RouteSocket};
use gantry_plugin_sdk::*;

/// The first letter of the names of links on the host.
const LINK: char = 'r';

struct Routed {
    names: Names,
    networks: Notes<NetworkSpec>,
}

impl Routed {
    fn new(config: DriverConfig, _: Log) -> DriverResult<Self> {
        Ok(Self {
            names: Names::new(&config.tag),
            // The engine tells of its networks again after a reboot.
            networks: Notes::open(config.run.join("networks"))?,
        })
    }

    fn network(&self, id: &str) -> DriverResult<NetworkSpec> {
        let known = self.networks.get(id);
        known.ok_or_else(|| DriverError::not_found(format!("network {id} is not known")))
    }
}

/// Makes the pair, gives the host's end the gateways' addresses and routes the container's addresses to it.
fn link(veth: &NewVeth<'_>, gateways: &[IpAddr], addresses: &[IpAddr]) -> io::Result<()> {
    let mut socket = RouteSocket::open()?;
    // What bears the name is from an attempt of this endpoint's that was cut off.
    remove(&mut socket, veth.name)?;
    socket.apply(vec![Change::veth(veth)])?;
    let made = socket.link(veth.name)?.ok_or(io::ErrorKind::NotFound)?;
    let gateways = gateways
        .iter()
        .map(|ip| Change::address(made.index, (*ip).into()));
    let routes = addresses
        .iter()
        .map(|ip| Change::route((*ip).into(), None, made.index));
    Ok(socket.apply(gateways.chain(routes).collect())?)
}

fn remove(socket: &mut RouteSocket, link: &str) -> io::Result<()> {
    match socket.link(link)? {
        Some(found) => Ok(socket.apply(vec![Change::delete(found.index)])?),
        None => Ok(()),
    }
}

impl Driver for Routed {
    fn reconcile(&self, _: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        let failed = |e: io::Error| DriverError::io("removing leftover links", &e);
        let kept: Vec<_> = live
            .endpoints
            .iter()
            .map(|id| self.names.name(LINK, id))
            .collect();
        let mut socket = RouteSocket::open().map_err(failed)?;
        for link in socket.links().map_err(failed)? {
            if self.names.is(LINK, &link.name) && !kept.contains(&link.name) {
                remove(&mut socket, &link.name).map_err(failed)?;
            }
        }
        for (id, _) in self.networks.all() {
            if !live.live.contains(&id) {
                self.networks.remove(&id)?;
            }
        }
        Ok(())
    }
}

impl Network for Routed {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: true,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        match spec.internal {
            true => Err(DriverError::invalid("routed networks cannot be internal")),
            false => Ok(()),
        }
    }

    fn create_network(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        let id = spec.id.clone();
        self.networks.put(&id, spec)?;
        Ok(NetworkPlan::default())
    }

    fn delete_network(&self, _: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        self.networks.remove(&network.id).map(drop)
    }

    fn create_endpoint(&self, _: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        self.network(&spec.network)?;
        links::mac(&spec).map(drop)
    }

    fn delete_endpoint(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        Ok(())
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        let Some(netns) = call.fds.first() else {
            return Err(DriverError::invalid("join needs the sandbox's namespace"));
        };
        let network = self.network(&spec.network)?;
        let gateways: Vec<_> = network.subnets.iter().filter_map(|s| s.gateway).collect();
        let addresses: Vec<_> = spec.addresses.iter().map(|net| net.addr()).collect();
        let mac = links::mac(&spec)?;
        let inner = links::inner_name(&spec).unwrap_or_else(|| spec.link.clone());
        let veth = NewVeth {
            name: &self.names.name(LINK, &spec.id),
            master: 0,
            mtu: 0,
            peer: &inner,
            peer_mac: Some(mac),
            peer_netns: *netns,
            up: true,
        };
        link(&veth, &gateways, &addresses).map_err(|e| DriverError::io("making a link", &e))?;
        Ok(JoinPlan {
            mac: mac.to_string(),
            // The container is alone on its link: the gateway is next to it, and all others are behind that.
            addresses: addresses.into_iter().map(Into::into).collect(),
            routes: gateways
                .iter()
                .map(|ip| Route {
                    to: (*ip).into(),
                    via: None,
                })
                .collect(),
            gateways,
            link: inner,
            ..JoinPlan::default()
        })
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        // Without a namespace the kernel is taking the pair away already.
        if call.fds.is_empty() {
            return Ok(());
        }
        let name = self.names.name(LINK, &endpoint.id);
        RouteSocket::open()
            .and_then(|mut socket| remove(&mut socket, &name))
            .map_err(|e| DriverError::io(format!("removing link {name}"), &e))
    }

    fn set_external(
        &self,
        _: &Call<'_>,
        request: SetExternal,
    ) -> DriverResult<Vec<FirewallIntent>> {
        let endpoint = &request.endpoint;
        let addresses: Vec<_> = endpoint.addresses.iter().map(|net| net.addr()).collect();
        let publish = |lease: PortLease| {
            let target = addresses
                .iter()
                .find(|ip| ip.is_ipv4() == lease.host.is_ipv4())?;
            Some(FirewallIntent::Publish {
                protocol: lease.protocol,
                host: lease.host,
                target: SocketAddr::new(*target, lease.container_port),
                link: self.names.name(LINK, &endpoint.id),
            })
        };
        Ok(request.ports.into_iter().filter_map(publish).collect())
    }
}

plugin! { kind: network, driver: Routed, name: "routed" }
