//! What is asked of the kernel.

use std::fs;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use gantry_plugin_sdk::links;
use gantry_plugin_sdk::sys::netlink::{Change, LinkFacts, Mac, NewVeth, RouteSocket};
use gantry_plugin_sdk::{DriverError, DriverResult};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::state::Bridge;

/// `errno` of a link that is not there, and of a name that is taken.
const ENODEV: i32 = 19;
const EEXIST: i32 = 17;

/// A veth pair to be made.
pub(crate) struct Veth<'a> {
    pub(crate) outer: &'a str,
    pub(crate) inner: &'a str,
    pub(crate) mac: Option<Mac>,
    pub(crate) netns: BorrowedFd<'a>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    socket: Mutex<RouteSocket>,
}

fn failed(doing: String) -> impl FnOnce(std::io::Error) -> DriverError {
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

impl Kernel {
    pub(crate) fn open() -> DriverResult<Self> {
        let socket = RouteSocket::open().map_err(failed("opening netlink".into()))?;
        Ok(Self {
            socket: Mutex::new(socket),
        })
    }

    pub(crate) fn links(&self) -> DriverResult<Vec<LinkFacts>> {
        self.socket
            .lock()
            .links()
            .map_err(failed("listing links".into()))
    }

    pub(crate) fn index(&self, link: &str) -> DriverResult<Option<u32>> {
        let found = self.socket.lock().link(link);
        let found = found.map_err(failed(format!("looking for link {link}")))?;
        Ok(found.map(|facts| facts.index))
    }

    /// Makes or finds the bridge, puts its addresses on it and sets it up; returns its index.
    pub(crate) fn ensure_bridge(&self, network: &str, bridge: &Bridge) -> DriverResult<u32> {
        let name = &bridge.link;
        let mut socket = self.socket.lock();
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
        if bridge.options.mtu != 0 {
            changes.push(Change::mtu(facts.index, bridge.options.mtu));
        }
        let addresses = bridge.addresses();
        if addresses.iter().any(|net| net.addr().is_ipv6()) {
            // Hosts may have it switched off for new links. The file is missing without IPv6, which the address tells.
            let _ = sysctl("ipv6", name, "disable_ipv6", "0");
        }
        changes.extend(
            addresses
                .into_iter()
                .map(|net| Change::address(facts.index, net)),
        );
        changes.push(Change::up(facts.index));
        socket.apply(changes).map_err(|e| doing()(e.error))?;
        // Published ports are reached at 127.0.0.1 by translating what is local already.
        sysctl("ipv4", name, "route_localnet", "1").map_err(doing())?;
        // A container must not become the host's router. The file is missing without IPv6.
        let _ = sysctl("ipv6", name, "accept_ra", "0");
        Ok(facts.index)
    }

    /// Takes addresses off a bridge that its network has no use for (any more).
    pub(crate) fn drop_other_addresses(&self, bridge: &Bridge) -> DriverResult<()> {
        let wanted = bridge.addresses();
        let mut socket = self.socket.lock();
        let doing = || failed(format!("reading the addresses of {}", bridge.link));
        let there = socket.addresses().map_err(doing())?;
        let is_link_local =
            |net: &IpNet| matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        let changes: Vec<Change> = there
            .into_iter()
            .filter(|(index, net)| {
                *index == bridge.index && !wanted.contains(net) && !is_link_local(net)
            })
            .map(|(index, net)| Change::delete_address(index, net))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        socket.apply(changes).map_err(|e| doing()(e.error))
    }

    /// Makes a veth pair on the bridge, its inner end in the namespace.
    pub(crate) fn attach(&self, bridge: &Bridge, veth: &Veth<'_>) -> DriverResult<()> {
        let change = Change::veth(&NewVeth {
            name: veth.outer,
            master: bridge.index,
            mtu: bridge.options.mtu,
            peer: veth.inner,
            peer_mac: veth.mac,
            peer_netns: veth.netns,
            up: true,
        });
        let mut changes = vec![change];
        if !bridge.options.icc {
            changes.push(Change::port_modes(veth.outer, false, true));
        }
        let mut socket = self.socket.lock();
        let doing = || failed(format!("attaching {} to {}", veth.inner, bridge.link));
        let Err(e) = socket.apply(changes.clone()) else {
            return Ok(());
        };
        // The name follows from the endpoint: what bears it is from an attempt of this endpoint's that was cut off.
        let leftover = match e.error.raw_os_error() {
            Some(EEXIST) => socket.link(veth.outer).map_err(doing())?,
            _ => None,
        };
        let Some(leftover) = leftover else {
            return Err(doing()(e.error));
        };
        changes.insert(0, Change::delete(leftover.index));
        socket.apply(changes).map_err(|e| doing()(e.error))
    }

    /// Lets a container reach itself through a published port.
    pub(crate) fn allow_hairpin(&self, bridge: &Bridge, outer: &str) -> DriverResult<()> {
        if !bridged_frames_are_filtered() {
            return Ok(());
        }
        let change = Change::port_modes(outer, true, !bridge.options.icc);
        let applied = self.socket.lock().apply(vec![change]);
        applied.map_err(|e| failed(format!("preparing {outer} for published ports"))(e.error))
    }

    /// Removes a link, if it is there.
    pub(crate) fn delete(&self, link: &str) -> DriverResult<()> {
        let mut socket = self.socket.lock();
        let doing = || failed(format!("removing link {link}"));
        let Some(found) = socket.link(link).map_err(doing())? else {
            return Ok(());
        };
        match socket.apply(vec![Change::delete(found.index)]) {
            Err(e) if e.error.raw_os_error() != Some(ENODEV) => Err(doing()(e.error)),
            _ => Ok(()),
        }
    }
}
