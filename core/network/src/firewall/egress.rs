//! Sandboxes with an egress list: two tables of their own, made when the first such sandbox is.
//!
//! In `gantry-<tag>-egress` a chain before any translation of destinations lets answers pass, then looks up the pair of
//! source and destination: in the ranges that core keeps there, and among the addresses of names, which netd adds and
//! which expire. What else comes from such a sandbox is rejected, whether it is for the host, for another network or for
//! the world. The bridge table of the same name sees to it that a sandbox sends from its own addresses only, so that it
//! cannot pass for another.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;

use gantry_netd::{EGRESS_NAMES_V4, EGRESS_NAMES_V6};
use gantry_sys::netlink::FlowSocket;
use gantry_sys::nft::{
    BaseChain, Batch, Event, Expr, Family, Holds, Hook, NftSocket, Register, SetSpec, Verdict, kind,
};

use super::element::push_ip;
use super::item::{Item, change, set};
use super::rules;

use Register::{R0, R1, R4};

const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Neighbour solicitation and advertisement: not tracked, and addressed to any neighbour.
const NEIGHBOURS: [u8; 2] = [135, 136];

const SOURCES: [SetSpec<'static>; 2] = [
    set("sources4", &[kind::IPV4], Holds::Keys),
    set("sources6", &[kind::IPV6], Holds::Keys),
];
const RANGES: [SetSpec<'static>; 2] = [
    set("ranges4", &[kind::IPV4, kind::IPV4], Holds::Ranges),
    set("ranges6", &[kind::IPV6, kind::IPV6], Holds::Ranges),
];
const NAMES: [SetSpec<'static>; 2] = [
    set(EGRESS_NAMES_V4, &[kind::IPV4, kind::IPV4], Holds::Expiring),
    set(EGRESS_NAMES_V6, &[kind::IPV6, kind::IPV6], Holds::Expiring),
];
const LINKS: SetSpec<'static> = set("links", &[kind::LINK], Holds::Keys);
const OWN: [SetSpec<'static>; 2] = [
    set("own4", &[kind::LINK, kind::IPV4], Holds::Keys),
    set("own6", &[kind::LINK, kind::IPV6], Holds::Keys),
];

/// After connection tracking, before the translation of destinations.
const CHAIN: BaseChain<'static> = BaseChain {
    name: "egress",
    kind: "filter",
    hook: Hook::Prerouting,
    priority: -150,
    drop: false,
};
const GUARD: BaseChain<'static> = BaseChain {
    name: "guard",
    kind: "filter",
    hook: Hook::Prerouting,
    priority: -300,
    drop: false,
};

/// More ranges than these are not taken out of a set: the kernel looks at all of them for each (60 s for 4,000). The tables
/// are made anew then.
const MANY: usize = 256;

/// A sandbox that reaches listed places only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Confined {
    /// The ends of its links on the host, each with the sandbox's addresses behind it.
    pub(crate) links: Vec<(String, Vec<IpAddr>)>,
    /// First and last addresses of where it may go; they do not overlap.
    pub(crate) ranges: Vec<(IpAddr, IpAddr)>,
}

impl Confined {
    pub(crate) fn sources(&self) -> impl Iterator<Item = IpAddr> {
        self.links
            .iter()
            .flat_map(|(_, addresses)| addresses)
            .copied()
    }

    /// For the egress table.
    fn ways(&self) -> HashSet<Item> {
        let mut items = HashSet::new();
        for source in self.sources() {
            let family = usize::from(source.is_ipv6());
            items.insert(Item::key(SOURCES[family].name, key(&[source])));
            for (first, last) in &self.ranges {
                if first.is_ipv6() == source.is_ipv6() {
                    let range = [key(&[source, *first]), key(&[source, *last])];
                    items.insert(Item::range(RANGES[family].name, range));
                }
            }
        }
        items
    }

