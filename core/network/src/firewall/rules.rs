//! The rules of the table's chains. They are the same whatever networks there are; see [`super::bridges`].

use super::Ways;
use super::bridges::{
    APART, AS, BRIDGES, INTERNAL, OUT, OWN, ROUTED, TOGETHER, TRUSTED, UNPROTECTED,
};
use super::element::{DIRECT, ROWS};
use super::relay;
use gantry_sys::nft::{Batch, Expr, Family, Register, Verdict};

use Register::{R0, R1, R2, R4, R5};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A link's name as the kernel compares it.
pub(super) fn link(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
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

/// The links that it came by and leaves by, as a pair in a set.
fn links_in(set: &str) -> [Expr; 3] {
    [
        Expr::input_link(R0),
        Expr::output_link(R4),
        Expr::lookup(set, R0, false),
    ]
}

/// The family and the link that it leaves by, as a pair in a set.
fn family_to(set: &str) -> [Expr; 3] {
    [
        Expr::network_protocol(R0),
        Expr::output_link(R1),
        Expr::lookup(set, R0, false),
    ]
}

/// Its destination is a port that may be reached directly.
fn direct(v6: bool) -> [Expr; 4] {
    let (which, port) = if v6 {
        (Family::Ipv6, R5)
    } else {
        (Family::Ipv4, R2)
    };
    [
        Expr::transport_protocol(R0),
        Expr::destination(which, R1),
        Expr::destination_port(port),
        Expr::lookup(DIRECT[usize::from(v6)].name, R0, false),
    ]
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
pub(super) fn write(batch: &mut Batch, ways: Ways) {
    // Bridges route 127.0.0.0/8 for the sake of published ports; containers must not use it to reach the host's own.
    rule(
        batch,
        "guard",
        &[&from_any_bridge(), &loopback_destination()],
        Expr::verdict(Verdict::Drop),
    );
    if ways.obey {
        translate(batch, "prerouting", &from_any_bridge());
    } else {
        translate(batch, "prerouting", &[]);
        let relayed = relay::at(false);
        let parts: [&[Expr]; 2] = [&family(Family::Ipv4), &relayed];
        rule(batch, "output", &parts, Expr::verdict(Verdict::Accept));
        translate(batch, "output", &[]);
    }
    forward(batch, ways.direct);
    postrouting(batch);
}

/// What is sent to a local address and a published port goes to its container.
fn translate(batch: &mut Batch, chain: &str, whose: &[Expr]) {
    let local = [
        Expr::fib_destination_type(R0),
        Expr::equal(R0, &Expr::LOCAL.to_ne_bytes()),
    ];
    // What comes from elsewhere must not get to loopback addresses: it is translated before the kernel sees that it is odd.
    // What the host sends there itself was translated on its way out.
    let not_loopback4 = [
        Expr::destination(Family::Ipv4, R0),
        Expr::not_equal(R0, &[127]),
    ];
    let guard4 = match chain {
        "output" => &[][..],
        _ => &not_loopback4[..],
    };
    // The kernel cannot translate ::1; netd relays that.
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    let not_loopback6 = [
        Expr::destination(Family::Ipv6, R0),
        Expr::not_equal(R0, &loopback),
    ];
    for (which, suffix, guard) in [
        (Family::Ipv4, "ports4", guard4),
        (Family::Ipv6, "ports6", &not_loopback6[..]),
    ] {
        let v6 = which == Family::Ipv6;
        let index = usize::from(v6);
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
        let row_at = [&at[..3], &[Expr::map(ROWS[index][1].name, R0, R0)]].concat();
        let row_anywhere = [&anywhere[..2], &[Expr::map(ROWS[index][0].name, R0, R0)]].concat();
        for (lookup, to) in [
            (&at[..], Expr::dnat(which, R0, port)),
            (&row_at[..], Expr::dnat_address(which, R0)),
            (&anywhere[..], Expr::dnat(which, R0, port)),
            (&row_anywhere[..], Expr::dnat_address(which, R0)),
        ] {
            rule(
                batch,
                chain,
                &[whose, &family(which), &local, guard, lookup],
                to,
            );
        }
    }
}

fn forward(batch: &mut Batch, directly: bool) {
    let mut add =
        |parts: &[&[Expr]], verdict| rule(batch, "forward", parts, Expr::verdict(verdict));
    let in_set = |link: Expr, set: &str| [link, Expr::lookup(set, R0, false)];
    add(&[&known()], Verdict::Accept);
    add(&[&links_in(TOGETHER.name)], Verdict::Accept);
    for link in [Expr::input_link(R0), Expr::output_link(R0)] {
        add(&[&in_set(link, INTERNAL.name)], Verdict::Drop);
    }
    add(&[&to_any_bridge(), &published()], Verdict::Accept);
    add(&[&links_in(APART.name)], Verdict::Drop);
    add(&[&family_to(UNPROTECTED.name)], Verdict::Accept);
    for (v6, which, icmp) in [(false, Family::Ipv4, ICMP), (true, Family::Ipv6, ICMPV6)] {
        let is_icmp = [Expr::transport_protocol(R0), Expr::equal(R0, &[icmp])];
        add(
            &[&family(which), &family_to(ROUTED.name), &is_icmp],
            Verdict::Accept,
        );
        add(
            &[&family(which), &family_to(ROUTED.name), &direct(v6)],
            Verdict::Accept,
        );
        add(
            &[&family(which), &links_in(TRUSTED.name), &direct(v6)],
            Verdict::Accept,
        );
    }
    if directly {
        let from_elsewhere = [Expr::input_link(R0), Expr::lookup(BRIDGES.name, R0, true)];
        for (v6, which) in [(false, Family::Ipv4), (true, Family::Ipv6)] {
            add(
                &[
                    &family(which),
                    &from_elsewhere,
                    &to_any_bridge(),
                    &direct(v6),
                ],
                Verdict::Accept,
            );
        }
    }
    // Other bridges' members, and the world beyond the host, come in by published ports only.
    add(&[&to_any_bridge()], Verdict::Drop);
}

fn postrouting(batch: &mut Batch) {
    let mut add = |parts: &[&[Expr]], verdict| rule(batch, "postrouting", parts, verdict);
    let loopback = [Expr::source(Family::Ipv4, R0), Expr::equal(R0, &[127])];
    add(
        &[
            &family(Family::Ipv4),
            &loopback,
            &to_any_bridge(),
            &published(),
        ],
        Expr::masquerade(),
    );
    for (index, which) in [Family::Ipv4, Family::Ipv6].into_iter().enumerate() {
        let after_address = if which == Family::Ipv6 { R4 } else { R1 };
        let own = [
            Expr::source(which, R0),
            Expr::output_link(after_address),
            Expr::lookup(OWN[index].name, R0, false),
        ];
        let out = [Expr::source(which, R0)];
        // Answers between members of a bridge would not pass the host, and not be translated back.
        add(&[&family(which), &own, &published()], Expr::masquerade());
        add(&[&family(which), &own], Expr::verdict(Verdict::Accept));
        add(
            &[&family(which), &out, &[Expr::map(AS[index].name, R0, R0)]],
            Expr::snat(which, R0),
        );
        add(
            &[
                &family(which),
                &out,
                &[Expr::lookup(OUT[index].name, R0, false)],
            ],
            Expr::masquerade(),
        );
    }
}
