//! Egress lists: where a sandbox may go, in the terms of the firewall and of netd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gantry_model::ContainerId;
use gantry_netd::Egress;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::firewall::Confined;
use crate::inner::Inner;
use crate::place::Place;
use crate::{NetworkError, Result, SandboxMode, SandboxSpec};

/// Where a container may go. Everything else that it sends beyond its own networks is rejected; answers to what reaches
/// it from outside are not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EgressList {
    /// Networks.
    pub networks: Vec<IpNet>,
    /// Host names, in lower case; `*.example.org` for every one below.
    pub names: Vec<String>,
}

impl EgressList {
    /// A list as people write it: networks, addresses, host names and `*.` with one.
    ///
    /// # Errors
    /// An entry that is none of these; more than a mebibyte of them.
    pub fn parse(entries: &[String]) -> Result<Self> {
        const LONGEST: usize = 1024 * 1024;
        if entries.iter().map(String::len).sum::<usize>() > LONGEST {
            return Err(NetworkError::invalid(
                "invalid egress rules: they take more than 1 MiB",
            ));
        }
        let mut list = Self::default();
        for entry in entries {
            let text = entry.trim();
            if let Ok(network) = text.parse::<IpNet>() {
                list.networks.push(network.trunc());
            } else if let Ok(address) = text.parse::<IpAddr>() {
                list.networks.push(IpNet::from(address));
            } else if is_name(text) {
                list.names
                    .push(text.trim_end_matches('.').to_ascii_lowercase());
            } else {
                return Err(NetworkError::invalid(format!(
                    "invalid egress rule {entry:?}: must be a network in CIDR notation, an IP address, a host name or \"*.\" and a domain"
                )));
            }
        }
        Ok(list)
    }
}

/// A host name (RFC 1123, with the underscores that people use), perhaps with `*.` before it.
fn is_name(text: &str) -> bool {
    const LONGEST: usize = 253;
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // What looks like an address and is none is a mistake.
    let numeric = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= LONGEST && !numeric && name.split('.').all(label)
}

impl Inner {
    /// Whether a sandbox can have the list that it wants.
    pub(crate) fn check_egress(&self, spec: &SandboxSpec) -> Result<()> {
        if spec.egress.is_none() {
            return Ok(());
        }
        let refuse = |why: &str| Err(NetworkError::invalid(format!("egress allow-list: {why}")));
        if spec.mode != SandboxMode::Own {
            return refuse("the container has no network namespace of its own");
        }
        if !self.config.firewall {
            return refuse("the engine writes no firewall rules (iptables is off)");
        }
        if !self.names.is_there() {
            return refuse("gantry-netd is not installed");
        }
        Ok(())
    }

    /// Gives a sandbox another list, or none; on failure it keeps the one before.
    pub(crate) fn change_egress(
        &self,
        container: &ContainerId,
        list: Option<EgressList>,
    ) -> Result<()> {
        let place = self.place(container)?;
        let mut place = place.lock();
        let before = std::mem::replace(&mut place.saved.spec.egress, list);
        let changed = self.rule(&mut place);
        if changed.is_err() {
            place.saved.spec.egress = before;
            if let Err(error) = self.rule(&mut place) {
                tracing::error!(%container, %error, "egress rules of before");
            }
        }
        changed
    }

    /// Makes a sandbox's list true: rules, names, files.
    fn rule(&self, place: &mut Place) -> Result<()> {
        self.check_egress(place.spec())?;
        let container = place.spec().container.clone();
        if place.spec().egress.is_some() {
            self.confine(place)?;
        } else {
            self.firewall
                .release(container.as_str())
                .map_err(|e| NetworkError::io("withdrawing egress rules", &e))?;
        }
        self.tell_names(place)?;
        self.publish_view(place)
    }

    /// Brings the firewall in line with a sandbox's list and attachments.
    pub(crate) fn confine(&self, place: &Place) -> Result<()> {
        let Some(confined) = self.confined(place)? else {
            return Ok(());
        };
        self.firewall
            .confine(place.spec().container.as_str(), confined)
            .map_err(|e| NetworkError::io("writing egress rules", &e))
    }

