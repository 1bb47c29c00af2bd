//! The engine's one nftables table, `gantry-<tag>`.
//!
//! Its rules are always the same. Networks are elements of sets (see [`bridges`]), published ports are elements of maps:
//! neither touches a rule or costs more among thousands than alone, and traffic that goes on is never interrupted.
//!
//! Sandboxes with an egress list have two tables of their own (see [`egress`]).
//!
//! A table that somebody else removes (`nft flush ruleset`) is made again at once, see [`watch`].
//!
//! A foreign chain that drops what is forwarded by default would have the last word over our accept; it gets rules of
//! ours, recognised by their comment, that let our bridges pass (see [`foreign`]).

mod bridges;
mod confine;
mod egress;
mod element;
mod flows;
mod foreign;
mod item;
mod legacy;
mod published;
mod relay;
mod rules;
mod shortcut;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use gantry_driver_api::network::FirewallIntent;
use gantry_model::NetworkId;
use gantry_sys::connect::Led;
use gantry_sys::nft::{BaseChain, Batch, Family, Holds, Hook, NftSocket, SetSpec, kind};
use parking_lot::Mutex;

use crate::NetworkConfig;

use bridges::Bridge;
pub(crate) use egress::Confined;
use egress::Egress;
use item::Item;
use published::Heads;

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
    published: Heads,
    /// The rules are there.
    laid_out: bool,
    /// It was removed on purpose.
    removed: bool,
}

impl State {
    fn links(&self, table: &str) -> BTreeSet<foreign::Links> {
        foreign::links(table, self.bridges.values().flatten())
    }

    /// Whether there are names of links, before or after a change of one network's bridges, that no other network's have.
    fn renames(&self, table: &str, network: &NetworkId, change: [&[Bridge]; 2]) -> bool {
        let [before, after] = change.map(|bridges| foreign::links(table, bridges));
        let others = self.bridges.iter().filter(|(id, _)| *id != network);
        let others = others.flat_map(|(_, bridges)| bridges);
        let has = |links: &foreign::Links| {
            let mut others = others.clone();
            others.any(|bridge| foreign::Links::of(table, bridge) == *links)
        };
        before.symmetric_difference(&after).any(|links| !has(links))
    }

    fn items(&self) -> HashSet<Item> {
        let bridges = self.bridges.values().flatten();
        bridges.flat_map(Bridge::items).collect()
    }
}

/// What the daemon's options change about the rules.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ways {
    /// What is published passes the host's INPUT rules: the kernel translates for containers alone.
    obey: bool,
    /// Published ports are reached at the containers' own addresses as well.
    direct: bool,
}

impl Ways {
    pub(crate) fn of(config: &NetworkConfig) -> Self {
        Self {
            obey: config.obey_input,
            direct: config.allow_direct_routing,
        }
    }
}

/// Writes the rules of one engine. `None` inside: switched off by `--iptables=false`.
pub(crate) struct Firewall {
    table: String,
    ways: Ways,
    state: Option<Mutex<State>>,
    /// Leads what the host connects to at loopback addresses.
    led: Option<Led>,
    /// By what the kernel tells our changes from others'.
    port: Option<u32>,
    /// What legacy iptables drops has been complained about.
    complained: AtomicBool,
    egress: Option<Mutex<Egress>>,
    /// Called when the ways that names had opened are closed.
    closed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Ends the watching thread when it is dropped.
    _watched: Option<OwnedFd>,
}

