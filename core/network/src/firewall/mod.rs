//! The engine's one nftables table, `gantry-<tag>`.
//!
//! Chains hold what changes with networks and are rewritten whole, atomically, with each network. Published ports are
//! elements of four maps; publishing or withdrawing one never touches a rule. Traffic that goes on is never
//! interrupted by either.
//!
//! Sandboxes with an egress list have two tables of their own (see [`egress`]).
//!
//! A table that somebody else removes (`nft flush ruleset`) is made again at once, see [`watch`].
//!
//! A foreign chain that drops what is forwarded by default would have the last word over our accept; it gets rules of
//! ours, recognised by their comment, that let our bridges pass (see [`foreign`]).

mod egress;
mod element;
mod flows;
mod foreign;
mod rules;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use gantry_driver_api::network::FirewallIntent;
use gantry_model::NetworkId;
use gantry_sys::nft::{BaseChain, Batch, Family, Holds, Hook, NftSocket, SetSpec, kind};
use ipnet::IpNet;
use parking_lot::Mutex;

pub(crate) use egress::Confined;
use egress::Egress;
use element::Element;

/// A bridge as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bridge {
    link: String,
    subnets: Vec<IpNet>,
    masquerade: bool,
    internal: bool,
    icc: bool,
}

/// Published ports by host address, port and protocol; and by port and protocol alone, for every local address.
const MAPS: [SetSpec<'static>; 4] = [
    SetSpec {
        name: "ports4",
        key: &[kind::PROTOCOL, kind::PORT],
        value: Some(&[kind::IPV4, kind::PORT]),
        holds: Holds::Keys,
    },
    SetSpec {
        name: "ports4-at",
        key: &[kind::PROTOCOL, kind::IPV4, kind::PORT],
        value: Some(&[kind::IPV4, kind::PORT]),
        holds: Holds::Keys,
    },
    SetSpec {
        name: "ports6",
        key: &[kind::PROTOCOL, kind::PORT],
        value: Some(&[kind::IPV6, kind::PORT]),
        holds: Holds::Keys,
    },
    SetSpec {
        name: "ports6-at",
        key: &[kind::PROTOCOL, kind::IPV6, kind::PORT],
        value: Some(&[kind::IPV6, kind::PORT]),
        holds: Holds::Keys,
    },
];

/// Names of all bridges.
const BRIDGES: SetSpec<'static> = SetSpec {
    name: "bridges",
    key: &[kind::LINK],
    value: None,
    holds: Holds::Keys,
};

const CHAINS: [BaseChain<'static>; 5] = [
    BaseChain {
        name: "guard",
        kind: "filter",
        hook: Hook::Prerouting,
        priority: -300,
        drop: false,
    },
    BaseChain {
        name: "prerouting",
        kind: "nat",
        hook: Hook::Prerouting,
        priority: -100,
        drop: false,
    },
    BaseChain {
        name: "output",
        kind: "nat",
        hook: Hook::Output,
        priority: -100,
        drop: false,
    },
    BaseChain {
        name: "forward",
        kind: "filter",
        hook: Hook::Forward,
        priority: 0,
        drop: false,
    },
    BaseChain {
        name: "postrouting",
        kind: "nat",
        hook: Hook::Postrouting,
        priority: 100,
        drop: false,
    },
];

#[derive(Debug)]
struct State {
    socket: NftSocket,
    bridges: BTreeMap<NetworkId, Vec<Bridge>>,
    /// What is published.
    published: HashSet<Element>,
    /// It was removed on purpose.
    removed: bool,
}

/// Writes the rules of one engine. `None` inside: switched off by `--iptables=false`.
pub(crate) struct Firewall {
    table: String,
    state: Option<Mutex<State>>,
    egress: Option<Mutex<Egress>>,
    /// Called when the ways that names had opened are closed.
    closed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Ends the watching thread when it is dropped.
    _watched: Option<OwnedFd>,
}

