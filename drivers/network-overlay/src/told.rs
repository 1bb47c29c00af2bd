//! What a network's vxlan link is told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_plugin_sdk::sys::netlink::{Change, Mac};
use ipnet::IpNet;

use crate::mirror::Tables;

/// Where the endpoints of other hosts are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Hosts, by the endpoints' Ethernet addresses.
    pub(crate) remote: BTreeMap<Mac, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
}

impl Told {
    /// Those of a network, as `host` is to be told.
    pub(crate) fn of(tables: &Tables, network: &str, host: &str, over_v6: bool) -> Self {
        let mut told = Self::default();
        for (_, endpoint) in tables.endpoints_of(network) {
            let at = tables.hosts.get(&endpoint.host);
            let (Some(at), Ok(mac)) = (at, endpoint.mac.parse::<Mac>()) else {
                continue;
            };
            if endpoint.host != host && at.address.is_ipv6() == over_v6 {
                told.remote.insert(mac, at.address);
                let ips = endpoint.addresses.iter().map(IpNet::addr);
                told.neighbours.extend(ips.map(|ip| (ip, mac)));
            }
        }
        told
    }

    /// What leads from one to the other on a link.
    pub(crate) fn changes(&self, to: &Self, link: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        for (ip, _) in self
            .neighbours
            .iter()
            .filter(|(ip, _)| !to.neighbours.contains_key(ip))
        {
            changes.push(Change::forget_neighbour(link, *ip));
        }
        for mac in self
            .remote
            .keys()
            .filter(|mac| !to.remote.contains_key(mac))
        {
            changes.push(Change::stop_forwarding(link, *mac));
            changes.push(Change::not_behind_port(link, *mac));
        }
        for (mac, host) in &to.remote {
            let known = self.remote.get(mac);
            if known != Some(host) {
                changes.push(Change::forward(link, *mac, *host));
            }
            if known.is_none() {
                changes.push(Change::behind_port(link, *mac));
            }
        }
        for (ip, mac) in &to.neighbours {
            if self.neighbours.get(ip) != Some(mac) {
                changes.push(Change::neighbour(link, *ip, *mac));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(entries: &[(u8, &str, &str)]) -> Told {
        let mac = |last| Mac([2, 0x42, 10, 64, 0, last]);
        let remote = entries
            .iter()
            .map(|(last, host, _)| (mac(*last), host.parse().unwrap()));
        let neighbours = entries
            .iter()
            .map(|(last, _, ip)| (ip.parse().unwrap(), mac(*last)));
        Told {
            remote: remote.collect(),
            neighbours: neighbours.collect(),
        }
    }

    #[test]
    fn only_differences_are_told() {
        let one = told(&[(2, "10.0.0.2", "10.64.0.2"), (3, "10.0.0.3", "10.64.0.3")]);
        assert!(one.changes(&one, 7).is_empty());
        assert_eq!(Told::default().changes(&one, 7).len(), 6);
        assert_eq!(one.changes(&Told::default(), 7).len(), 6);
        let moved = told(&[(2, "10.0.0.3", "10.64.0.2"), (3, "10.0.0.3", "10.64.0.3")]);
        assert_eq!(one.changes(&moved, 7).len(), 1, "the port stays the same");
        let renumbered = told(&[(2, "10.0.0.2", "10.64.0.9"), (3, "10.0.0.3", "10.64.0.3")]);
        assert_eq!(one.changes(&renumbered, 7).len(), 2);
    }
}
