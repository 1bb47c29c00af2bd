//! Addresses of one subnet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::{IpamPool, NetworkError, Result};

/// How long an address rests after use while others are free: the kernel needs some time to take down the link that
/// had it, and answers for it until then.
const REST: Duration = Duration::from_millis(300);

/// The lowest free address is handed out first.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: IpNet,
    first: u128,
    last: u128,
    used: BTreeSet<u128>,
    resting: VecDeque<(Instant, u128)>,
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The first and the last address that somebody may have: all but the network's own, and IPv4's broadcast, except where
/// there is nothing else.
fn usable(subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match subnet.max_prefix_len() - subnet.prefix_len() {
        0 | 1 => (first, last),
        _ if subnet.addr().is_ipv4() => (first + 1, last - 1),
        _ => (first + 1, last),
    }
}

/// Refuses a gateway or an auxiliary address that nobody may have, or that another of them is.
pub(crate) fn check_held(config: &IpamPool) -> Result<()> {
    let nobody = IpamPool {
        gateway: None,
        aux_addresses: BTreeMap::new(),
        ..config.clone()
    };
    let Some(mut pool) = Pool::of(&nobody) else {
        return Ok(());
    };
    let gateway = config.gateway.into_iter();
    let gateway = gateway.map(|ip| (ip, format!("gateway ({ip})")));
    let others = config.aux_addresses.iter();
    let others = others.map(|(name, ip)| (*ip, format!("secondary ip address ({name}:{ip})")));
    for (address, what) in gateway.chain(others) {
        if !pool.take_this(address) {
            return Err(NetworkError::internal(format!(
                "failed to allocate {what}: Address already in use"
            )));
        }
    }
    Ok(())
}

impl Pool {
    /// The pool that a configuration describes; none without a subnet.
    pub(crate) fn of(config: &IpamPool) -> Option<Self> {
        let subnet = config.subnet?.trunc();
        let range = config.ip_range.unwrap_or(subnet).trunc();
        let (mut first, mut last) = (number(range.network()), number(range.broadcast()));
        let mut used: BTreeSet<u128> = config
            .aux_addresses
            .values()
            .map(|ip| number(*ip))
            .collect();
        used.extend(config.gateway.map(number));
        let (lowest, highest) = usable(subnet);
        (first, last) = (first.max(lowest), last.min(highest));
        Some(Self {
            subnet,
            first,
            last,
            used,
            resting: VecDeque::new(),
        })
    }

    pub(crate) fn subnet(&self) -> IpNet {
        self.subnet
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.subnet.addr().is_ipv6()
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::from(number).into()
        } else {
            Ipv4Addr::from(number as u32).into()
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some((since, _)) = self.resting.front()
            && now.duration_since(*since) >= REST
        {
            self.resting.pop_front();
        }
    }

    /// Takes the lowest free address that has rested, else the one that has rested longest.
    pub(crate) fn take_next(&mut self) -> Option<IpAddr> {
        self.wake(Instant::now());
        let mut candidate = self.first;
        let resting: BTreeSet<u128> = self.resting.iter().map(|(_, n)| *n).collect();
        let mut taken = self.used.range(self.first..).peekable();
        while candidate <= self.last {
            while taken.peek().is_some_and(|n| **n < candidate) {
                taken.next();
            }
            if taken.peek() != Some(&&candidate) && !resting.contains(&candidate) {
                self.used.insert(candidate);
                return Some(self.address(candidate));
            }
            candidate += 1;
        }
        let within = |n: u128| (self.first..=self.last).contains(&n) && !self.used.contains(&n);
        let at = self.resting.iter().position(|(_, n)| within(*n))?;
        let (_, number) = self.resting.remove(at)?;
        self.used.insert(number);
        Some(self.address(number))
    }

    /// Takes this address, if it is free and not the network's own.
    pub(crate) fn take_this(&mut self, address: IpAddr) -> bool {
        let number = number(address);
        let (lowest, highest) = usable(self.subnet);
        if !(lowest..=highest).contains(&number) {
            return false;
        }
        self.resting.retain(|(_, n)| *n != number);
        self.used.insert(number)
    }

