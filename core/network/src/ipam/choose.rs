//! Choosing subnets for networks that did not say.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::occupied::Occupied;
use crate::{AddressPool, IpamConfig, IpamPool, NetworkError, Result};

/// Docker's pools, 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20; and when these are all in use,
/// where Docker has no more, 10.192.0.0/24 to 10.255.255.0/24.
pub(crate) fn default_pools() -> Vec<AddressPool> {
    let bases = [
        ("172.17.0.0/16", 16),
        ("172.18.0.0/15", 16),
        ("172.20.0.0/14", 16),
        ("172.24.0.0/13", 16),
        ("192.168.0.0/16", 20),
        ("10.192.0.0/10", 24),
    ];
    bases
        .into_iter()
        .filter_map(|(base, size)| {
            Some(AddressPool {
                base: base.parse().ok()?,
                size,
            })
        })
        .collect()
}

/// What a choice must keep clear of.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    /// Pools to choose from.
    pub(crate) pools: &'a [AddressPool],
    /// Subnets of the engine's other networks.
    pub(crate) taken: &'a [IpNet],
    /// Where the host's routes lead; avoided, though not refused when wished for.
    pub(crate) routes: &'a [IpNet],
    /// Spreads IPv6 subnets of engines and networks.
    pub(crate) seed: &'a str,
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The address that a gateway gets: the first that a host can have, of the range that addresses are handed out from.
fn first_host(pool: &IpamPool) -> Option<IpAddr> {
    let net = pool.subnet?.trunc();
    match pool.ip_range.map(|range| range.network()) {
        Some(first) if first != net.network() => return Some(first),
        _ => {}
    }
    Some(match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => IpAddr::V4((u32::from(v4.network()) + 1).into()),
        IpNet::V6(v6) if v6.prefix_len() < 127 => IpAddr::V6((u128::from(v6.network()) + 1).into()),
        other => other.network(),
    })
}