impl Firewall {
    /// Opens netlink and begins to watch for changes by others; changes nothing yet.
    ///
    /// `shortcut`: the control group whose processes are led, see [`shortcut`].
    pub(crate) fn open(
        tag: &str,
        enabled: bool,
        ways: Ways,
        shortcut: Option<&Path>,
    ) -> io::Result<Arc<Self>> {
        let open = || -> io::Result<_> {
            Ok(Mutex::new(State {
                socket: NftSocket::open()?,
                bridges: BTreeMap::new(),
                published: Heads::default(),
                laid_out: false,
                removed: false,
            }))
        };
        let table = format!("gantry-{tag}");
        if !enabled && let Err(error) = remove_old(&table) {
            // Where the kernel has no nftables, there are none.
            tracing::debug!(%error, "removing the rules of an earlier daemon");
        }
        let state = enabled.then(open).transpose()?;
        let shortcut = shortcut.filter(|_| enabled && !ways.obey);
        let mut led = shortcut.and_then(|group| shortcut::begin(group, &table));
        // Sandboxes of an earlier daemon may have limits, which end with them.
        let egress = match Egress::open(&table) {
            Err(error) if enabled => return Err(error),
            egress => egress.ok().map(Mutex::new),
        };
        let mut failure = None;
        let firewall = Arc::new_cyclic(|this| {
            let watching = enabled.then(|| watch::start(this.clone()));
            let watched = watching.and_then(|started| started.map_err(|e| failure = Some(e)).ok());
            Self {
                table,
                ways,
                port: state.as_ref().map(|state| state.lock().socket.port()),
                complained: AtomicBool::new(false),
                state,
                led: led.take(),
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

    /// The table as it always is, made or brought up to date; what is in its sets stays.
    fn layout(&self) -> Batch {
        let mut batch = self.batch();
        batch.add_table();
        let rows = element::ROWS.iter().flatten();
        for set in element::sets().chain(rows).chain(bridges::sets()) {
            batch.add_set(set);
        }
        for chain in &CHAINS {
            batch.add_chain(chain);
            batch.flush_chain(chain.name);
        }
        relay::lay_out(&mut batch);
        rules::write(&mut batch, self.ways);
        batch
    }

    /// Writes the rules and every bridge anew; published ports stay.
    fn rewrite(&self, state: &mut State) -> io::Result<()> {
        state.removed = false;
        let mut batch = self.layout();
        for set in bridges::sets() {
            batch.flush_set(set.name);
        }
        item::change(&mut batch, &HashSet::new(), &state.items());
        state.socket.commit(batch)?;
        state.laid_out = true;
        for bridge in state.bridges.values().flatten() {
            route_loopback(&bridge.link, true);
        }
        self.pass(state)
    }

    /// Lets the bridges through chains of others that drop by default.
    fn pass(&self, state: &mut State) -> io::Result<()> {
        let links = state.links(&self.table);
        foreign::pass(&mut state.socket, &self.table, &links)
    }

    /// Makes the table from nothing, in one change, whatever there is of it.
    fn rebuild(&self, state: &mut State) -> io::Result<()> {
        let mut batch = self.batch();
        batch.remove_table();
        batch.append(self.layout());
        item::change(&mut batch, &HashSet::new(), &state.items());
        state.published.write(&mut batch, self.ways.obey);
        state.socket.commit(batch)?;
        state.laid_out = true;
        self.pass(state)
    }

    /// Brings the sets in line with a network's bridges.
    fn exchange_bridges(
        &self,
        state: &mut State,
        network: &NetworkId,
        new: Vec<Bridge>,
    ) -> io::Result<()> {
        let items = |bridges: &[Bridge]| bridges.iter().flat_map(Bridge::items).collect();
        let before = state.bridges.get(network).cloned().unwrap_or_default();
        if before == new {
            return Ok(());
        }
        let renamed = state.renames(&self.table, network, [&before, &new]);
        let mut batch = self.batch();
        item::change(&mut batch, &items(&before), &items(&new));
        match new.is_empty() {
            true => state.bridges.remove(network),
            false => state.bridges.insert(network.clone(), new.clone()),
        };
        if let Err(error) = state.socket.commit(batch) {
            tracing::warn!(%error, "the firewall table is not what it was, making it again");
            if let Err(error) = self.rebuild(state) {
                state.bridges.insert(network.clone(), before);
                return Err(error);
            }
        }
        for bridge in &new {
            route_loopback(&bridge.link, true);
        }
        match renamed {
            true => self.pass(state),
            false => Ok(()),
        }
    }

    /// Sets what several networks want, in one change.
    pub(crate) fn set_networks(
        &self,
        networks: impl IntoIterator<Item = (NetworkId, Vec<FirewallIntent>)>,
    ) -> io::Result<()> {
        let bridges = |intents: Vec<FirewallIntent>| intents.into_iter().filter_map(Bridge::of);
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        if !state.laid_out {
            let all = networks
                .into_iter()
                .map(|(network, intents)| (network, bridges(intents).collect()));
            state.bridges.extend(all);
            return self.rewrite(&mut state);
        }
        for (network, intents) in networks {
            self.exchange_bridges(&mut state, &network, bridges(intents).collect())?;
        }
        Ok(())
    }

    /// Whether what is sent to 127.0.0.1 can be translated to something behind a link: our bridges route it.
    pub(crate) fn routes_loopback(&self, link: &str) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        let state = state.lock();
        let mut bridges = state.bridges.values().flatten();
        bridges.any(|bridge| bridge.link == link)
    }

    /// Forgets a network.
    pub(crate) fn remove_network(&self, network: &NetworkId) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        self.exchange_bridges(&mut state.lock(), network, Vec::new())
    }

    /// Whether the kernel has the table.
    fn is_there(&self) -> io::Result<bool> {
        let Some(state) = &self.state else {
            return Ok(false);
        };
        has_table(&mut state.lock().socket, &self.table)
    }

    /// What others did: `removed` our table or something in it, or made a chain that we must be let through.
    fn react(&self, removed: bool, foreign: bool) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        if state.removed {
            return Ok(());
        }
        if removed {
            tracing::warn!("the firewall table was changed by another program, making it again");
            return self.rebuild(&mut state);
        }
        if foreign {
            self.pass(&mut state)?;
        }
        Ok(())
    }

    /// Removes the table and our rules in foreign chains.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.with_egress(Egress::remove)?;
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        state.bridges.clear();
        state.laid_out = false;
        state.removed = true;
        self.lead(&state.published.places(), &HashMap::new());
        self.pass(&mut state)?;
        let mut batch = self.batch();
        batch.remove_table();
        state.socket.commit(batch)
    }
}

