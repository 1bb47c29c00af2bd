//! The rules of the table's chains.

use gantry_sys::nft::{Batch, Expr, Family, Register, Verdict};
use ipnet::IpNet;

use super::{BRIDGES, Bridge};

use Register::{R0, R1, R2, R4, R5};

/// A link's name as the kernel compares it.
pub(super) fn link(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn from(bridge: &Bridge) -> [Expr; 2] {
    [Expr::input_link(R0), Expr::equal(R0, &link(&bridge.link))]
}

fn not_from(bridge: &Bridge) -> [Expr; 2] {
    [
        Expr::input_link(R0),
        Expr::not_equal(R0, &link(&bridge.link)),
    ]
}

fn to(bridge: &Bridge) -> [Expr; 2] {
    [Expr::output_link(R0), Expr::equal(R0, &link(&bridge.link))]
}

fn not_to(bridge: &Bridge) -> [Expr; 2] {
    [
        Expr::output_link(R0),
        Expr::not_equal(R0, &link(&bridge.link)),
    ]
}

fn to_any_bridge() -> [Expr; 2] {
    [Expr::output_link(R0), Expr::lookup(BRIDGES.name, R0, false)]
}

fn from_any_bridge() -> [Expr; 2] {
    [Expr::input_link(R0), Expr::lookup(BRIDGES.name, R0, false)]
}

pub(super) fn family(which: Family) -> [Expr; 2] {
    [Expr::network_protocol(R0), Expr::equal(R0, &[which as u8])]
}

/// The connection's destination was translated: by us, if it leads to a bridge of ours.
fn published() -> [Expr; 3] {
    let bit = Expr::DESTINATION_TRANSLATED.to_ne_bytes();
    [
        Expr::connection_status(R0),
        Expr::mask(R0, &bit),
        Expr::not_equal(R0, &[0; 4]),
    ]
}

/// It belongs to a connection that was let through.
pub(super) fn known() -> [Expr; 3] {
    [
        Expr::connection_state(R0),
        Expr::mask(R0, &Expr::ESTABLISHED.to_ne_bytes()),
        Expr::not_equal(R0, &[0; 4]),
    ]
}

fn source_in(net: &IpNet) -> Vec<Expr> {
    let (which, mask, network) = match net {
        IpNet::V4(v4) => (
            Family::Ipv4,
            v4.netmask().octets().to_vec(),
            v4.network().octets().to_vec(),
        ),
        IpNet::V6(v6) => (
            Family::Ipv6,
            v6.netmask().octets().to_vec(),
            v6.network().octets().to_vec(),
        ),
    };
    let mut rule = family(which).to_vec();
    rule.extend([
        Expr::source(which, R0),
        Expr::mask(R0, &mask),
        Expr::equal(R0, &network),
    ]);
    rule
}

fn loopback_destination() -> Vec<Expr> {
    let mut rule = family(Family::Ipv4).to_vec();
    rule.extend([Expr::destination(Family::Ipv4, R0), Expr::equal(R0, &[127])]);
    rule
}

pub(super) fn rule(batch: &mut Batch, chain: &str, parts: &[&[Expr]], verdict: Expr) {
    let mut expressions = parts.concat();
    expressions.push(verdict);
    batch.add_rule(chain, expressions, "");
}

/// Fills the flushed chains.
pub(super) fn write(batch: &mut Batch, bridges: &[Bridge]) {
    // Bridges route 127.0.0.0/8 for the sake of published ports; containers must not use it to reach the host's own.
    rule(
        batch,
        "guard",
        &[&from_any_bridge(), &loopback_destination()],
        Expr::verdict(Verdict::Drop),
    );
    for chain in ["prerouting", "output"] {
        translate(batch, chain);
    }
    forward(batch, bridges);
    postrouting(batch, bridges);
}

/// What is sent to a local address and a published port goes to its container.
fn translate(batch: &mut Batch, chain: &str) {
    let local = [
        Expr::fib_destination_type(R0),
        Expr::equal(R0, &Expr::LOCAL.to_ne_bytes()),
    ];
    // The kernel cannot translate ::1; refused at once, clients go on to 127.0.0.1.
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    let not_loopback = [
        Expr::destination(Family::Ipv6, R0),
        Expr::not_equal(R0, &loopback),
    ];
    for (which, suffix, guard) in [
        (Family::Ipv4, "ports4", &[][..]),
        (Family::Ipv6, "ports6", &not_loopback[..]),
    ] {
        let v6 = which == Family::Ipv6;
        let (port_after_address, port) = if v6 { (R5, R4) } else { (R2, R1) };
        let at = [
            Expr::transport_protocol(R0),
            Expr::destination(which, R1),
            Expr::destination_port(port_after_address),
            Expr::map(&format!("{suffix}-at"), R0, R0),
        ];
        let anywhere = [
            Expr::transport_protocol(R0),
            Expr::destination_port(R1),
            Expr::map(suffix, R0, R0),
        ];
        for lookup in [&at[..], &anywhere[..]] {
            rule(
                batch,
                chain,
                &[&family(which), &local, guard, lookup],
                Expr::dnat(which, R0, port),
            );
        }
    }
}

fn forward(batch: &mut Batch, bridges: &[Bridge]) {
    let mut add =
        |parts: &[&[Expr]], verdict| rule(batch, "forward", parts, Expr::verdict(verdict));
    add(&[&known()], Verdict::Accept);
    for bridge in bridges.iter().filter(|b| b.internal) {
        add(&[&from(bridge), &not_to(bridge)], Verdict::Drop);
        add(&[&to(bridge), &not_from(bridge)], Verdict::Drop);
    }
    add(&[&to_any_bridge(), &published()], Verdict::Accept);
    for bridge in bridges {
        let verdict = if bridge.icc {
            Verdict::Accept
        } else {
            Verdict::Drop
        };
        add(&[&from(bridge), &to(bridge)], verdict);
    }
    // Other bridges' members, and the world beyond the host, come in by published ports only.
    add(&[&to_any_bridge()], Verdict::Drop);
}

fn postrouting(batch: &mut Batch, bridges: &[Bridge]) {
    let mut add = |parts: &[&[Expr]]| rule(batch, "postrouting", parts, Expr::masquerade());
    let loopback = IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8));
    add(&[&source_in(&loopback), &to_any_bridge(), &published()]);
    for bridge in bridges {
        for subnet in &bridge.subnets {
            // Answers between members of a bridge would not pass the host, and not be translated back.
            add(&[&source_in(subnet), &to(bridge), &published()]);
            if bridge.masquerade {
                add(&[&source_in(subnet), &not_to(bridge)]);
            }
        }
    }
}
