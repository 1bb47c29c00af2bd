//! Ports that netd relays to containers.
//!
//! The kernel translates all that it can. What it cannot: `::1`, and IPv6 to containers that have only IPv4. With
//! `published-ports-obey-input` everything is relayed, because what is translated does not pass the host's INPUT rules.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_netd::Relay;
use serde::{Deserialize, Serialize};

use crate::inner::Inner;
use crate::rows::{InRow, Rows};

/// A relayed port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RelayPort {
    /// UDP; otherwise TCP.
    pub(crate) udp: bool,
    /// Host side.
    pub(crate) host: SocketAddr,
    /// Container side.
    pub(crate) target: SocketAddr,
}

impl InRow for RelayPort {
    fn after(&self, by: u16) -> Option<Self> {
        Some(Self {
            host: shift(self.host, by)?,
            target: shift(self.target, by)?,
            ..*self
        })
    }
}

/// The same address, so many ports on.
pub(crate) fn shift(address: SocketAddr, by: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(
        address.ip(),
        address.port().checked_add(by)?,
    ))
}

/// As netd is told.
pub(crate) fn for_netd(rows: &Rows<RelayPort>) -> Vec<Relay> {
    let relay = |(first, more): (&RelayPort, u16)| Relay {
        udp: first.udp,
        host: first.host,
        target: first.target,
        more,
    };
    rows.heads().map(relay).collect()
}

/// What is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Relaying {
    /// Nothing.
    #[default]
    Nothing,
    /// What the kernel cannot translate.
    Rest,
    /// Everything.
    All,
}

impl Inner {
    /// What is relayed here: nothing without the kernel's part, or netd.
    pub(crate) fn relaying(&self) -> Relaying {
        let there = self.relays && self.names.is_there();
        match (there, self.config.obey_input, self.config.userland_proxy) {
            (true, true, _) => Relaying::All,
            (true, false, true) => Relaying::Rest,
            _ => Relaying::Nothing,
        }
    }
}

/// Whether the host has IPv6.
pub(crate) fn host_has_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The relay of a port that a driver wants published; none where the kernel translates it well.
pub(crate) fn of_intent(intent: &FirewallIntent, relaying: Relaying) -> Option<RelayPort> {
    let FirewallIntent::Publish {
        protocol,
        host,
        target,
        ..
    } = intent
    else {
        return None;
    };
    let udp = is_udp(*protocol)?;
    let loopback = Ipv6Addr::LOCALHOST;
    let host = match (relaying, host.ip()) {
        (Relaying::All, _) => *host,
        (Relaying::Rest, IpAddr::V6(ip)) if ip.is_unspecified() || ip == loopback => {
            SocketAddr::new(loopback.into(), host.port())
        }
        _ => return None,
    };
    Some(RelayPort {
        udp,
        host,
        target: *target,
    })
}

/// Whether a transport that can be relayed is UDP.
pub(crate) fn is_udp(protocol: Protocol) -> Option<bool> {
    match protocol {
        Protocol::Tcp => Some(false),
        Protocol::Udp => Some(true),
        Protocol::Sctp => None,
    }
}
