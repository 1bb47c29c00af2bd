//! Bridges of the host with veth pairs to sandboxes: what drivers whose sandboxes hang on a bridge have in common.
//!
//! An endpoint's inner link is born inside the sandbox and joined to the bridge in one message to the kernel; nothing is
//! ever moved between namespaces.

mod ending;
mod removal;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_driver_api::network::{EndpointSpec, FirewallIntent, PortLease};
use gantry_driver_api::{DriverError, DriverResult};
use gantry_sys::netlink::{BatchError, Change, LinkFacts, Mac, NewVeth, RouteSocket, remove_link};
use ipnet::IpNet;

use crate::links;
pub use removal::Removals;

/// `errno` of a link that is not there, and of a name that is taken.
const ENODEV: i32 = 19;
const EEXIST: i32 = 17;

/// A bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridge {
    /// Its name.
    pub link: String,
    /// Its index, once it is there.
    pub index: u32,
    /// Its own addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// MTU of the bridge and of the pairs on it, 0 for the kernel's.
    pub mtu: u32,
    /// Whether its members are kept apart.
    pub isolated: bool,
}

/// A veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the end on the bridge.
    pub outer: &'a str,
    /// Name of the end in the sandbox.
    pub inner: &'a str,
    /// Address of the end in the sandbox.
    pub mac: Option<Mac>,
    /// The sandbox's namespace.
    pub netns: BorrowedFd<'a>,
}

/// The links of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Bridges {
    socket: Mutex<RouteSocket>,
}

/// What a failed request to the kernel is told as: `NotFound` for a link that is not there.
pub fn failed(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> DriverError {
    move |error| match error.raw_os_error() {
        Some(ENODEV) => DriverError::not_found(format!("{doing}: {error}")),
        _ => DriverError::io(doing, &error),
    }
}

/// Sets a link's sysctl where the kernel has it.
fn sysctl(family: &str, link: &str, name: &str, value: &str) -> std::io::Result<()> {
    fs::write(format!("/proc/sys/net/{family}/conf/{link}/{name}"), value)
}

/// Whether bridged frames pass through iptables here. A container then reaches itself through a published port only
/// if its port of the bridge may send a frame back to where it came from.
fn bridged_frames_are_filtered() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|value| value.trim() == "1")
}

impl Bridges {
    /// Those of the calling thread's namespace.
    ///
    /// # Errors
    /// When netlink cannot be used.
    pub fn open() -> DriverResult<Self> {
        let socket = RouteSocket::open().map_err(failed("opening netlink"))?;
        Ok(Self {
            socket: Mutex::new(socket),
        })
    }