    /// For the bridge table.
    fn senders(&self) -> HashSet<Item> {
        let mut items = HashSet::new();
        for (link, addresses) in &self.links {
            let link = rules::link(link);
            items.insert(Item::key(LINKS.name, link.clone()));
            items.extend(addresses.iter().map(|ip| {
                let key = [link.clone(), key(&[*ip])].concat();
                Item::key(OWN[usize::from(ip.is_ipv6())].name, key)
            }));
        }
        items
    }
}

/// How many ranges go when one collection becomes another.
fn removed(before: &HashSet<Item>, after: &HashSet<Item>) -> usize {
    let gone = before.difference(after);
    gone.filter(|item| item.end.is_some()).count()
}

fn key(addresses: &[IpAddr]) -> Vec<u8> {
    let mut key = Vec::new();
    addresses.iter().for_each(|ip| push_ip(&mut key, *ip));
    key
}

/// The two tables.
#[derive(Debug)]
pub(super) struct Egress {
    pub(super) table: String,
    socket: NftSocket,
    confined: BTreeMap<String, Confined>,
    /// What names had opened was closed by a rebuild; whoever sees to it resets this.
    pub(super) closed: bool,
}

impl Egress {
    pub(super) fn open(table: &str) -> io::Result<Self> {
        Ok(Self {
            table: format!("{table}-egress"),
            socket: NftSocket::open()?,
            confined: BTreeMap::new(),
            closed: false,
        })
    }

    fn batches(&self) -> [Batch; 2] {
        [Family::Inet, Family::Bridge].map(|family| Batch::new(family, &self.table))
    }

    /// The senders' table first: a sandbox is never let out under another's name.
    fn commit(&mut self, [ways, senders]: [Batch; 2]) -> io::Result<()> {
        self.socket.commit(senders)?;
        self.socket.commit(ways)
    }

    /// Limits a sandbox, or changes its limits.
    pub(super) fn confine(&mut self, id: &str, confined: Confined) -> io::Result<()> {
        let before = self.confined.get(id).cloned().unwrap_or_default();
        if before == confined {
            return Ok(());
        }
        let [mut ways, mut senders] = self.batches();
        if self.confined.is_empty() {
            lay_out(&mut ways, &mut senders);
        }
        change(&mut ways, &before.ways(), &confined.ways());
        change(&mut senders, &before.senders(), &confined.senders());
        let known: Vec<IpAddr> = before.sources().collect();
        let new: Vec<IpAddr> = confined
            .sources()
            .filter(|ip| !known.contains(ip))
            .collect();
        let many = removed(&before.ways(), &confined.ways()) > MANY;
        let was_empty = self.confined.insert(id.to_owned(), confined).is_none();
        let done = match many {
            true => self.rebuild(),
            false => self.commit([ways, senders]).or_else(|error| {
                tracing::warn!(%error, "the egress tables are not what they were, making them again");
                self.rebuild()
            }),
        };
        if let Err(error) = done {
            if was_empty {
                self.confined.remove(id);
            } else {
                self.confined.insert(id.to_owned(), before);
            }
            return Err(error);
        }
        // An address may have been another sandbox's.
        self.close_names(|source| new.contains(&source))?;
        FlowSocket::open()?.forget(|flow| new.contains(&flow.original.0.ip()))?;
        Ok(())
    }

    /// Forgets a sandbox.
    pub(super) fn release(&mut self, id: &str) -> io::Result<()> {
        let Some(gone) = self.confined.remove(id) else {
            return Ok(());
        };
        if self.confined.is_empty() {
            return self.remove();
        }
        if removed(&gone.ways(), &HashSet::new()) > MANY {
            return self.rebuild();
        }
        let [mut ways, mut senders] = self.batches();
        change(&mut ways, &gone.ways(), &HashSet::new());
        change(&mut senders, &gone.senders(), &HashSet::new());
        self.commit([ways, senders]).or_else(|_| self.rebuild())?;
        let sources: Vec<IpAddr> = gone.sources().collect();
        self.close_names(|source| sources.contains(&source))
    }