fn has_table(socket: &mut NftSocket, table: &str) -> io::Result<bool> {
    let chains = socket.chains()?;
    Ok(chains
        .iter()
        .any(|c| c.table == table && c.family == Family::Inet as u8))
}

/// Removes the rules of an earlier daemon that wrote some: nobody would keep them in line with what is published. Limits of
/// sandboxes with egress lists stay; there is no other way to keep those promises.
fn remove_old(table: &str) -> io::Result<()> {
    let mut socket = NftSocket::open()?;
    foreign::pass(&mut socket, table, &BTreeSet::new())?;
    if !has_table(&mut socket, table)? {
        return Ok(());
    }
    // The rule that guards it goes as well.
    for (name, _) in socket.elements(Family::Inet, table, bridges::BRIDGES.name)? {
        let name = String::from_utf8_lossy(&name);
        route_loopback(name.trim_end_matches('\0'), false);
    }
    let mut batch = Batch::new(Family::Inet, table);
    batch.remove_table();
    socket.commit(batch)
}

impl std::fmt::Debug for Firewall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firewall")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Published ports are reached at 127.0.0.1 by translating what is local already. What comes from the bridge must not get
/// there: it is routed only where the rule stands that drops that.
fn route_loopback(link: &str, routed: bool) {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
    if let Err(error) = std::fs::write(&path, if routed { "1" } else { "0" }) {
        tracing::warn!(path, %error, "loopback addresses on a bridge");
    }
}