    /// The socket, for changes of the driver's own; held as shortly as possible.
    pub fn socket(&self) -> MutexGuard<'_, RouteSocket> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> DriverResult<Vec<LinkFacts>> {
        self.socket().links().map_err(failed("listing links"))
    }

    /// A link, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&self, name: &str) -> DriverResult<Option<LinkFacts>> {
        let found = self.socket().link(name);
        found.map_err(failed(format_args!("looking for link {name}")))
    }

    /// Makes or finds the bridge of a network, puts its addresses on it and sets it up; returns its index.
    ///
    /// # Errors
    /// `InvalidArgument` when the name is another kind of link's; the kernel's.
    pub fn ensure(&self, network: &str, bridge: &Bridge) -> DriverResult<u32> {
        let name = &bridge.link;
        let mut socket = self.socket();
        let doing = || failed(format!("making bridge {name}"));
        let made = socket.apply(vec![Change::bridge(name, Some(links::mac_of(network)))]);
        if let Err(e) = made
            && e.error.raw_os_error() != Some(EEXIST)
        {
            return Err(doing()(e.error));
        }
        let facts = socket.link(name).map_err(doing())?;
        let facts =
            facts.ok_or_else(|| DriverError::not_found(format!("bridge {name} vanished")))?;
        if facts.kind != "bridge" {
            return Err(DriverError::invalid(format!("{name} is not a bridge")));
        }
        let mut changes = Vec::new();
        if bridge.mtu != 0 {
            changes.push(Change::mtu(facts.index, bridge.mtu));
        }
        let addresses = bridge.addresses.iter();
        if addresses.clone().any(|net| net.addr().is_ipv6()) {
            // Hosts may have it switched off for new links. The file is missing without IPv6, which the address tells.
            let _ = sysctl("ipv6", name, "disable_ipv6", "0");
        }
        changes.extend(addresses.map(|net| Change::address(facts.index, *net)));
        changes.push(Change::up(facts.index));
        socket.apply(changes).map_err(|e| doing()(e.error))?;
        // A container must not become the host's router. The file is missing without IPv6.
        let _ = sysctl("ipv6", name, "accept_ra", "0");
        Ok(facts.index)
    }

    /// Takes addresses off a bridge that its network has no use for (any more).
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_other_addresses(&self, bridge: &Bridge) -> DriverResult<()> {
        let mut socket = self.socket();
        let doing = || failed(format!("reading the addresses of {}", bridge.link));
        let there = socket.addresses_of(bridge.index).map_err(doing())?;
        let is_link_local =
            |net: &IpNet| matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        let changes: Vec<Change> = there
            .into_iter()
            .filter(|net| !bridge.addresses.contains(net) && !is_link_local(net))
            .map(|net| Change::delete_address(bridge.index, net))
            .collect();
        socket.apply(changes).map_err(|e| doing()(e.error))
    }

    /// Makes a veth pair on the bridge, its inner end in the namespace.
    ///
    /// # Errors
    /// `NotFound` when the bridge is gone; the kernel's.
    pub fn attach(&self, bridge: &Bridge, veth: &Veth<'_>) -> DriverResult<()> {
        let change = Change::veth(&NewVeth {
            name: veth.outer,
            master: bridge.index,
            mtu: bridge.mtu,
            peer: veth.inner,
            peer_mac: veth.mac,
            peer_netns: veth.netns,
            up: true,
        });
        let mut changes = vec![change];
        if bridge.isolated {
            changes.push(Change::port_modes(veth.outer, false, true));
        }
        let doing = format!("attaching {} to {}", veth.inner, bridge.link);
        self.make(veth.outer, changes).map_err(failed(doing))
    }

    /// Makes a link, whose name follows from its object's, by a batch that begins with that. What bears the name is from
    /// an attempt for the same object that was cut off, and is removed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(&self, name: &str, mut changes: Vec<Change>) -> std::io::Result<()> {
        let mut socket = self.socket();
        let Err(BatchError { error, .. }) = socket.apply(changes.clone()) else {
            return Ok(());
        };
        let leftover = match error.raw_os_error() {
            Some(EEXIST) => socket.link(name)?,
            _ => None,
        };
        let Some(leftover) = leftover else {
            return Err(error);
        };
        changes.insert(0, Change::delete(leftover.index));
        Ok(socket.apply(changes)?)
    }

    /// Lets a container reach itself through a published port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn allow_hairpin(&self, bridge: &Bridge, outer: &str) -> DriverResult<()> {
        if !bridged_frames_are_filtered() {
            return Ok(());
        }
        let change = Change::port_modes(outer, true, bridge.isolated);
        let applied = self.socket().apply(vec![change]);
        let doing = format!("preparing {outer} for published ports");
        applied.map_err(|e| failed(doing)(e.error))
    }

    /// Removes a link, if it is there. Nobody sees it any more when this returns, and what it was called and the
    /// addresses it had are free; the kernel may still be freeing it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete(&self, link: &str) -> DriverResult<()> {
        remove_link(link).map_err(failed(format_args!("removing link {link}")))
    }
}

/// Where a published port leads: to the endpoint's address of the host side's family, if it has one.
#[must_use]
pub fn target(endpoint: &EndpointSpec, lease: &PortLease) -> Option<SocketAddr> {
    let mut addresses = endpoint.addresses.iter().map(IpNet::addr);
    let ip = addresses.find(|ip: &IpAddr| ip.is_ipv4() == lease.host.is_ipv4())?;
    Some(SocketAddr::new(ip, lease.container_port))
}

/// The intent for a published port of an endpoint behind a bridge.
#[must_use]
pub fn publish(lease: &PortLease, target: SocketAddr, bridge: &str) -> FirewallIntent {
    FirewallIntent::Publish {
        protocol: lease.protocol,
        host: lease.host,
        target,
        link: bridge.to_owned(),
    }
}
