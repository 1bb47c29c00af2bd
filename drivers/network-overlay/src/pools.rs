//! Choosing what a new network has to itself: subnets and a number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use gantry_plugin_sdk::network::{SharedNetwork, SharedPool};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use ipnet::{IpNet, Ipv6Net};

use crate::options::PoolOption;
use crate::space::is_of_a_host;

/// Numbers below are left to what administrators give out themselves, as Docker does.
const FIRST_VNI: u32 = 4096;
const VNIS: u32 = 1 << 24;
/// Of a larger pool no more subnets are looked at.
const MOST: usize = 1 << 16;

/// What a choice must keep clear of, and what it is made from.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    pub(crate) pools: &'a [PoolOption],
    /// Subnets of other shared networks.
    pub(crate) taken: &'a [IpNet],
    /// Where the routes of this host lead; avoided, though not refused when wished for.
    pub(crate) routes: &'a [IpNet],
    /// The cluster's number, which its unique-local addresses (RFC 4193) follow from.
    pub(crate) cluster: u64,
}

pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first address that a host can have.
fn first_host(net: &IpNet) -> IpAddr {
    match net.trunc() {
        IpNet::V4(v4) if v4.prefix_len() < 31 => IpAddr::V4((u32::from(v4.network()) + 1).into()),
        IpNet::V6(v6) if v6.prefix_len() < 127 => IpAddr::V6((u128::from(v6.network()) + 1).into()),
        other => other.network(),
    }
}

fn invalid(text: String) -> DriverError {
    DriverError::invalid(format!("invalid network config:\n{text}"))
}