    /// Makes it be exactly these; the ways that names opened stay open, or, where there is much to do, are opened again.
    pub(super) fn restore(&mut self, all: BTreeMap<String, Confined>) -> io::Result<()> {
        self.confined = all;
        if self.confined.is_empty() {
            return self.remove();
        }
        let ways = self.confined.values().flat_map(Confined::ways).collect();
        if removed(&ways, &HashSet::new()) > MANY {
            return self.rebuild();
        }
        let [mut ways, mut senders] = self.batches();
        lay_out(&mut ways, &mut senders);
        for set in SOURCES.iter().chain(&RANGES) {
            ways.flush_set(set.name);
        }
        for set in OWN.iter().chain([&LINKS]) {
            senders.flush_set(set.name);
        }
        self.fill(&mut ways, &mut senders);
        self.commit([ways, senders])?;
        let sources: Vec<IpAddr> = self.confined.values().flat_map(Confined::sources).collect();
        self.close_names(|source| !sources.contains(&source))
    }

    fn fill(&self, ways: &mut Batch, senders: &mut Batch) {
        for confined in self.confined.values() {
            change(ways, &HashSet::new(), &confined.ways());
            change(senders, &HashSet::new(), &confined.senders());
        }
    }

    /// Makes the tables from nothing. What names opened is closed: netd opens it again.
    fn rebuild(&mut self) -> io::Result<()> {
        let [mut ways, mut senders] = self.batches();
        ways.remove_table();
        senders.remove_table();
        lay_out(&mut ways, &mut senders);
        self.fill(&mut ways, &mut senders);
        self.closed = true;
        self.commit([ways, senders])
    }

    /// Whether this was somebody else's, and leaves sandboxes less confined than they are to be, or more.
    pub(super) fn is_damage(&self, event: &Event) -> bool {
        match event {
            Event::Removed { table, set, by, .. } => {
                // netd takes addresses of names out to put them in for longer.
                let by_netd = NAMES.iter().any(|names| names.name == set);
                *table == self.table && *by != self.socket.port() && !by_netd
            }
            Event::TableRemoved { .. } | Event::Chain(_) => false,
        }
    }

    /// Makes the tables again if they are not there, or, `damaged`, not what they were.
    pub(super) fn repair(&mut self, damaged: bool) -> io::Result<()> {
        if self.confined.is_empty() || !(damaged || self.is_missing()?) {
            return Ok(());
        }
        tracing::warn!("the egress tables were changed by another program, making them again");
        self.rebuild()
    }

    fn is_missing(&mut self) -> io::Result<bool> {
        let chains = self.socket.chains()?;
        let has = |family: Family| {
            let is =
                |c: &gantry_sys::nft::ChainFacts| c.table == self.table && c.family == family as u8;
            chains.iter().any(is)
        };
        Ok(!has(Family::Inet) || !has(Family::Bridge))
    }

    /// Removes both tables.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.confined.clear();
        let chains = self.socket.chains()?;
        if !chains.iter().any(|chain| chain.table == self.table) {
            return Ok(());
        }
        let [mut ways, mut senders] = self.batches();
        ways.remove_table();
        senders.remove_table();
        self.commit([ways, senders])
    }

    /// Closes the ways that names opened for these sources.
    fn close_names(&mut self, is_it: impl Fn(IpAddr) -> bool) -> io::Result<()> {
        let mut batch = Batch::new(Family::Inet, &self.table);
        for set in &NAMES {
            let open = self.socket.elements(Family::Inet, &self.table, set.name)?;
            let keys = open.into_iter().map(|(key, _)| key);
            let keys: Vec<_> = keys
                .filter(|key| source_of(key).is_some_and(&is_it))
                .collect();
            if !keys.is_empty() {
                batch.remove_elements(set.name, keys);
            }
        }
        self.socket.commit(batch)
    }
}

