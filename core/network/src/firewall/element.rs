//! A published port as an element of a map.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_sys::nft::Batch;

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
            _ => None,
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
        let (mut key, mut value) = (Vec::new(), Vec::new());
        push(&mut key, &[protocol(transport)]);
        if !everywhere {
            push_ip(&mut key, host.ip());
        }
        push(&mut key, &host.port().to_be_bytes());
        push_ip(&mut value, target.ip());
        push(&mut value, &target.port().to_be_bytes());
        Self { map, key, value }
    }
}

/// Turns one set of elements into another.
pub(super) fn change(batch: &mut Batch, before: &HashSet<Element>, after: &HashSet<Element>) {
    for map in super::MAPS.iter().map(|map| map.name) {
        let gone = before.difference(after).filter(|e| e.map == map);
        let gone: Vec<_> = gone.map(|e| e.key.clone()).collect();
        if !gone.is_empty() {
            batch.delete_elements(map, gone);
        }
        let new = after.difference(before).filter(|e| e.map == map);
        let new: Vec<_> = new
            .map(|e| (e.key.clone(), Some(e.value.clone())))
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
    fn keys_are_words() {
        let element = Element::new(
            Protocol::Udp,
            "10.0.0.1:53".parse().unwrap(),
            "172.17.0.2:5353".parse().unwrap(),
        );
        assert_eq!(element.map, "ports4-at");
        assert_eq!(element.key, [17, 0, 0, 0, 10, 0, 0, 1, 0, 53, 0, 0]);
        assert_eq!(element.value, [172, 17, 0, 2, 0x14, 0xe9, 0, 0]);
    }
}
