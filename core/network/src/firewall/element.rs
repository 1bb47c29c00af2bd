//! A published port as an element of a map.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_sys::nft::{Batch, Holds, Kind, SetSpec, kind};

use super::item::{Item, set};

/// Ports of containers that may be reached at the containers' own addresses, by transport, address and port.
pub(super) const DIRECT: [SetSpec<'static>; 2] = [
    set(
        "direct4",
        &[kind::PROTOCOL, kind::IPV4, kind::PORT],
        Holds::Keys,
    ),
    set(
        "direct6",
        &[kind::PROTOCOL, kind::IPV6, kind::PORT],
        Holds::Keys,
    ),
];

/// Rows of ports that keep their numbers inside, by family: for every local address, and with the address.
pub(super) const ROWS: [[SetSpec<'static>; 2]; 2] = [
    [
        row_map("rows4", &[kind::PROTOCOL, kind::PORT], &[kind::IPV4]),
        row_map(
            "rows4-at",
            &[kind::PROTOCOL, kind::IPV4, kind::PORT],
            &[kind::IPV4],
        ),
    ],
    [
        row_map("rows6", &[kind::PROTOCOL, kind::PORT], &[kind::IPV6]),
        row_map(
            "rows6-at",
            &[kind::PROTOCOL, kind::IPV6, kind::PORT],
            &[kind::IPV6],
        ),
    ],
];

const fn row_map(
    name: &'static str,
    key: &'static [Kind],
    value: &'static [Kind],
) -> SetSpec<'static> {
    SetSpec {
        name,
        key,
        value: Some(value),
        holds: Holds::Ranges,
    }
}

/// A row of ports as one element, where that is possible and worth it.
pub(super) fn row(first: &FirewallIntent, more: u16) -> Option<Item> {
    const WORTH_IT: u16 = 15;
    let FirewallIntent::Publish {
        protocol,
        host,
        target,
        ..
    } = first
    else {
        return None;
    };
    let same = host.is_ipv4() == target.is_ipv4() && host.port() == target.port();
    if !same || more < WORTH_IT {
        return None;
    }
    let set = ROWS[usize::from(host.is_ipv6())][usize::from(!host.ip().is_unspecified())].name;
    let last = host.port().checked_add(more)?;
    let range = [host.port(), last].map(|port| key(*protocol, host.ip(), port));
    let mut value = Vec::new();
    push_ip(&mut value, target.ip());
    Some(Item::range(set, range).with(value))
}

/// Transport, the host's address unless it is any, and port.
pub(super) fn key(transport: Protocol, ip: IpAddr, port: u16) -> Vec<u8> {
    let mut key = Vec::new();
    push(&mut key, &[protocol(transport)]);
    if !ip.is_unspecified() {
        push_ip(&mut key, ip);
    }
    push(&mut key, &port.to_be_bytes());
    key
}

/// What holds published ports one by one.
pub(super) fn sets() -> impl Iterator<Item = &'static SetSpec<'static>> {
    super::MAPS.iter().chain(&DIRECT)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Element {
    pub(super) map: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Each component takes whole words.
fn push(key: &mut Vec<u8>, bytes: &[u8]) {
    key.extend_from_slice(bytes);
    key.resize(key.len().next_multiple_of(4), 0);
}

pub(super) fn push_ip(key: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => push(key, &ip.octets()),
        IpAddr::V6(ip) => push(key, &ip.octets()),
    }
}

impl Element {
    pub(super) fn of(intent: &FirewallIntent) -> Option<Self> {
        match intent {
            FirewallIntent::Publish {
                protocol,
                host,
                target,
                ..
            } if host.is_ipv4() == target.is_ipv4() => Some(Self::new(*protocol, *host, *target)),
            FirewallIntent::Direct { protocol, target } => Some(Self::direct(*protocol, *target)),
            _ => None,
        }
    }

    fn direct(transport: Protocol, target: SocketAddr) -> Self {
        let mut key = Vec::new();
        push(&mut key, &[protocol(transport)]);
        push_ip(&mut key, target.ip());
        push(&mut key, &target.port().to_be_bytes());
        Self {
            map: DIRECT[usize::from(target.is_ipv6())].name,
            key,
            value: Vec::new(),
        }
    }

    fn new(transport: Protocol, host: SocketAddr, target: SocketAddr) -> Self {
        let everywhere = host.ip().is_unspecified();
        let map = match (host.is_ipv4(), everywhere) {
            (true, true) => "ports4",
            (true, false) => "ports4-at",
            (false, true) => "ports6",
            (false, false) => "ports6-at",
        };
        let key = key(transport, host.ip(), host.port());
        let mut value = Vec::new();
        push_ip(&mut value, target.ip());
        push(&mut value, &target.port().to_be_bytes());
        Self { map, key, value }
    }
}

/// Turns one set of elements into another.
pub(super) fn change(batch: &mut Batch, before: &HashSet<Element>, after: &HashSet<Element>) {
    for map in sets().map(|map| map.name) {
        let gone = before.difference(after).filter(|e| e.map == map);
        let gone: Vec<_> = gone.map(|e| e.key.clone()).collect();
        if !gone.is_empty() {
            batch.delete_elements(map, gone);
        }
        let new = after.difference(before).filter(|e| e.map == map);
        let new: Vec<_> = new
            .map(|e| {
                (
                    e.key.clone(),
                    Some(e.value.clone()).filter(|v| !v.is_empty()),
                )
            })
            .collect();
        if !new.is_empty() {
            batch.add_elements(map, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_that_keep_their_ports_are_one_element() {
        let intent = |host: &str, target: &str| FirewallIntent::Publish {
            protocol: Protocol::Udp,
            host: host.parse().unwrap(),
            target: target.parse().unwrap(),
            link: String::new(),
        };
        let same = intent("0.0.0.0:10000", "172.17.0.2:10000");
        let item = row(&same, 10000).unwrap();
        assert_eq!(item.set, "rows4");
        assert_eq!(item.key, [17, 0, 0, 0, 0x27, 0x10, 0, 0]);
        assert_eq!(item.end, Some(vec![17, 0, 0, 0, 0x4e, 0x20, 0, 0]));
        assert_eq!(item.value, Some(vec![172, 17, 0, 2]));
        assert_eq!(row(&same, 3), None);
        assert_eq!(
            row(&intent("0.0.0.0:10000", "172.17.0.2:20000"), 10000),
            None
        );
        let at = row(&intent("[fd00::1]:9000", "[fd00::2]:9000"), 99).unwrap();
        assert_eq!(at.set, "rows6-at");
    }

    #[test]
    fn keys_are_words() {
        let element = Element::new(
            Protocol::Udp,
            "10.0.0.1:53".parse().unwrap(),
            "172.17.0.2:5353".parse().unwrap(),
        );
        assert_eq!(element.map, "ports4-at");
        assert_eq!(element.key, [17, 0, 0, 0, 10, 0, 0, 1, 0, 53, 0, 0]);
        assert_eq!(element.value, [172, 17, 0, 2, 0x14, 0xe9, 0, 0]);
        let sctp = Element::new(
            Protocol::Sctp,
            "[::]:3868".parse().unwrap(),
            "[fd00::2]:3868".parse().unwrap(),
        );
        assert_eq!(
            (sctp.map, sctp.key[0], sctp.value.len()),
            ("ports6", 132, 20)
        );
    }
}
