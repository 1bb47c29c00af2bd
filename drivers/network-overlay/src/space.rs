//! The addresses of a network, and the next one of them.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gantry_plugin_sdk::network::{SharedNetwork, SharedPool};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use ipnet::IpNet;
use parking_lot::Mutex;

/// Where each subnet was last chosen from: an address rests after use while others are free, since neighbours and
/// resolvers remember it for a while.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<HashMap<IpNet, u128>>);

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The addresses that a pool gives out.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) subnet: IpNet,
    first: u128,
    last: u128,
    /// Never given out.
    pub(crate) kept: BTreeSet<IpAddr>,
}

/// Whether an address of a subnet is neither the subnet's own nor IPv4's broadcast.
pub(crate) fn is_of_a_host(subnet: &IpNet, ip: IpAddr) -> bool {
    subnet.max_prefix_len() - subnet.prefix_len() <= 1
        || (ip != subnet.network() && (ip.is_ipv6() || ip != subnet.broadcast()))
}

impl Space {
    fn of(pool: &SharedPool) -> Option<Self> {
        let subnet = pool.subnet?;
        let range = pool.range.unwrap_or(subnet).trunc();
        let (mut first, mut last) = (number(range.network()), number(range.broadcast()));
        // The network's own address, and IPv4's broadcast, except where there is nothing else.
        if subnet.max_prefix_len() - subnet.prefix_len() > 1 {
            first = first.max(number(subnet.network()) + 1);
            if subnet.addr().is_ipv4() {
                last = last.min(number(subnet.broadcast()) - 1);
            }
        }
        let mut kept: BTreeSet<IpAddr> = pool.reserved.values().copied().collect();
        kept.extend(pool.gateway);
        Some(Self {
            subnet,
            first,
            last,
            kept,
        })
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }

    /// The first free address after the one that was chosen last, from the start again after the end.
    fn next(&self, after: Option<u128>, taken: &BTreeSet<IpAddr>) -> Option<u128> {
        let start = after.map_or(self.first, |last| last.saturating_add(1));
        let start = start.clamp(self.first, self.last.max(self.first));
        let free = |n: &u128| {
            let ip = self.address(*n);
            !taken.contains(&ip) && !self.kept.contains(&ip)
        };
        (start..=self.last)
            .find(free)
            .or_else(|| (self.first..start.min(self.last.saturating_add(1))).find(free))
    }
}

/// The addresses of a network's pools of one family.
pub(crate) fn spaces(network: &SharedNetwork, v6: bool) -> impl Iterator<Item = Space> {
    let spaces = network.pools.iter().filter_map(Space::of);
    spaces.filter(move |space| space.subnet.addr().is_ipv6() == v6)
}

impl Cursors {
    /// An address of one family, with its prefix length.
    pub(crate) fn choose(
        &self,
        network: &SharedNetwork,
        v6: bool,
        wish: Option<IpAddr>,
        taken: &BTreeSet<IpAddr>,
    ) -> DriverResult<IpNet> {
        let mut cursors = self.0.lock();
        for space in spaces(network, v6) {
            let ip = match wish {
                Some(ip) if space.subnet.contains(&ip) => ip,
                Some(_) => continue,
                None => match space.next(cursors.get(&space.subnet).copied(), taken) {
                    Some(number) => {
                        cursors.insert(space.subnet, number);
                        space.address(number)
                    }
                    None => continue,
                },
            };
            return Ok(IpNet::new_assert(ip, space.subnet.prefix_len()));
        }
        Err(DriverError::new(
            ErrorCode::ResourceExhausted,
            "no available IPv4 addresses on this network's address pools"
                .replace("IPv4", if v6 { "IPv6" } else { "IPv4" }),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: &str, range: Option<&str>) -> SharedPool {
        SharedPool {
            subnet: Some(subnet.parse().unwrap()),
            range: range.map(|range| range.parse().unwrap()),
            gateway: Some(gateway.parse().unwrap()),
            reserved: [("x".into(), "10.64.0.3".parse().unwrap())].into(),
        }
    }

    fn all(pool: &SharedPool, after: Option<u128>) -> Vec<String> {
        let space = Space::of(pool).unwrap();
        let (mut taken, mut after, mut all) = (BTreeSet::new(), after, Vec::new());
        while let Some(number) = space.next(after, &taken) {
            taken.insert(space.address(number));
            after = Some(number);
            all.push(space.address(number).to_string());
        }
        all
    }

    #[test]
    fn addresses_go_round_and_leave_out_what_is_kept() {
        let small = pool("10.64.0.0/29", "10.64.0.1", None);
        assert_eq!(
            all(&small, None),
            ["10.64.0.2", "10.64.0.4", "10.64.0.5", "10.64.0.6"]
        );
        let after = Some(number("10.64.0.4".parse().unwrap()));
        assert_eq!(
            all(&small, after),
            ["10.64.0.5", "10.64.0.6", "10.64.0.2", "10.64.0.4"]
        );
        let part = pool("10.64.0.0/24", "10.64.0.1", Some("10.64.0.252/30"));
        assert_eq!(
            all(&part, None),
            ["10.64.0.252", "10.64.0.253", "10.64.0.254"]
        );
        let outside = Some(number("10.64.0.9".parse().unwrap()));
        assert_eq!(all(&part, outside)[0], "10.64.0.252");
        let v6 = Space::of(&pool("fd00::/64", "fd00::1", None)).unwrap();
        let first = v6.next(None, &BTreeSet::new()).unwrap();
        assert_eq!(v6.address(first).to_string(), "fd00::2");
    }
}