impl Chooser<'_> {
    /// Fills in what a network's pools leave open, and refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidArgument`; `PermissionDenied` for subnets of other networks.
    pub(crate) fn complete(&self, network: &mut SharedNetwork) -> DriverResult<()> {
        let mut chosen: Vec<IpNet> = Vec::new();
        for pool in &mut network.pools {
            let subnet = match pool.subnet {
                Some(subnet) => self.check(subnet, pool, &chosen)?,
                None => self.free(false, &chosen)?,
            };
            pool.subnet = Some(subnet);
            chosen.push(subnet);
        }
        let families = [(network.enable_ipv4, false), (network.enable_ipv6, true)];
        for (enabled, v6) in families {
            let is_there = chosen.iter().any(|net| net.addr().is_ipv6() == v6);
            if enabled && !is_there {
                let subnet = self.free(v6, &chosen)?;
                chosen.push(subnet);
                network.pools.push(SharedPool {
                    subnet: Some(subnet),
                    ..SharedPool::default()
                });
            }
        }
        let (v4, v6) = (network.enable_ipv4, network.enable_ipv6);
        let wanted = |net: IpNet| if net.addr().is_ipv6() { v6 } else { v4 };
        network.pools.retain(|pool| pool.subnet.is_some_and(wanted));
        for pool in &mut network.pools {
            pool.gateway = pool.gateway.or(pool.subnet.as_ref().map(first_host));
        }
        network.pools.iter().try_for_each(check_held)
    }

    fn check(&self, subnet: IpNet, pool: &SharedPool, chosen: &[IpNet]) -> DriverResult<IpNet> {
        if subnet != subnet.trunc() {
            let right = subnet.trunc();
            return Err(invalid(format!(
                "invalid subnet {subnet}: it should be {right}"
            )));
        }
        if let Some(range) = pool.range
            && !subnet.contains(&range)
        {
            return Err(invalid(format!(
                "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
            )));
        }
        let gateway = pool.gateway.iter().map(|ip| ("gateway", ip));
        let reserved = pool.reserved.values().map(|ip| ("auxiliary address", ip));
        for (what, ip) in gateway.chain(reserved) {
            if !subnet.contains(ip) {
                return Err(invalid(format!(
                    "invalid {what} {ip}: parent subnet {subnet} doesn't contain {what}"
                )));
            }
        }
        if self
            .taken
            .iter()
            .chain(chosen)
            .any(|net| overlap(&subnet, net))
        {
            return Err(DriverError::new(
                ErrorCode::PermissionDenied,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        Ok(subnet)
    }

    /// The first subnet of the pools that nothing uses.
    fn free(&self, v6: bool, chosen: &[IpNet]) -> DriverResult<IpNet> {
        let busy = |net: &IpNet| {
            let all = self.taken.iter().chain(self.routes).chain(chosen);
            let mut all = all.filter(|other| other.prefix_len() > 0);
            all.any(|other| overlap(net, other))
        };
        let pools = self
            .pools
            .iter()
            .filter(|pool| pool.base.addr().is_ipv6() == v6);
        let mut subnets = pools.flat_map(|pool| {
            let subnets = pool.base.subnets(pool.size).into_iter().flatten();
            subnets.take(MOST)
        });
        let found = subnets.find(|net| !busy(net));
        let found = found.or_else(|| v6.then(|| self.local().find(|net| !busy(net))).flatten());
        found.ok_or_else(|| {
            DriverError::invalid("all predefined address pools have been fully subnetted")
        })
    }

    /// The unique-local subnets of the cluster.
    fn local(&self) -> impl Iterator<Item = IpNet> {
        const PREFIX: u64 = 0xfd << 56;
        let cluster = PREFIX | (self.cluster & 0xff_ffff_ffff) << 16;
        (0..=u64::from(u16::MAX)).filter_map(move |n| {
            let net = Ipv6Net::new(Ipv6Addr::from(u128::from(cluster | n) << 64), 64);
            net.ok().map(IpNet::V6)
        })
    }
}

/// The number after the last one that nobody has: one that was given back rests as long as possible, for a host that was
/// away may not know yet.
pub(crate) fn next_vni(last: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    let start = last.max(FIRST_VNI - 1) + 1;
    let mut all = (start..VNIS).chain(FIRST_VNI..start.min(VNIS));
    all.find(|vni| !taken.contains(vni))
}

/// Refuses a gateway or an auxiliary address that nobody may have, or that another of them is.
fn check_held(pool: &SharedPool) -> DriverResult<()> {
    let Some(subnet) = pool.subnet else {
        return Ok(());
    };
    let gateway = pool.gateway.into_iter();
    let gateway = gateway.map(|ip| (ip, format!("gateway ({ip})")));
    let others = pool.reserved.iter();
    let others = others.map(|(name, ip)| (*ip, format!("secondary ip address ({name}:{ip})")));
    let mut held = BTreeSet::new();
    for (ip, what) in gateway.chain(others) {
        if !is_of_a_host(&subnet, ip) || !held.insert(ip) {
            return Err(DriverError::internal(format!(
                "failed to allocate {what}: Address already in use"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pools: Vec<SharedPool>, v6: bool) -> SharedNetwork {
        SharedNetwork {
            id: "n".into(),
            name: "n".into(),
            created: String::new(),
            internal: false,
            attachable: true,
            enable_ipv4: true,
            enable_ipv6: v6,
            pools,
            options: Default::default(),
            labels: Default::default(),
        }
    }

    fn complete(
        taken: &[&str],
        routes: &[&str],
        wish: Vec<SharedPool>,
    ) -> DriverResult<Vec<SharedPool>> {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
        let chooser = Chooser {
            pools: &[PoolOption {
                base: "10.64.0.0/14".parse().unwrap(),
                size: 16,
            }],
            taken: &nets(taken),
            routes: &nets(routes),
            cluster: 0x1234_5678_9abc_def0,
        };
        let mut network = network(wish, true);
        chooser.complete(&mut network)?;
        Ok(network.pools)
    }

    #[test]
    fn what_is_left_open_is_chosen() {
        let pools = complete(
            &["10.64.0.0/16"],
            &["10.65.7.0/24", "0.0.0.0/0"],
            Vec::new(),
        );
        let pools = pools.unwrap();
        assert_eq!(pools[0].subnet, Some("10.66.0.0/16".parse().unwrap()));
        assert_eq!(pools[0].gateway, Some("10.66.0.1".parse().unwrap()));
        assert_eq!(
            pools[1].subnet,
            Some("fd78:9abc:def0::/64".parse().unwrap())
        );
        let full = complete(&["10.64.0.0/14"], &[], Vec::new()).unwrap_err();
        assert!(full.message.contains("fully subnetted"), "{full}");
    }

    #[test]
    fn wishes_are_checked() {
        let wish = |subnet: &str, range: Option<&str>, gateway: Option<&str>| SharedPool {
            subnet: Some(subnet.parse().unwrap()),
            range: range.map(|r| r.parse().unwrap()),
            gateway: gateway.map(|g| g.parse().unwrap()),
            ..SharedPool::default()
        };
        let given = complete(
            &[],
            &["10.9.0.0/16"],
            vec![wish("10.9.0.0/24", Some("10.9.0.128/25"), None)],
        );
        assert_eq!(given.unwrap()[0].gateway, Some("10.9.0.1".parse().unwrap()));
        let taken = complete(&["10.9.0.0/16"], &[], vec![wish("10.9.1.0/24", None, None)]);
        assert_eq!(taken.unwrap_err().code, ErrorCode::PermissionDenied);
        let twice = vec![
            wish("10.9.1.0/24", None, None),
            wish("10.9.1.0/25", None, None),
        ];
        assert_eq!(
            complete(&[], &[], twice).unwrap_err().code,
            ErrorCode::PermissionDenied
        );
        for bad in [
            wish("10.9.1.1/24", None, None),
            wish("10.9.1.0/24", Some("10.9.2.0/25"), None),
            wish("10.9.1.0/24", None, Some("10.9.2.1")),
        ] {
            let error = complete(&[], &[], vec![bad]).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
        }
        let held = |gateway, others: &[(&str, &str)]| {
            let mut pool = wish("10.9.1.0/24", None, gateway);
            let others = others.iter();
            let others = others.map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()));
            pool.reserved = others.collect();
            complete(&[], &[], vec![pool]).err().map(|e| e.message)
        };
        assert_eq!(held(None, &[("a", "10.9.1.2"), ("b", "10.9.1.3")]), None);
        for (gateway, others, what) in [
            (Some("10.9.1.0"), &[][..], "gateway (10.9.1.0)"),
            (
                None,
                &[("a", "10.9.1.1")],
                "secondary ip address (a:10.9.1.1)",
            ),
            (
                None,
                &[("a", "10.9.1.255")],
                "secondary ip address (a:10.9.1.255)",
            ),
            (
                None,
                &[("a", "10.9.1.2"), ("b", "10.9.1.2")],
                "secondary ip address (b:10.9.1.2)",
            ),
        ] {
            let refused = format!("failed to allocate {what}: Address already in use");
            assert_eq!(held(gateway, others), Some(refused));
        }
    }

    #[test]
    fn numbers_go_round() {
        assert_eq!(next_vni(0, &BTreeSet::new()), Some(4096));
        assert_eq!(next_vni(4096, &BTreeSet::from([4097])), Some(4098));
        let last = (1 << 24) - 1;
        assert_eq!(next_vni(last, &BTreeSet::from([4096])), Some(4097));
    }
}