impl Chooser<'_> {
    /// Fills in the subnets and gateways that were left open, and checks what was given.
    pub(crate) fn complete(&self, config: &mut IpamConfig, v4: bool, v6: bool) -> Result<()> {
        let has = |config: &IpamConfig, wanted: bool| {
            config
                .pools
                .iter()
                .any(|p| p.subnet.is_none_or(|s| s.addr().is_ipv6() == wanted))
        };
        let given = config.pools.iter().filter_map(|pool| pool.subnet);
        let mut own: Vec<IpNet> = given.collect();
        let mut before = own.iter().enumerate();
        if before.any(|(at, net)| own[..at].iter().any(|other| overlaps(net, other))) {
            return Err(overlapping());
        }
        for pool in &mut config.pools {
            match pool.subnet {
                Some(subnet) => self.check(subnet, pool)?,
                None if pool.gateway.is_some() || pool.ip_range.is_some() => {
                    return Err(NetworkError::invalid(
                        "invalid network config:\nip-range and gateway need a subnet",
                    ));
                }
                None => {
                    let subnet = self.free_v4(&own)?;
                    own.push(subnet);
                    pool.subnet = Some(subnet);
                    pool.chosen = true;
                }
            }
        }
        if v4 && !has(config, false) {
            let subnet = Some(self.free_v4(&own)?);
            config.pools.insert(
                0,
                IpamPool {
                    subnet,
                    chosen: true,
                    ..IpamPool::default()
                },
            );
        }
        if v6 && !has(config, true) {
            let subnet = Some(self.free_v6(&own)?);
            config.pools.push(IpamPool {
                subnet,
                chosen: true,
                ..IpamPool::default()
            });
        }
        config.pools.retain(|p| {
            p.subnet
                .is_some_and(|s| if s.addr().is_ipv6() { v6 } else { v4 })
        });
        for pool in &mut config.pools {
            pool.gateway = pool.gateway.or(first_host(pool));
        }
        Ok(())
    }

    fn check(&self, subnet: IpNet, pool: &IpamPool) -> Result<()> {
        let invalid = |text: String| {
            Err(NetworkError::invalid(format!(
                "invalid network config:\n{text}"
            )))
        };
        if subnet != subnet.trunc() {
            return invalid(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.trunc()
            ));
        }
        if let Some(range) = pool.ip_range
            && !(subnet.contains(&range.network()) && range.prefix_len() >= subnet.prefix_len())
        {
            return invalid(format!(
                "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
            ));
        }
        let named = pool.gateway.iter().map(|ip| ("gateway", ip));
        for (what, ip) in named.chain(
            pool.aux_addresses
                .values()
                .map(|ip| ("auxiliary address", ip)),
        ) {
            if !subnet.contains(ip) {
                return invalid(format!(
                    "invalid {what} {ip}: parent subnet {subnet} doesn't contain {what}"
                ));
            }
        }
        if self.taken.iter().any(|other| overlaps(&subnet, other)) {
            return Err(overlapping());
        }
        Ok(())
    }

    /// What no choice of a family may touch; `own` are the subnets of the network that is chosen for.
    fn occupied(&self, own: &[IpNet], v6: bool) -> Occupied {
        let all = self.taken.iter().chain(self.routes).chain(own);
        Occupied::of(all.filter(|net| net.prefix_len() > 0 && net.addr().is_ipv6() == v6))
    }

    fn first_free(&self, own: &[IpNet], v6: bool) -> Option<IpNet> {
        let occupied = self.occupied(own, v6);
        let pools = self.pools.iter();
        pools
            .filter(|pool| pool.base.addr().is_ipv6() == v6)
            .find_map(|pool| occupied.first_free(&pool.base, pool.size))
    }

    /// The first IPv4 subnet of the pools that nothing else uses.
    fn free_v4(&self, own: &[IpNet]) -> Result<IpNet> {
        self.first_free(own, false).ok_or_else(none_left)
    }

    /// A subnet of the configured IPv6 pools; without such, a unique-local one with a prefix of this engine's (RFC 4193).
    fn free_v6(&self, own: &[IpNet]) -> Result<IpNet> {
        if self.pools.iter().any(|pool| pool.base.addr().is_ipv6()) {
            return self.first_free(own, true).ok_or_else(none_left);
        }
        let hash = self
            .seed
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let engine = 0xfd << 56 | (hash >> 8) & 0x00ff_ffff_ffff_0000;
        Ipv6Net::new(Ipv6Addr::from(u128::from(engine) << 64), 48)
            .ok()
            .and_then(|base| self.occupied(own, true).first_free(&IpNet::V6(base), 64))
            .ok_or_else(none_left)
    }
}

fn overlapping() -> NetworkError {
    NetworkError::forbidden(
        "invalid pool request: Pool overlaps with other one on this address space",
    )
}