    pub(crate) fn give_back(&mut self, address: IpAddr) {
        if address.is_ipv6() == self.is_v6() && self.used.remove(&number(address)) {
            self.resting.push_back((Instant::now(), number(address)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        Pool::of(&IpamPool {
            subnet: Some(subnet.parse().unwrap()),
            ip_range: range.map(|r| r.parse().unwrap()),
            gateway: Some(subnet.parse::<IpNet>().unwrap().hosts().next().unwrap()),
            aux_addresses: [("x".into(), "10.0.0.3".parse().unwrap())].into(),
            chosen: false,
        })
        .unwrap()
    }

    fn next(pool: &mut Pool) -> String {
        pool.take_next().map_or("none".into(), |ip| ip.to_string())
    }

    #[test]
    fn the_lowest_free_one_is_taken() {
        let mut pool = pool("10.0.0.0/24", None);
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(
            next(&mut pool),
            "10.0.0.4",
            "the auxiliary address is left out"
        );
        assert!(pool.take_this("10.0.0.5".parse().unwrap()));
        assert!(!pool.take_this("10.0.0.5".parse().unwrap()));
        assert_eq!(next(&mut pool), "10.0.0.6");
    }

    #[test]
    fn what_was_given_back_rests_until_nothing_else_is_left() {
        let mut pool = pool("10.0.0.0/29", None);
        let taken: Vec<String> = (0..4).map(|_| next(&mut pool)).collect();
        assert_eq!(taken, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(next(&mut pool), "none");
        pool.give_back("10.0.0.5".parse().unwrap());
        pool.give_back("10.0.0.2".parse().unwrap());
        assert_eq!(next(&mut pool), "10.0.0.5");
        pool.give_back("10.0.0.4".parse().unwrap());
        assert_eq!(next(&mut pool), "10.0.0.2");
        pool.wake(Instant::now() + REST);
        assert_eq!(next(&mut pool), "10.0.0.4");
    }

    #[test]
    fn ranges_and_edges_are_kept_to() {
        let mut narrow = pool("10.0.0.0/24", Some("10.0.0.128/30"));
        let taken: Vec<String> = (0..5).map(|_| next(&mut narrow)).collect();
        assert_eq!(
            taken,
            [
                "10.0.0.128",
                "10.0.0.129",
                "10.0.0.130",
                "10.0.0.131",
                "none"
            ]
        );
        let mut v6 = pool("fd00::/64", None);
        assert_eq!(next(&mut v6), "fd00::1");
        let mut pair = pool("10.0.0.0/31", None);
        assert_eq!(next(&mut pair), "10.0.0.1");
        assert_eq!(next(&mut pair), "none");
    }

    #[test]
    fn nobody_has_the_networks_own_addresses() {
        for (subnet, address, is_to_be_had) in [
            ("10.0.0.0/24", "10.0.0.0", false),
            ("10.0.0.0/24", "10.0.0.255", false),
            ("10.0.0.0/24", "10.0.0.254", true),
            ("10.0.0.0/31", "10.0.0.0", true),
            ("10.0.0.7/32", "10.0.0.7", true),
            ("fd00::/64", "fd00::", false),
            ("fd00::/64", "fd00::ffff:ffff:ffff:ffff", true),
        ] {
            let mut pool = Pool::of(&given(subnet)).unwrap();
            let taken = pool.take_this(address.parse().unwrap());
            assert_eq!(taken, is_to_be_had, "{address} of {subnet}");
        }
    }

    fn given(subnet: &str) -> IpamPool {
        IpamPool {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamPool::default()
        }
    }

    #[test]
    fn what_a_network_holds_is_there_once() {
        let held = |gateway: &str, others: &[(&str, &str)]| {
            let others = others.iter();
            let config = IpamPool {
                gateway: Some(gateway.parse().unwrap()),
                aux_addresses: others
                    .map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()))
                    .collect(),
                ..given("10.0.0.0/24")
            };
            check_held(&config).err().map(|error| error.message)
        };
        assert_eq!(
            held("10.0.0.1", &[("a", "10.0.0.2"), ("b", "10.0.0.3")]),
            None
        );
        for (gateway, others, what) in [
            ("10.0.0.0", &[][..], "gateway (10.0.0.0)"),
            ("10.0.0.255", &[], "gateway (10.0.0.255)"),
            (
                "10.0.0.1",
                &[("a", "10.0.0.1")],
                "secondary ip address (a:10.0.0.1)",
            ),
            (
                "10.0.0.1",
                &[("a", "10.0.0.255")],
                "secondary ip address (a:10.0.0.255)",
            ),
            (
                "10.0.0.1",
                &[("a", "10.0.0.9"), ("b", "10.0.0.9")],
                "secondary ip address (b:10.0.0.9)",
            ),
        ] {
            let refused = format!("failed to allocate {what}: Address already in use");
            assert_eq!(held(gateway, others), Some(refused));
        }
    }
}
