//! The chain that leads what is sent to relayed ports to netd's sockets: before any translation, unchanged, so that the
//! host's INPUT rules see it as it came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gantry_driver_api::network::Protocol;
use gantry_netd::Listeners;
use gantry_sys::nft::{
    BaseChain, Batch, Expr, Family, Holds, Hook, Register, SetSpec, Verdict, kind,
};

use crate::relay::RelayPort;
use crate::rows::InRow;

use super::bridges::BRIDGES;
use super::element::{self, push_ip};
use super::item::Item;
use super::rules;

use Register::{R0, R1, R2, R4, R5};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Rows of relayed ports: by transport and port alone for every local address, and with the address.
pub(super) const SETS: [SetSpec<'static>; 4] = [
    set("relay4", &[kind::PROTOCOL, kind::PORT]),
    set("relay4-at", &[kind::PROTOCOL, kind::IPV4, kind::PORT]),
    set("relay6", &[kind::PROTOCOL, kind::PORT]),
    set("relay6-at", &[kind::PROTOCOL, kind::IPV6, kind::PORT]),
];

const fn set(name: &'static str, key: &'static [gantry_sys::nft::Kind]) -> SetSpec<'static> {
    SetSpec {
        name,
        key,
        value: None,
        holds: Holds::Ranges,
    }
}

const CHAIN: BaseChain<'static> = BaseChain {
    name: "relay",
    kind: "filter",
    hook: Hook::Prerouting,
    priority: -150,
    drop: false,
};

/// Any listeners, to see whether the kernel takes the rules.
pub(super) const SOME: Listeners = Listeners {
    tcp4: 1,
    udp4: 1,
    tcp6: 1,
    udp6: 1,
};

/// Makes sets and chain, or finds them. The chain's rules stay: they are known when netd is.
pub(super) fn lay_out(batch: &mut Batch) {
    for set in &SETS {
        batch.add_set(set);
    }
    batch.add_chain(&CHAIN);
}

/// Writes the chain's rules. `obey`: what containers send is left to be translated, which all of it can be: a socket that
/// was found for a packet on a bridge is lost where bridges call the host's chains (`bridge-nf-call-iptables`).
///
/// What answers a flow that began here is not meant for the port that it is sent to, though that may be relayed: the flow has
/// it for its own. Where it was translated, the kernel knows the way; the sockets of others get what they wait for, but for
/// those of TCP, which `tproxy` finds by itself.
pub(super) fn write(batch: &mut Batch, listeners: &Listeners, obey: bool) {
    batch.flush_chain(CHAIN.name);
    let translated = [
        Expr::connection_status(R0),
        Expr::mask(R0, &Expr::TRANSLATED.to_ne_bytes()),
        Expr::not_equal(R0, &[0; 4]),
    ];
    let parts: [&[Expr]; 2] = [&answer(), &translated];
    rules::rule(batch, CHAIN.name, &parts, Expr::verdict(Verdict::Accept));
    let v4 = (Family::Ipv4, IpAddr::V4(Ipv4Addr::LOCALHOST), &SETS[..2]);
    let v6 = (Family::Ipv6, IpAddr::V6(Ipv6Addr::LOCALHOST), &SETS[2..]);
    for ((which, at, sets), tcp, udp) in [
        (v4, listeners.tcp4, listeners.udp4),
        (v6, listeners.tcp6, listeners.udp6),
    ] {
        for (transport, port) in [(TCP, tcp), (UDP, udp)] {
            if port != 0 {
                lead(batch, (which, obey), sets, transport, (at, port));
            }
        }
    }
}

/// Its destination is relayed at that very address.
pub(super) fn at(v6: bool) -> [Expr; 4] {
    let (which, port, set) = match v6 {
        true => (Family::Ipv6, R5, SETS[3].name),
        false => (Family::Ipv4, R2, SETS[1].name),
    };
    [
        Expr::transport_protocol(R0),
        Expr::destination(which, R1),
        Expr::destination_port(port),
        Expr::lookup(set, R0, false),
    ]
}

/// It is sent to the side that began.
fn answer() -> [Expr; 2] {
    [
        Expr::connection_direction(R0),
        Expr::equal(R0, &[Expr::REPLY]),
    ]
}

fn lead(
    batch: &mut Batch,
    (which, obey): (Family, bool),
    sets: &[SetSpec<'_>],
    transport: u8,
    (address, port): (IpAddr, u16),
) {
    let at = at(which == Family::Ipv6);
    let others = [Expr::input_link(R0), Expr::lookup(BRIDGES.name, R0, true)];
    let others = if obey { &others[..] } else { &[] };
    // Every packet that comes in passes here: few get as far as the route.
    let carried = [Expr::transport_protocol(R0), Expr::equal(R0, &[transport])];
    let local = [
        Expr::fib_destination_type(R0),
        Expr::equal(R0, &Expr::LOCAL.to_ne_bytes()),
    ];
    let anywhere = [
        Expr::destination_port(R1),
        Expr::lookup(sets[0].name, R0, false),
    ];
    let mut to = Vec::new();
    push_ip(&mut to, address);
    let lead = [
        Expr::load(&to, R0),
        Expr::load(&port.to_be_bytes(), R4),
        Expr::lead_to(which, R0, R4),
    ];
    let awaited = [&answer()[..], &[Expr::awaited(R0)]].concat();
    for known in [&anywhere[..], &at[..]] {
        let family = &rules::family(which);
        let relayed: [&[Expr]; 4] = [others, family, &carried, known];
        let mut accept = |last: &[&[Expr]]| {
            let parts = [&relayed[..], last].concat();
            rules::rule(batch, CHAIN.name, &parts, Expr::verdict(Verdict::Accept));
        };
        // What nobody awaits is led: a client's flow seems to have begun here when the kernel had forgotten it before the
        // answer came.
        if transport == UDP {
            accept(&[&awaited]);
        }
        accept(&[&local, &lead]);
    }
}

/// A row of relayed ports in its set.
pub(super) fn item(first: &RelayPort, more: u16) -> Item {
    let everywhere = first.host.ip().is_unspecified();
    let set = SETS[usize::from(first.host.is_ipv6()) * 2 + usize::from(!everywhere)].name;
    let last = first.after(more).unwrap_or(*first);
    Item::range(
        set,
        [first, &last].map(|port| {
            let transport = if port.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            };
            element::key(transport, port.host.ip(), port.host.port())
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ranges() {
        let port = RelayPort {
            udp: true,
            host: "[::]:10000".parse().unwrap(),
            target: "172.17.0.2:80".parse().unwrap(),
            listen: false,
        };
        let row = item(&port, 10000);
        assert_eq!(row.set, "relay6");
        assert_eq!(row.key, [17, 0, 0, 0, 0x27, 0x10, 0, 0]);
        assert_eq!(row.end, Some(vec![17, 0, 0, 0, 0x4e, 0x20, 0, 0]));
        let one = RelayPort {
            udp: false,
            host: "127.0.0.1:80".parse().unwrap(),
            ..port
        };
        let one = item(&one, 0);
        assert_eq!(one.set, "relay4-at");
        assert_eq!(one.key, [6, 0, 0, 0, 127, 0, 0, 1, 0, 80, 0, 0]);
    }
}