fn source_of(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        8 => Some(IpAddr::from(*key.first_chunk::<4>()?)),
        32 => Some(IpAddr::from(*key.first_chunk::<16>()?)),
        _ => None,
    }
}

fn lay_out(ways: &mut Batch, senders: &mut Batch) {
    ways.add_table();
    for set in SOURCES.iter().chain(&RANGES).chain(&NAMES) {
        ways.add_set(set);
    }
    ways.add_chain(&CHAIN);
    ways.flush_chain(CHAIN.name);
    write_ways(ways);
    senders.add_table();
    for set in OWN.iter().chain([&LINKS]) {
        senders.add_set(set);
    }
    senders.add_chain(&GUARD);
    senders.flush_chain(GUARD.name);
    write_senders(senders);
}

fn write_ways(batch: &mut Batch) {
    let mut add = |parts: &[&[Expr]], verdict| rules::rule(batch, CHAIN.name, parts, verdict);
    let accept = || Expr::verdict(Verdict::Accept);
    add(&[&rules::known()], accept());
    for neighbours in NEIGHBOURS {
        let is_it = [Expr::icmp_type(R0), Expr::equal(R0, &[neighbours])];
        let icmp = protocol(ICMPV6);
        add(&[&rules::family(Family::Ipv6), &icmp, &is_it], accept());
    }
    for (index, (which, second)) in [(Family::Ipv4, R1), (Family::Ipv6, R4)]
        .into_iter()
        .enumerate()
    {
        let family = rules::family(which);
        let pair = [Expr::source(which, R0), Expr::destination(which, second)];
        for set in [&RANGES[index], &NAMES[index]] {
            add(
                &[&family, &pair, &[Expr::lookup(set.name, R0, false)]],
                accept(),
            );
        }
        let confined = [
            Expr::source(which, R0),
            Expr::lookup(SOURCES[index].name, R0, false),
        ];
        // A connection that waits for an answer takes a reset at once, and other errors when it tries again.
        add(&[&family, &protocol(TCP), &confined], Expr::reset());
        add(&[&family, &confined], Expr::reject());
    }
}

fn protocol(number: u8) -> [Expr; 2] {
    [Expr::transport_protocol(R0), Expr::equal(R0, &[number])]
}

fn write_senders(batch: &mut Batch) {
    let mut add = |parts: &[&[Expr]], verdict| {
        rules::rule(batch, GUARD.name, parts, Expr::verdict(verdict));
    };
    let frame = |kind: [u8; 2]| [Expr::frame_protocol(R0), Expr::equal(R0, &kind)];
    let others = [Expr::input_link(R0), Expr::lookup(LINKS.name, R0, true)];
    add(&[&others], Verdict::Accept);
    add(&[&frame(Expr::ARP)], Verdict::Accept);
    for (kind, which, own) in [
        (Expr::IPV4, Family::Ipv4, &OWN[0]),
        (Expr::IPV6, Family::Ipv6, &OWN[1]),
    ] {
        let pair = [
            Expr::input_link(R0),
            Expr::source(which, R4),
            Expr::lookup(own.name, R0, false),
        ];
        add(&[&frame(kind), &pair], Verdict::Accept);
    }
    // Neighbours are found from addresses of the link, and from none.
    let mut link_local = [0; 16];
    (link_local[0], link_local[1]) = (0xfe, 0x80);
    let mut prefix = [0; 16];
    (prefix[0], prefix[1]) = (0xff, 0xc0);
    let on_link = [
        Expr::source(Family::Ipv6, R0),
        Expr::mask(R0, &prefix),
        Expr::equal(R0, &link_local),
    ];
    let nobody = [Expr::source(Family::Ipv6, R0), Expr::equal(R0, &[0; 16])];
    for source in [&on_link[..], &nobody[..]] {
        add(
            &[&frame(Expr::IPV6), &protocol(ICMPV6), source],
            Verdict::Accept,
        );
    }
    add(&[], Verdict::Drop);
}
