//! A bridge as the table knows it: elements of sets. The rules are the same whatever bridges there are, so that a network
//! costs as much to add or remove among thousands as alone.

use std::collections::HashSet;
use std::net::IpAddr;

use gantry_driver_api::network::{BridgeWays, FirewallIntent, GatewayMode};
use gantry_sys::nft::{Family, Holds, Kind, SetSpec, kind};
use ipnet::IpNet;

use super::element::push_ip;
use super::item::{Item, set};
use super::rules::link;

/// A bridge that rules are wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) link: String,
    subnets: Vec<IpNet>,
    masquerade: bool,
    internal: bool,
    icc: bool,
    ways: BridgeWays,
}

const PAIR: &[Kind] = &[kind::LINK, kind::LINK];
const FAMILY_AND_LINK: &[Kind] = &[kind::FAMILY, kind::LINK];

/// All bridges.
pub(super) const BRIDGES: SetSpec<'static> = set("bridges", &[kind::LINK], Holds::Keys);
/// Bridges that nothing enters or leaves.
pub(super) const INTERNAL: SetSpec<'static> = set("internal", &[kind::LINK], Holds::Keys);
/// Input and output, the same bridge: members that may talk to each other, and members that may not.
pub(super) const TOGETHER: SetSpec<'static> = set("together", PAIR, Holds::Keys);
/// See [`TOGETHER`].
pub(super) const APART: SetSpec<'static> = set("apart", PAIR, Holds::Keys);
/// Input and output: links from which direct ports of a bridge are reached.
pub(super) const TRUSTED: SetSpec<'static> = set("trusted", PAIR, Holds::Keys);
/// Families of bridges whose members are reached at every port.
pub(super) const UNPROTECTED: SetSpec<'static> = set("unprotected", FAMILY_AND_LINK, Holds::Keys);
/// Families of bridges whose members are reached at direct ports.
pub(super) const ROUTED: SetSpec<'static> = set("routed", FAMILY_AND_LINK, Holds::Keys);
/// A bridge's own sources: range of sources and output link. The kernel tells ranges apart by their first component.
pub(super) const OWN: [SetSpec<'static>; 2] = [
    set("within4", &[kind::IPV4, kind::LINK], Holds::Ranges),
    set("within6", &[kind::IPV6, kind::LINK], Holds::Ranges),
];
/// Sources that become the leaving link's address on the way out.
pub(super) const OUT: [SetSpec<'static>; 2] = [
    set("hidden4", &[kind::IPV4], Holds::Spans),
    set("hidden6", &[kind::IPV6], Holds::Spans),
];
/// Sources that become a certain address.
pub(super) const AS: [SetSpec<'static>; 2] = [
    SetSpec {
        name: "hidden4-as",
        key: &[kind::IPV4],
        value: Some(&[kind::IPV4]),
        holds: Holds::Spans,
    },
    SetSpec {
        name: "hidden6-as",
        key: &[kind::IPV6],
        value: Some(&[kind::IPV6]),
        holds: Holds::Spans,
    },
];

/// Every set that holds bridges.
pub(super) fn sets() -> impl Iterator<Item = &'static SetSpec<'static>> {
    const SINGLE: [SetSpec<'static>; 7] = [
        BRIDGES,
        INTERNAL,
        TOGETHER,
        APART,
        TRUSTED,
        UNPROTECTED,
        ROUTED,
    ];
    SINGLE.iter().chain(&OWN).chain(&OUT).chain(&AS)
}

fn number(family: Family) -> Vec<u8> {
    vec![family as u8, 0, 0, 0]
}

fn address(ip: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_ip(&mut bytes, ip);
    bytes
}

fn family(v6: bool) -> Family {
    if v6 { Family::Ipv6 } else { Family::Ipv4 }
}

impl Bridge {
    /// What a driver wants of a bridge; none for other wishes.
    pub(super) fn of(intent: FirewallIntent) -> Option<Self> {
        match intent {
            FirewallIntent::Bridge {
                link,
                subnets,
                masquerade,
                internal,
                icc,
                ways,
            } => Some(Self {
                link,
                subnets,
                masquerade,
                internal,
                icc,
                ways,
            }),
            _ => None,
        }
    }

    /// Its elements.
    pub(super) fn items(&self) -> HashSet<Item> {
        let own = link(&self.link);
        let mut items = HashSet::from([Item::key(BRIDGES.name, own.clone())]);
        let among = if self.icc { TOGETHER } else { APART };
        items.insert(Item::key(among.name, own.repeat(2)));
        if self.internal {
            items.insert(Item::key(INTERNAL.name, own.clone()));
        }
        for trusted in &self.ways.trusted {
            let pair = [link(trusted), own.clone()].concat();
            items.insert(Item::key(TRUSTED.name, pair));
        }
        for v6 in [false, true] {
            let set = match self.ways.mode(v6) {
                GatewayMode::NatUnprotected => UNPROTECTED,
                GatewayMode::Routed => ROUTED,
                GatewayMode::Nat | GatewayMode::Isolated => continue,
            };
            let key = [number(family(v6)), own.clone()].concat();
            items.insert(Item::key(set.name, key));
        }
        for subnet in &self.subnets {
            self.add_sources(&mut items, subnet);
        }
        items
    }

    fn add_sources(&self, items: &mut HashSet<Item>, subnet: &IpNet) {
        let v6 = subnet.addr().is_ipv6();
        let index = usize::from(v6);
        let ends = [subnet.network(), subnet.broadcast()].map(address);
        let own = link(&self.link);
        let range = ends.clone().map(|ip| [ip, own.clone()].concat());
        items.insert(Item::range(OWN[index].name, range));
        if !self.masquerade || self.ways.mode(v6) == GatewayMode::Routed {
            return;
        }
        let source = self.ways.sources.iter().find(|ip| ip.is_ipv6() == v6);
        items.insert(match source {
            Some(source) => Item::span(AS[index].name, ends).with(address(*source)),
            None => Item::span(OUT[index].name, ends),
        });
    }
}
