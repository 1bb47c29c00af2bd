//! Choosing subnets for networks that did not say.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::{AddressPool, IpamConfig, IpamPool, NetworkError, Result};

/// Docker's pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20.
pub(crate) fn default_pools() -> Vec<AddressPool> {
    let bases = [
        ("172.17.0.0/16", 16),
        ("172.18.0.0/15", 16),
        ("172.20.0.0/14", 16),
        ("172.24.0.0/13", 16),
        ("192.168.0.0/16", 20),
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

/// The first address that a host can have.
fn first_host(net: &IpNet) -> IpAddr {
    match net.trunc() {
        IpNet::V4(v4) if v4.prefix_len() < 31 => IpAddr::V4((u32::from(v4.network()) + 1).into()),
        IpNet::V6(v6) if v6.prefix_len() < 127 => IpAddr::V6((u128::from(v6.network()) + 1).into()),
        other => other.network(),
    }
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
        for pool in &mut config.pools {
            match pool.subnet {
                Some(subnet) => self.check(subnet, pool)?,
                None if pool.gateway.is_some() || pool.ip_range.is_some() => {
                    return Err(NetworkError::invalid(
                        "invalid network config:\nip-range and gateway need a subnet",
                    ));
                }
                None => {
                    pool.subnet = Some(self.free_v4(&[])?);
                    pool.chosen = true;
                }
            }
        }
        if v4 && !has(config, false) {
            let subnet = Some(self.free_v4(&[])?);
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
            let subnet = Some(self.free_v6()?);
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
            pool.gateway = pool.gateway.or(pool.subnet.as_ref().map(first_host));
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
            return Err(NetworkError::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        Ok(())
    }

    /// The first IPv4 subnet of the pools that nothing else uses.
    pub(crate) fn free_v4(&self, also_taken: &[IpNet]) -> Result<IpNet> {
        let busy = |net: &IpNet| {
            let all = self.taken.iter().chain(self.routes).chain(also_taken);
            all.filter(|other| other.prefix_len() > 0)
                .any(|other| overlaps(net, other))
        };
        self.pools
            .iter()
            .filter(|pool| pool.base.addr().is_ipv4())
            .flat_map(|pool| pool.base.subnets(pool.size).into_iter().flatten())
            .find(|net| !busy(net))
            .ok_or_else(|| {
                NetworkError::invalid("all predefined address pools have been fully subnetted")
            })
    }

    /// A /64: from the configured IPv6 pools, else unique-local with a prefix of this engine's (RFC 4193).
    fn free_v6(&self) -> Result<IpNet> {
        let busy = |net: &IpNet| {
            self.taken
                .iter()
                .chain(self.routes)
                .any(|other| other.prefix_len() > 0 && overlaps(net, other))
        };
        let mut configured = self
            .pools
            .iter()
            .filter(|pool| pool.base.addr().is_ipv6())
            .flat_map(|pool| {
                pool.base
                    .subnets(pool.size)
                    .into_iter()
                    .flatten()
                    .take(1 << 16)
            });
        if let Some(net) = configured.find(|net| !busy(net)) {
            return Ok(net);
        }
        let hash = self
            .seed
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let engine = 0xfd << 56 | (hash >> 8) & 0x00ff_ffff_ffff_0000;
        (0..=u64::from(u16::MAX))
            .filter_map(|n| Ipv6Net::new(Ipv6Addr::from(u128::from(engine | n) << 64), 64).ok())
            .map(IpNet::V6)
            .find(|net| !busy(net))
            .ok_or_else(|| {
                NetworkError::invalid("all predefined address pools have been fully subnetted")
            })
    }
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
            &[],
            IpamPool::default(),
        );
        assert_eq!(
            full.unwrap_err().message,
            "all predefined address pools have been fully subnetted"
        );
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
