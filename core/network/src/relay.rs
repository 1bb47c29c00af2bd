//! Ports that netd relays to containers.
//!
//! The kernel translates all that it can. What it cannot: `::1`, IPv6 to containers that have only IPv4, and 127.0.0.1 to
//! containers behind links that core has no rules for, which do not route that address. With
//! `published-ports-obey-input` everything is relayed, because what is translated does not pass the host's INPUT rules; and
//! without the engine's firewall rules, because nothing is translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_netd::Relay;
use serde::{Deserialize, Serialize};

use crate::NetworkConfig;
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
    /// netd listens there itself, because nothing leads packets to it.
    #[serde(default)]
    pub(crate) listen: bool,
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
        listen: first.listen,
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
    /// What is relayed here: nothing without netd.
    pub(crate) fn relaying(&self) -> Relaying {
        let NetworkConfig {
            firewall,
            userland_proxy,
            obey_input,
            ..
        } = self.config;
        match (self.names.is_there(), obey_input, userland_proxy) {
            (true, true, _) => Relaying::All,
            (true, false, true) if firewall => Relaying::Rest,
            (true, false, true) => Relaying::All,
            _ => Relaying::Nothing,
        }
    }

    /// The relay of a port that a driver wants published; none where the kernel translates it well.
    pub(crate) fn relay_of(&self, intent: &FirewallIntent) -> Option<RelayPort> {
        let FirewallIntent::Publish {
            protocol,
            host,
            target,
            link,
        } = intent
        else {
            return None;
        };
        let host = match self.relaying() {
            Relaying::All => *host,
            Relaying::Rest => untranslated(*host, self.firewall.routes_loopback(link))?,
            Relaying::Nothing => return None,
        };
        self.relay_port(*protocol, host, *target)
    }

    /// The relay from one address to another; none for what is not relayed.
    pub(crate) fn relay_port(
        &self,
        protocol: Protocol,
        host: SocketAddr,
        target: SocketAddr,
    ) -> Option<RelayPort> {
        Some(RelayPort {
            udp: is_udp(protocol)?,
            host,
            target,
            listen: !self.relays,
        })
    }
}

/// The loopback address at which the kernel does not translate what is published at `host`.
fn untranslated(host: SocketAddr, routes_loopback: bool) -> Option<SocketAddr> {
    let loopback: IpAddr = match host.ip() {
        IpAddr::V4(_) if routes_loopback => return None,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let here = host.ip().is_unspecified() || host.ip() == loopback;
    here.then(|| SocketAddr::new(loopback, host.port()))
}

/// Whether the host has IPv6.
pub(crate) fn host_has_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Whether a transport that can be relayed is UDP.
pub(crate) fn is_udp(protocol: Protocol) -> Option<bool> {
    match protocol {
        Protocol::Tcp => Some(false),
        Protocol::Udp => Some(true),
        Protocol::Sctp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_leaves_at_loopback_addresses() {
        let at = |host: &str, routes: bool| {
            let left = untranslated(host.parse().unwrap(), routes);
            left.map(|at| at.to_string())
        };
        for (host, bridge, other) in [
            ("0.0.0.0:80", None, Some("127.0.0.1:80")),
            ("127.0.0.1:80", None, Some("127.0.0.1:80")),
            ("127.0.0.2:80", None, None),
            ("192.0.2.1:80", None, None),
            ("[::]:80", Some("[::1]:80"), Some("[::1]:80")),
            ("[::1]:80", Some("[::1]:80"), Some("[::1]:80")),
            ("[fd00::1]:80", None, None),
        ] {
            assert_eq!(at(host, true).as_deref(), bridge, "{host}");
            assert_eq!(at(host, false).as_deref(), other, "{host}");
        }
    }
}