fn none_left() -> NetworkError {
    NetworkError::invalid("all predefined address pools have been fully subnetted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn complete(taken: &[&str], routes: &[&str], pool: IpamPool) -> Result<IpamPool> {
        let pools = default_pools();
        let (taken, routes) = (nets(taken), nets(routes));
        let chooser = Chooser {
            pools: &pools,
            taken: &taken,
            routes: &routes,
            seed: "s",
        };
        let mut config = IpamConfig {
            pools: vec![pool],
            ..IpamConfig::default()
        };
        chooser.complete(&mut config, true, false)?;
        Ok(config.pools.remove(0))
    }

    #[test]
    fn free_subnets_avoid_networks_and_routes() {
        let chosen = complete(
            &["172.17.0.0/16"],
            &["172.18.4.0/24", "0.0.0.0/0"],
            IpamPool::default(),
        )
        .unwrap();
        assert_eq!(chosen.subnet, Some("172.19.0.0/16".parse().unwrap()));
        assert_eq!(chosen.gateway, Some("172.19.0.1".parse().unwrap()));
        let full = complete(
            &["172.16.0.0/12", "192.168.0.0/16"],
            &["10.0.0.0/8"],
            IpamPool::default(),
        );
        assert_eq!(
            full.unwrap_err().message,
            "all predefined address pools have been fully subnetted"
        );
    }

    #[test]
    fn pools_of_one_network_do_not_overlap() {
        let pools = default_pools();
        let chooser = Chooser {
            pools: &pools,
            taken: &[],
            routes: &[],
            seed: "s",
        };
        let given = IpamPool {
            subnet: Some("172.18.7.0/24".parse().unwrap()),
            ..IpamPool::default()
        };
        let mut config = IpamConfig {
            pools: vec![IpamPool::default(), given, IpamPool::default()],
            ..IpamConfig::default()
        };
        chooser.complete(&mut config, true, true).unwrap();
        let subnets = config.pools.iter().map(|pool| pool.subnet.unwrap());
        let subnets: Vec<_> = subnets.map(|net| net.to_string()).collect();
        assert_eq!(
            subnets[..3],
            ["172.17.0.0/16", "172.18.7.0/24", "172.19.0.0/16"]
        );
        assert_eq!(subnets.len(), 4, "and one for IPv6");
        let given = |subnet: &str| IpamPool {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamPool::default()
        };
        config.pools = vec![given("10.1.0.0/16"), given("10.1.2.0/24")];
        let error = chooser.complete(&mut config, true, false).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::Forbidden, "{error}");
    }

    #[test]
    fn a_thousand_networks_find_room() {
        let pools = default_pools();
        let mut taken = nets(&["10.192.2.128/25"]);
        for _ in 0..1200 {
            let chooser = Chooser {
                pools: &pools,
                taken: &taken,
                routes: &[],
                seed: "s",
            };
            let free = chooser.free_v4(&[]).unwrap();
            taken.push(free);
        }
        assert_eq!(taken[1], "172.17.0.0/16".parse().unwrap());
        assert_eq!(taken[32], "10.192.0.0/24".parse().unwrap());
        assert_eq!(taken[34], "10.192.3.0/24".parse().unwrap());
        let size = |net: &IpNet| 1_u128 << (32 - net.prefix_len());
        let covered = Occupied::of(&taken).spans;
        let covered: u128 = covered.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(
            covered,
            taken.iter().map(size).sum(),
            "none overlaps another"
        );
    }

    #[test]
    fn a_gateway_is_in_the_range() {
        let range = |range: &str| IpamPool {
            subnet: Some("10.1.0.0/16".parse().unwrap()),
            ip_range: Some(range.parse().unwrap()),
            ..IpamPool::default()
        };
        let gateway = |pool| {
            complete(&[], &[], pool)
                .unwrap()
                .gateway
                .unwrap()
                .to_string()
        };
        assert_eq!(gateway(range("10.1.5.0/24")), "10.1.5.0");
        assert_eq!(gateway(range("10.1.0.0/24")), "10.1.0.1");
    }

    #[test]
    fn wishes_are_checked() {
        let wish = |subnet: &str, range: Option<&str>, gateway: Option<&str>| IpamPool {
            subnet: Some(subnet.parse().unwrap()),
            ip_range: range.map(|r| r.parse().unwrap()),
            gateway: gateway.map(|g| g.parse().unwrap()),
            ..IpamPool::default()
        };
        // Where a route leads may be wished for; where a network is may not.
        assert!(complete(&[], &["10.0.0.0/8"], wish("10.1.0.0/16", None, None)).is_ok());
        let error = complete(&["10.1.2.0/24"], &[], wish("10.1.0.0/16", None, None)).unwrap_err();
        assert!(error.message.contains("Pool overlaps"), "{error}");
        for bad in [
            wish("10.1.0.1/16", None, None),
            wish("10.1.0.0/16", Some("10.2.0.0/24"), None),
            wish("10.1.0.0/16", Some("10.0.0.0/8"), None),
            wish("10.1.0.0/16", None, Some("10.2.0.1")),
        ] {
            assert_eq!(
                complete(&[], &[], bad).unwrap_err().kind,
                crate::ErrorKind::Invalid
            );
        }
    }

    #[test]
    fn unique_local_subnets_are_cut_for_ipv6() {
        let chooser = Chooser {
            pools: &[],
            taken: &[],
            routes: &[],
            seed: "engine",
        };
        let mut config = IpamConfig::default();
        chooser.complete(&mut config, false, true).unwrap();
        let subnet = config.pools[0].subnet.unwrap();
        assert_eq!(subnet.prefix_len(), 64);
        assert!(
            "fd00::/8"
                .parse::<IpNet>()
                .unwrap()
                .contains(&subnet.network()),
            "{subnet}"
        );
    }
}