    /// The limits of a sandbox, if it has any.
    pub(crate) fn confined(&self, place: &Place) -> Result<Option<Confined>> {
        let Some(list) = &place.spec().egress else {
            return Ok(None);
        };
        let mut confined = Confined::default();
        let mut ranges = Ranges::default();
        for endpoint in place.endpoints().iter().filter(|e| !e.plan.link.is_empty()) {
            if endpoint.plan.outer.is_empty() {
                return Err(NetworkError::forbidden(format!(
                    "container {} has an egress allow-list, which driver {} of network {} has no place for",
                    place.spec().name,
                    endpoint.driver,
                    endpoint.info.network_name
                )));
            }
            let addresses = endpoint.plan.addresses.iter().map(IpNet::addr);
            confined
                .links
                .push((endpoint.plan.outer.clone(), addresses.collect()));
            for net in &endpoint.plan.addresses {
                ranges.add(net.network(), net.broadcast());
            }
        }
        // The host itself is no neighbour.
        for endpoint in place.endpoints() {
            if let Some(network) = self.networks.read().get(&endpoint.info.network) {
                let pools = &network.record.ipam.pools;
                pools
                    .iter()
                    .filter_map(|pool| pool.gateway)
                    .for_each(|gateway| ranges.leave_out(gateway));
            }
        }
        for net in &list.networks {
            ranges.add(net.network(), net.broadcast());
        }
        // Group membership and neighbours of the link.
        let group = |last| Ipv6Addr::new(0xff02, last, last, last, last, last, last, last);
        ranges.add(group(0).into(), group(0xffff).into());
        confined.ranges = ranges.into_list();
        Ok(Some(confined))
    }

    /// What netd is told of it.
    pub(crate) fn egress_names(&self, place: &Place) -> Option<Egress> {
        let list = place.spec().egress.as_ref()?;
        let plans = place.endpoints().iter().map(|e| &e.plan);
        Some(Egress {
            table: self.firewall.egress_table(),
            names: list.names.clone(),
            networks: !list.networks.is_empty(),
            sources: plans
                .flat_map(|plan| plan.addresses.iter().map(IpNet::addr))
                .collect(),
        })
    }
}

/// Ranges of addresses as numbers, first and last; of IPv4 and of IPv6.
#[derive(Debug, Default)]
struct Ranges([Vec<(u128, u128)>; 2]);

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Ranges {
    fn add(&mut self, first: IpAddr, last: IpAddr) {
        self.0[usize::from(first.is_ipv6())].push((number(first), number(last)));
    }

    fn leave_out(&mut self, address: IpAddr) {
        let out = number(address);
        let ranges = &mut self.0[usize::from(address.is_ipv6())];
        *ranges = std::mem::take(ranges)
            .into_iter()
            .flat_map(|(first, last)| {
                if !(first..=last).contains(&out) {
                    return [Some((first, last)), None];
                }
                let before = (out > first).then(|| (first, out - 1));
                [before, (out < last).then(|| (out + 1, last))]
            })
            .flatten()
            .collect();
    }

    /// In order, without overlaps.
    fn into_list(self) -> Vec<(IpAddr, IpAddr)> {
        let [v4, v6] = self.0.map(merged);
        let v4 = v4.into_iter().map(|(first, last)| {
            let ip = |n| IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX)));
            (ip(first), ip(last))
        });
        let v6 = v6.into_iter().map(|(first, last)| {
            let ip = |n: u128| IpAddr::V6(Ipv6Addr::from(n));
            (ip(first), ip(last))
        });
        v4.chain(v6).collect()
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_may_hold() {
        let entries = [
            "10.1.2.3/8",
            "192.0.2.1",
            "2001:db8::/32",
            "Example.org.",
            "*.a-b.net",
        ];
        let list = EgressList::parse(&entries.map(str::to_owned)).unwrap();
        let networks: Vec<String> = list.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(list.names, ["example.org", "*.a-b.net"]);
        for wrong in [
            "",
            "*",
            "*.",
            "a..b",
            "10.0.0.0/33",
            "1.2.3",
            "a/b",
            "-a.org",
            "x.*.org",
        ] {
            let error = EgressList::parse(&[wrong.to_owned()]).unwrap_err();
            assert!(error.message.starts_with("invalid egress rule"), "{wrong}");
        }
        let many = vec!["www.example.org".to_owned(); 70_000];
        let error = EgressList::parse(&many).unwrap_err();
        assert!(error.message.ends_with("more than 1 MiB"), "{error}");
        EgressList::parse(&many[..69_000]).unwrap();
    }

    #[test]
    fn ranges_are_merged_and_cut() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut ranges = Ranges::default();
        ranges.add(ip("172.17.0.0"), ip("172.17.255.255"));
        ranges.leave_out(ip("172.17.0.1"));
        ranges.leave_out(ip("172.18.0.1"));
        ranges.add(ip("10.0.0.0"), ip("10.255.255.255"));
        ranges.add(ip("10.1.0.0"), ip("10.1.255.255"));
        ranges.add(ip("172.16.0.0"), ip("172.16.255.255"));
        ranges.add(ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        ranges.add(ip("fd00::"), ip("fd00::ffff"));
        let list: Vec<String> = ranges
            .into_list()
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        assert_eq!(
            list,
            [
                "10.0.0.0-10.255.255.255",
                "172.16.0.0-172.17.0.0",
                "172.17.0.2-172.17.255.255",
                "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]
        );
    }
}