impl Firewall {
    /// Opens netlink and begins to watch for changes by others; changes nothing yet.
    pub(crate) fn open(tag: &str, enabled: bool) -> io::Result<Arc<Self>> {
        let open = || -> io::Result<_> {
            Ok(Mutex::new(State {
                socket: NftSocket::open()?,
                bridges: BTreeMap::new(),
                published: HashSet::new(),
                removed: false,
            }))
        };
        let table = format!("gantry-{tag}");
        let state = enabled.then(open).transpose()?;
        let egress = enabled.then(|| Egress::open(&table)).transpose()?;
        let egress = egress.map(Mutex::new);
        let mut failure = None;
        let firewall = Arc::new_cyclic(|this| {
            let watching = enabled.then(|| watch::start(this.clone()));
            let watched = watching.and_then(|started| started.map_err(|e| failure = Some(e)).ok());
            Self {
                table,
                state,
                egress,
                closed: OnceLock::new(),
                _watched: watched,
            }
        });
        failure.map_or(Ok(firewall), Err)
    }

    fn batch(&self) -> Batch {
        Batch::new(Family::Inet, &self.table)
    }

    /// The table as these bridges need it, made or brought up to date; published ports stay.
    fn layout(&self, bridges: &[Bridge]) -> Batch {
        let mut batch = self.batch();
        batch.add_table();
        for set in MAPS.iter().chain([&BRIDGES]) {
            batch.add_set(set);
        }
        batch.flush_set(BRIDGES.name);
        batch.add_elements(
            BRIDGES.name,
            bridges
                .iter()
                .map(|b| (rules::link(&b.link), None))
                .collect(),
        );
        for chain in &CHAINS {
            batch.add_chain(chain);
            batch.flush_chain(chain.name);
        }
        rules::write(&mut batch, bridges);
        batch
    }

    fn rewrite(&self, state: &mut State) -> io::Result<()> {
        let bridges: Vec<Bridge> = state.bridges.values().flatten().cloned().collect();
        state.removed = false;
        state.socket.commit(self.layout(&bridges))?;
        foreign::pass(&mut state.socket, &self.table, &bridges)
    }

    /// Makes the table from nothing, in one change, whatever there is of it.
    fn rebuild(&self, state: &mut State) -> io::Result<()> {
        let bridges: Vec<Bridge> = state.bridges.values().flatten().cloned().collect();
        let mut batch = self.batch();
        batch.remove_table();
        batch.append(self.layout(&bridges));
        element::change(&mut batch, &HashSet::new(), &state.published);
        state.socket.commit(batch)?;
        foreign::pass(&mut state.socket, &self.table, &bridges)
    }

