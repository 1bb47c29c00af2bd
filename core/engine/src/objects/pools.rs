//! Address pools as clients ask for them, checked in Docker's words.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use gantry_network::{IpamConfig, IpamPool, listed};
use gantry_wire as wire;
use ipnet::IpNet;

use crate::{EngineError, Result};

/// The pools that a request describes, all checked before anything is made. Those of a family that is off say nothing.
pub(super) fn ipam(asked: wire::Ipam, v6: bool) -> Result<IpamConfig> {
    let (mut pools, mut wrong) = (Vec::new(), Vec::new());
    for pool in asked.config.unwrap_or_default() {
        pools.extend(parse(pool, v6, &mut wrong));
    }
    match wrong.as_slice() {
        [] => Ok(IpamConfig {
            driver: match asked.driver.as_str() {
                "" => "default".into(),
                driver => driver.to_owned(),
            },
            options: asked.options.unwrap_or_default(),
            pools,
        }),
        wrong => Err(EngineError::bad_request(format!(
            "invalid network config:\n{}",
            listed(wrong)
        ))),
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn parse(pool: wire::IpamConfig, v6: bool, wrong: &mut Vec<String>) -> Option<IpamPool> {
    let chosen_by_engine = pool == wire::IpamConfig::default();
    if chosen_by_engine {
        return Some(IpamPool::default());
    }
    let Ok(subnet) = pool.subnet.parse::<IpNet>() else {
        let text = &pool.subnet;
        wrong.push(format!(
            "invalid subnet {text}: invalid CIDR block notation"
        ));
        return None;
    };
    if subnet.addr().is_ipv6() && !v6 {
        return None;
    }
    if subnet != subnet.trunc() {
        wrong.push(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        ));
    }
    let mut complain =
        |what: String, why: &dyn Display| wrong.push(format!("invalid {what}: {why}"));
    let ip_range = match range(&pool.ip_range, subnet) {
        Ok(range) => range,
        Err(why) => {
            complain(format!("ip-range {}", pool.ip_range), &why);
            None
        }
    };
    let gateway = match address(&pool.gateway, subnet) {
        Ok(gateway) => gateway,
        Err(why) => {
            complain(format!("gateway {}", pool.gateway), &why);
            None
        }
    };
    let mut aux_addresses = BTreeMap::new();
    for (name, text) in pool.auxiliary_addresses.unwrap_or_default() {
        match address(&text, subnet) {
            Ok(ip) => aux_addresses.extend(ip.map(|ip| (name, ip))),
            Err(why) => complain(format!("auxiliary address {name}"), &why),
        }
    }
    Some(IpamPool {
        subnet: Some(subnet),
        ip_range,
        gateway,
        aux_addresses,
        chosen: false,
    })
}

fn range(text: &str, subnet: IpNet) -> std::result::Result<Option<IpNet>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let range: IpNet = text
        .parse()
        .map_err(|_| "invalid CIDR block notation".to_owned())?;
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        let of = family(subnet.addr());
        return Err(format!("parent subnet is an {of} block"));
    }
    if range.prefix_len() < subnet.prefix_len() {
        return Err(format!(
            "CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.trunc() {
        return Err(format!("it should be {}", range.trunc()));
    }
    match subnet.contains(&range) {
        true => Ok(Some(range)),
        false => Err(format!("parent subnet {subnet} doesn't contain ip-range")),
    }
}

fn address(text: &str, subnet: IpNet) -> std::result::Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        let of = family(subnet.addr());
        return Err(format!("parent subnet is an {of} block"));
    }
    match subnet.contains(&address) {
        true => Ok(Some(address)),
        false => Err(format!(
            "parent subnet {subnet} doesn't contain this address"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(subnet: &str, range: &str, gateway: &str, aux: Option<&str>) -> String {
        let pool = wire::IpamConfig {
            subnet: subnet.into(),
            ip_range: range.into(),
            gateway: gateway.into(),
            auxiliary_addresses: aux.map(|ip| BTreeMap::from([("box".into(), ip.into())])),
        };
        let asked = wire::Ipam {
            config: Some(vec![pool]),
            ..wire::Ipam::default()
        };
        match ipam(asked, true) {
            Ok(_) => "nothing".into(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn dockers_words() {
        let head = "invalid network config:\n";
        let net = "10.1.0.0/16";
        for (subnet, range, gateway, aux, why) in [
            (
                "10.1.0.0",
                "",
                "",
                None,
                "invalid subnet 10.1.0.0: invalid CIDR block notation",
            ),
            (
                "10.1.0.1/16",
                "",
                "",
                None,
                "invalid subnet 10.1.0.1/16: it should be 10.1.0.0/16",
            ),
            (
                net,
                "x",
                "",
                None,
                "invalid ip-range x: invalid CIDR block notation",
            ),
            (
                net,
                "fd00::/64",
                "",
                None,
                "invalid ip-range fd00::/64: parent subnet is an IPv4 block",
            ),
            (
                net,
                "10.0.0.0/8",
                "",
                None,
                "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.1.0.0/16",
            ),
            (
                net,
                "10.1.1.1/24",
                "",
                None,
                "invalid ip-range 10.1.1.1/24: it should be 10.1.1.0/24",
            ),
            (
                net,
                "10.2.1.0/24",
                "",
                None,
                "invalid ip-range 10.2.1.0/24: parent subnet 10.1.0.0/16 doesn't contain ip-range",
            ),
            (net, "", "y", None, "invalid gateway y: invalid address"),
            (
                net,
                "",
                "fd00::1",
                None,
                "invalid gateway fd00::1: parent subnet is an IPv4 block",
            ),
            (
                net,
                "",
                "10.2.0.1",
                None,
                "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address",
            ),
            (
                net,
                "",
                "",
                Some("10.2.0.1"),
                "invalid auxiliary address box: parent subnet 10.1.0.0/16 doesn't contain this address",
            ),
            (
                net,
                "x",
                "y",
                None,
                "* invalid ip-range x: invalid CIDR block notation\n* invalid gateway y: invalid address",
            ),
        ] {
            assert_eq!(refused(subnet, range, gateway, aux), format!("{head}{why}"));
        }
        assert_eq!(
            refused(net, "10.1.1.0/24", "10.1.0.1", Some("10.1.0.9")),
            "nothing"
        );
    }
}
