//! The engine's one nftables table, `gantry-<tag>`.
//!
//! Chains hold what changes with networks and are rewritten whole, atomically, with each network. Published ports are
//! elements of four maps; publishing or withdrawing one never touches a rule. Traffic that goes on is never
//! interrupted by either.
//!
//! A foreign chain that drops what is forwarded by default would have the last word over our accept; it gets rules of
//! ours, recognised by their comment, that let our bridges pass (see [`foreign`]).

mod element;
mod flows;
mod foreign;
mod rules;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use gantry_driver_api::network::FirewallIntent;
use gantry_model::NetworkId;
use gantry_sys::nft::{BaseChain, Batch, Family, Hook, NftSocket, SetSpec, kind};
use ipnet::IpNet;
use parking_lot::Mutex;

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
    },
    SetSpec {
        name: "ports4-at",
        key: &[kind::PROTOCOL, kind::IPV4, kind::PORT],
        value: Some(&[kind::IPV4, kind::PORT]),
    },
    SetSpec {
        name: "ports6",
        key: &[kind::PROTOCOL, kind::PORT],
        value: Some(&[kind::IPV6, kind::PORT]),
    },
    SetSpec {
        name: "ports6-at",
        key: &[kind::PROTOCOL, kind::IPV6, kind::PORT],
        value: Some(&[kind::IPV6, kind::PORT]),
    },
];

/// Names of all bridges.
const BRIDGES: SetSpec<'static> = SetSpec {
    name: "bridges",
    key: &[kind::LINK],
    value: None,
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
    /// When foreign chains were last looked at.
    looked: Option<Instant>,
}

/// Writes the rules of one engine. `None` inside: switched off by `--iptables=false`.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    state: Option<Mutex<State>>,
}

impl Firewall {
    /// Opens netlink; changes nothing yet.
    pub(crate) fn open(tag: &str, enabled: bool) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            Ok(Mutex::new(State {
                socket: NftSocket::open()?,
                bridges: BTreeMap::new(),
                looked: None,
            }))
        };
        Ok(Self {
            table: format!("gantry-{tag}"),
            state: enabled.then(open).transpose()?,
        })
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
        state.socket.commit(self.layout(&bridges))?;
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

    /// Lets our bridges pass chains that others may have made since. Looks no more than once a second.
    pub(crate) fn check_foreign(&self) -> io::Result<()> {
        const OFTEN_ENOUGH: Duration = Duration::from_secs(1);
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        if state.looked.is_some_and(|at| at.elapsed() < OFTEN_ENOUGH) {
            return Ok(());
        }
        state.looked = Some(Instant::now());
        let bridges: Vec<Bridge> = state.bridges.values().flatten().cloned().collect();
        foreign::pass(&mut state.socket, &self.table, &bridges)
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
        let mut batch = self.batch();
        element::change(&mut batch, &before, &after);
        if batch.is_empty() {
            return Ok(());
        }
        state.lock().socket.commit(batch)?;
        if let Err(error) = flows::forget(withdraw, publish) {
            // The ports are right; a flow that goes astray ends by itself.
            tracing::warn!(%error, "cannot forget old flows");
        }
        Ok(())
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
        state.socket.commit(batch)
    }

    /// Removes the table and our rules in foreign chains.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        state.bridges.clear();
        foreign::pass(&mut state.socket, &self.table, &[])?;
        let mut batch = self.batch();
        batch.remove_table();
        state.socket.commit(batch)
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