    /// Sets what several networks want, in one change.
    pub(crate) fn set_networks(
        &self,
        networks: impl IntoIterator<Item = (NetworkId, Vec<FirewallIntent>)>,
    ) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        for (network, intents) in networks {
            let bridges = intents.into_iter().filter_map(bridge).collect();
            state.bridges.insert(network, bridges);
        }
        self.rewrite(&mut state)
    }

    /// Forgets a network.
    pub(crate) fn remove_network(&self, network: &NetworkId) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        match state.bridges.remove(network) {
            Some(bridges) if !bridges.is_empty() => self.rewrite(&mut state),
            _ => Ok(()),
        }
    }

    /// Exchanges published ports, in one change.
    pub(crate) fn exchange(
        &self,
        withdraw: &[FirewallIntent],
        publish: &[FirewallIntent],
    ) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let before: HashSet<Element> = withdraw.iter().filter_map(Element::of).collect();
        let after: HashSet<Element> = publish.iter().filter_map(Element::of).collect();
        if before == after {
            return Ok(());
        }
        let mut batch = self.batch();
        element::change(&mut batch, &before, &after);
        let mut state = state.lock();
        state.published.retain(|element| !before.contains(element));
        state.published.extend(after.iter().cloned());
        if let Err(error) = state.socket.commit(batch) {
            tracing::warn!(%error, "the firewall table is not what it was, making it again");
            if let Err(error) = self.rebuild(&mut state) {
                state.published.retain(|element| !after.contains(element));
                state.published.extend(before);
                return Err(error);
            }
        }
        drop(state);
        if let Err(error) = flows::forget(withdraw, publish) {
            // The ports are right; a flow that goes astray ends by itself.
            tracing::warn!(%error, "cannot forget old flows");
        }
        Ok(())
    }

    /// The table that netd adds the addresses of names to.
    pub(crate) fn egress_table(&self) -> String {
        let table = self
            .egress
            .as_ref()
            .map(|egress| egress.lock().table.clone());
        table.unwrap_or_default()
    }

    /// Says who is to open ways for names again when they had to be closed. Once.
    pub(crate) fn when_closed(&self, open: impl Fn() + Send + Sync + 'static) {
        let _ = self.closed.set(Box::new(open));
    }

    fn with_egress(&self, work: impl FnOnce(&mut Egress) -> io::Result<()>) -> io::Result<()> {
        let Some(egress) = &self.egress else {
            return Ok(());
        };
        let mut egress = egress.lock();
        let done = work(&mut egress);
        let closed = std::mem::take(&mut egress.closed);
        drop(egress);
        if closed && let Some(open) = self.closed.get() {
            open();
        }
        done
    }

    /// Limits where a sandbox may go.
    pub(crate) fn confine(&self, sandbox: &str, confined: Confined) -> io::Result<()> {
        self.with_egress(|egress| egress.confine(sandbox, confined))
    }

    /// Forgets the limits of a sandbox.
    pub(crate) fn release(&self, sandbox: &str) -> io::Result<()> {
        self.with_egress(|egress| egress.release(sandbox))
    }

    /// Makes these be all the limits there are.
    pub(crate) fn set_confined(&self, all: BTreeMap<String, Confined>) -> io::Result<()> {
        self.with_egress(|egress| egress.restore(all))
    }

    /// Makes the egress tables again if somebody removed them.
    fn repair_egress(&self) -> io::Result<()> {
        self.with_egress(|egress| {
            if !egress.is_missing()? {
                return Ok(());
            }
            tracing::warn!("the egress tables were removed by another program, making them again");
            egress.rebuild()
        })
    }

    /// Makes the published ports be exactly these.
    pub(crate) fn set_published(&self, publish: &[FirewallIntent]) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        let mut before = HashSet::new();
        for map in &MAPS {
            for (key, value) in state.socket.elements(Family::Inet, &self.table, map.name)? {
                before.insert(Element {
                    map: map.name,
                    key,
                    value,
                });
            }
        }
        let after: HashSet<Element> = publish.iter().filter_map(Element::of).collect();
        let mut batch = self.batch();
        element::change(&mut batch, &before, &after);
        state.published = after;
        state.socket.commit(batch)
    }

    /// Whether the kernel has the table.
    fn is_there(&self) -> io::Result<bool> {
        let Some(state) = &self.state else {
            return Ok(false);
        };
        let chains = state.lock().socket.chains()?;
        Ok(chains
            .iter()
            .any(|c| c.table == self.table && c.family == Family::Inet as u8))
    }

    /// What others did: `removed` our table, or made a chain that we must be let through.
    fn react(&self, removed: bool, foreign: bool) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        if state.removed {
            return Ok(());
        }
        if removed {
            tracing::warn!("the firewall table was removed by another program, making it again");
            return self.rebuild(&mut state);
        }
        if foreign {
            let bridges: Vec<Bridge> = state.bridges.values().flatten().cloned().collect();
            foreign::pass(&mut state.socket, &self.table, &bridges)?;
        }
        Ok(())
    }

    /// Removes the table and our rules in foreign chains.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        self.with_egress(Egress::remove)?;
        let mut state = state.lock();
        state.bridges.clear();
        state.removed = true;
        foreign::pass(&mut state.socket, &self.table, &[])?;
        let mut batch = self.batch();
        batch.remove_table();
        state.socket.commit(batch)
    }
}

impl std::fmt::Debug for Firewall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firewall")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

fn bridge(intent: FirewallIntent) -> Option<Bridge> {
    match intent {
        FirewallIntent::Bridge {
            link,
            subnets,
            masquerade,
            internal,
            icc,
        } => Some(Bridge {
            link,
            subnets,
            masquerade,
            internal,
            icc,
        }),
        FirewallIntent::Publish { .. } => None,
    }
}
