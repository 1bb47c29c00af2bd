//! What can be said of a wished attachment before it is made, in Docker's words.

use std::net::IpAddr;

use gantry_sys::netlink::Mac;

use crate::{EndpointConfig, NetworkError, NetworkRecord, Result};

/// Kernel settings of the link, `net.ipv4.conf.IFNAME.log_martians=1`, with commas between.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The link's name inside.
const LINK_NAME: &str = "com.docker.network.endpoint.ifname";
/// The longest name of a link (`IFNAMSIZ` without the end).
const LONGEST_LINK: usize = 15;

/// Checks a wish against a network; `is_inside` says whether one of its subnets has an address. It has none when addresses
/// are its driver's.
pub(crate) fn check(
    record: &NetworkRecord,
    config: &EndpointConfig,
    is_inside: Option<impl Fn(IpAddr) -> bool>,
) -> Result<()> {
    let mut wrong = Vec::new();
    let wished: Vec<IpAddr> = [config.ipv4, config.ipv6].into_iter().flatten().collect();
    if record.predefined {
        if !wished.is_empty() {
            wrong.push(
                "user specified IP address is supported on user defined networks only".into(),
            );
        }
        if !config.aliases.is_empty() {
            wrong.push(
                "network-scoped alias is supported only for containers in user defined networks"
                    .into(),
            );
        }
    }
    for (address, v6) in [(config.ipv4, false), (config.ipv6, true)] {
        wrong.extend(address.and_then(|address| family(address, v6)));
    }
    for address in config.link_local.iter().filter(|ip| ip.is_unspecified()) {
        wrong.push(format!("invalid link-local IP address: {address}"));
    }
    if let Some(is_inside) = is_inside.filter(|_| !record.predefined) {
        let outside = |address| out_of_range(record, address, &is_inside);
        wrong.extend(wished.into_iter().filter_map(outside));
    }
    if let Some(mac) = &config.mac
        && mac.parse::<Mac>().is_err()
    {
        return Err(NetworkError::invalid(format!("invalid MAC address {mac}")));
    }
    for sysctl in sysctls(config) {
        wrong.extend(parse(sysctl).err());
    }
    wrong.extend(
        config
            .options
            .get(LINK_NAME)
            .and_then(|name| link_name(name)),
    );
    match wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(NetworkError::invalid(format!(
            "invalid endpoint settings:\n{}",
            listed(wrong)
        ))),
    }
}

/// Everything that is wrong, as Docker joins errors: one as it is, several as a list.
#[must_use]
pub fn listed(wrong: &[String]) -> String {
    match wrong {
        [one] => one.clone(),
        many => {
            let lines: Vec<String> = many.iter().map(|line| format!("* {line}")).collect();
            lines.join("\n")
        }
    }
}

fn family(address: IpAddr, v6: bool) -> Option<String> {
    let wrong = address.is_unspecified() || address.is_ipv6() != v6;
    let family = if v6 { "IPv6" } else { "IPv4" };
    wrong.then(|| format!("invalid {family} address: {address}"))
}

fn out_of_range(
    record: &NetworkRecord,
    address: IpAddr,
    is_inside: impl Fn(IpAddr) -> bool,
) -> Option<String> {
    let of_family = |subnet: ipnet::IpNet| subnet.addr().is_ipv6() == address.is_ipv6();
    let by_user = record
        .ipam
        .pools
        .iter()
        .any(|pool| !pool.chosen && pool.subnet.is_some_and(of_family));
    if !by_user {
        return Some(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .into(),
        );
    }
    (!is_inside(address))
        .then(|| format!("no configured subnet or ip-range contain the IP address {address}"))
}

fn link_name(name: &str) -> Option<String> {
    let bad = name.is_empty()
        || name.len() > LONGEST_LINK
        || matches!(name, "." | ".." | "lo" | "all" | "default")
        || name
            .bytes()
            .any(|b| matches!(b, b'/' | b':' | b'%') || b.is_ascii_whitespace() || b == 0);
    bad.then(|| format!("invalid network interface name {name:?}"))
}

fn sysctls(config: &EndpointConfig) -> impl Iterator<Item = &str> {
    config
        .options
        .get(SYSCTLS)
        .into_iter()
        .flat_map(|list| list.split(','))
}

/// A kernel setting of a link: the path below `/proc/sys/net` around the link's name, and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkSetting<'a> {
    family: &'a str,
    group: &'a str,
    name: &'a str,
    pub(crate) value: &'a str,
}

impl LinkSetting<'_> {
    pub(crate) fn path(&self, link: &str) -> String {
        let Self {
            family,
            group,
            name,
            ..
        } = self;
        format!("/proc/sys/net/{family}/{group}/{link}/{name}")
    }
}

/// The settings that a wish has for its link. Those that make no sense were refused before.
pub(crate) fn link_settings(config: &EndpointConfig) -> impl Iterator<Item = LinkSetting<'_>> {
    sysctls(config).filter_map(|text| parse(text).ok())
}

fn parse(text: &str) -> std::result::Result<LinkSetting<'_>, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("expected sysctl '{text}' to have format name=value"))?;
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [
            "net",
            family @ ("ipv4" | "ipv6" | "mpls"),
            group,
            "IFNAME" | "ifname",
            name,
        ] if word(group) && word(name) => Ok(LinkSetting {
            family,
            group,
            name,
            value,
        }),
        _ => Err(format!(
            "unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_links() {
        let good = parse("net.ipv4.conf.IFNAME.log_martians=1").unwrap();
        assert_eq!(
            good.path("eth0"),
            "/proc/sys/net/ipv4/conf/eth0/log_martians"
        );
        assert_eq!(good.value, "1");
        assert!(parse("net.ipv6.neigh.ifname.ucast_solicit=x=y").is_ok());
        for bad in [
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.IFNAME=1",
            "net.core.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.ipv4.../.IFNAME.a=1",
            "kernel.ipv4.conf.IFNAME.a=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_links() {
        assert_eq!(link_name("lan0"), None);
        for bad in ["", "a/b", "sixteen-letters-", "a b", "lo", ".."] {
            assert!(link_name(bad).is_some(), "{bad}");
        }
    }
}
