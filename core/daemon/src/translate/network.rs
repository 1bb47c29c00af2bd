//! What the network service is opened with.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use gantry_network::{AddressPool, BridgeDefaults, NetworkConfig};
use gantry_sys::cgroup::Cgroups;
use gantry_sys::host::HostFacts;

use crate::config::Config;
use crate::paths::{self, Place};

/// The network service.
pub(crate) fn network(
    config: &Config,
    place: &Place,
    host: &HostFacts,
) -> anyhow::Result<NetworkConfig> {
    let mut network = NetworkConfig::new(
        place.data_root.clone(),
        place.exec_root.clone(),
        place.tag.clone(),
        place.boot_id.clone(),
    );
    network.primary = place.data_root == Path::new("/var/lib/gantry");
    network.netd = paths::helper("gantry-netd");
    network.bridge = bridge(config)?;
    network.pools = config
        .default_address_pools
        .iter()
        .map(|pool| {
            Ok(AddressPool {
                base: pool
                    .base
                    .parse()
                    .map_err(|_| anyhow!("default-address-pools: invalid base {}", pool.base))?,
                size: pool.size,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    // 1500 is what links have anyway; only another value has to be set.
    network.mtu = match config.mtu {
        1500 => 0,
        mtu => u32::try_from(mtu).context("mtu")?,
    };
    network.firewall = config.iptables;
    network.userland_proxy = config.userland_proxy;
    network.obey_input = config.published_ports_obey_input;
    let groups = host.cgroups.as_ref().and_then(Cgroups::unified);
    let shortcut = groups.filter(|_| config.published_ports_shortcut);
    network.shortcut = shortcut.map(Path::to_owned);
    network.allow_direct_routing = config.allow_direct_routing;
    network.ip_forward = config.ip_forward;
    network
        .default_options
        .clone_from(&config.default_network_opts);
    network.dns.clone_from(&config.dns);
    network.dns_search.clone_from(&config.dns_search);
    network.dns_options.clone_from(&config.dns_opts);
    network.host_gateway.clone_from(&config.host_gateway_ips);
    Ok(network)
}

fn bridge(config: &Config) -> anyhow::Result<BridgeDefaults> {
    fn parse<T: std::str::FromStr>(key: &str, text: &str) -> anyhow::Result<Option<T>> {
        match text {
            "" => Ok(None),
            text => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => bail!("{key}: invalid CIDR address: {text}"),
            },
        }
    }
    let v4 = |address: Option<std::net::IpAddr>| match address {
        Some(std::net::IpAddr::V4(address)) => Ok(Some(address)),
        None => Ok(None),
        Some(other) => Err(anyhow!("default-gateway: {other} is not an IPv4 address")),
    };
    let v6 = |address: Option<std::net::IpAddr>| match address {
        Some(std::net::IpAddr::V6(address)) => Ok(Some(address)),
        None => Ok(None),
        Some(other) => Err(anyhow!(
            "default-gateway-v6: {other} is not an IPv6 address"
        )),
    };
    Ok(BridgeDefaults {
        link: Some(config.bridge.clone()).filter(|link| !link.is_empty()),
        bip: parse("bip", &config.bip)?,
        bip6: parse("bip6", &config.bip6)?,
        fixed_cidr: parse("fixed-cidr", &config.fixed_cidr)?,
        fixed_cidr_v6: parse("fixed-cidr-v6", &config.fixed_cidr_v6)?,
        default_gateway: v4(config.default_gateway)?,
        default_gateway_v6: v6(config.default_gateway_v6)?,
        icc: config.icc,
        ip_masq: config.ip_masq,
        ipv6: config.ipv6,
        host_ip: config.ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_bridge_flags() {
        let config = Config {
            bip: "nonsense".into(),
            ..Config::default()
        };
        let error = bridge(&config).unwrap_err();
        assert_eq!(error.to_string(), "bip: invalid CIDR address: nonsense");
    }
}
