//! Which parts of an address space are in use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::pool::number;

/// Spans of addresses of one family: in order, none touches another.
#[derive(Debug, Default)]
pub(super) struct Occupied {
    pub(super) spans: Vec<(u128, u128)>,
}

fn span(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

impl Occupied {
    /// All that these subnets, of one family, cover.
    pub(super) fn of<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut all: Vec<_> = nets.into_iter().map(span).collect();
        all.sort_unstable();
        let mut spans: Vec<(u128, u128)> = Vec::new();
        for (first, last) in all {
            match spans.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last)
                }
                _ => spans.push((first, last)),
            }
        }
        Self { spans }
    }

    /// The last address of what is in the way of a span.
    fn in_the_way(&self, first: u128, last: u128) -> Option<u128> {
        let at = self.spans.partition_point(|(_, end)| *end < first);
        let (start, end) = self.spans.get(at)?;
        (*start <= last).then_some(*end)
    }

    /// The first subnet of a base, with this prefix length, that is free.
    pub(super) fn first_free(&self, base: &IpNet, prefix: u8) -> Option<IpNet> {
        let host_bits = base.max_prefix_len().checked_sub(prefix)?;
        let step = 1_u128.checked_shl(host_bits.into())?;
        let (mut at, last) = span(base);
        while prefix >= base.prefix_len() && at <= last {
            let Some(end) = self.in_the_way(at, at + (step - 1)) else {
                let address = match base {
                    IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(at).ok()?)),
                    IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(at)),
                };
                return IpNet::new(address, prefix).ok();
            };
            at = (end / step).checked_add(1)?.checked_mul(step)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(taken: &[&str], base: &str, prefix: u8) -> Option<String> {
        let taken: Vec<IpNet> = taken.iter().map(|net| net.parse().unwrap()).collect();
        let found = Occupied::of(&taken).first_free(&base.parse().unwrap(), prefix);
        found.map(|net| net.to_string())
    }

    #[test]
    fn the_first_that_nothing_touches() {
        assert_eq!(free(&[], "10.0.0.0/8", 24).as_deref(), Some("10.0.0.0/24"));
        let taken = ["10.0.0.7/32", "10.0.1.128/25", "10.0.2.0/23"];
        assert_eq!(
            free(&taken, "10.0.0.0/8", 24).as_deref(),
            Some("10.0.4.0/24")
        );
        assert_eq!(
            free(&taken, "10.0.0.0/8", 25).as_deref(),
            Some("10.0.0.128/25")
        );
        assert_eq!(free(&["10.0.0.0/7"], "10.0.0.0/8", 24), None);
        assert_eq!(free(&["255.0.0.0/8"], "255.255.255.0/24", 32), None);
        assert_eq!(free(&[], "10.0.0.0/24", 8), None, "larger than its base");
        assert_eq!(free(&[], "10.0.0.0/24", 99), None, "no prefix of IPv4");
        assert_eq!(
            free(&["fd00::/65"], "fd00::/48", 64).as_deref(),
            Some("fd00:0:0:1::/64")
        );
    }
}
