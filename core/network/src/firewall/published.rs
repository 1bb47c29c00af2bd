//! Published ports: those that the kernel translates, and those that netd relays.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddrV4;

use gantry_driver_api::network::FirewallIntent;
use gantry_netd::Listeners;
use gantry_sys::nft::{Batch, Family};

use crate::publish::Published;
use crate::relay::RelayPort;
use crate::rows::{InRow, Rows};

use super::element::{self, Element};
use super::item::{self, Item};
use super::{Firewall, State, flows, relay, shortcut};

/// All that is published: the first of each row, and how many follow.
#[derive(Debug, Default)]
pub(super) struct Heads {
    intents: HashSet<(FirewallIntent, u16)>,
    relays: HashSet<(RelayPort, u16)>,
    /// Where what is relayed is led to, when that has been said.
    listeners: Option<Listeners>,
}

impl Heads {
    fn remove(&mut self, published: &Published) {
        for head in heads(&published.intents) {
            self.intents.remove(&head);
        }
        for head in heads(&published.relays) {
            self.relays.remove(&head);
        }
    }

    fn insert(&mut self, published: &Published) {
        self.intents.extend(heads(&published.intents));
        self.relays.extend(heads(&published.relays));
    }

    /// Where connections are led.
    pub(super) fn places(&self) -> HashMap<SocketAddrV4, SocketAddrV4> {
        shortcut::places(self.intents.iter().map(|(first, more)| (first, *more)))
    }

    /// Writes all of it into an empty table.
    pub(super) fn write(&self, batch: &mut Batch, obey: bool) {
        if let Some(listeners) = &self.listeners {
            relay::write(batch, listeners, obey);
        }
        let intents = self.intents.iter().map(|(first, more)| (first, *more));
        let relays = self.relays.iter().map(|(first, more)| (first, *more));
        Parts::of(intents, relays).exchange(batch, &Parts::default());
    }
}

fn heads<T: InRow>(rows: &Rows<T>) -> impl Iterator<Item = (T, u16)> {
    rows.heads().map(|(first, more)| (first.clone(), more))
}

/// What is published, as the sets have it.
#[derive(Default)]
struct Parts {
    elements: HashSet<Element>,
    items: HashSet<Item>,
}

impl Parts {
    fn of<'a>(
        intents: impl Iterator<Item = (&'a FirewallIntent, u16)>,
        relays: impl Iterator<Item = (&'a RelayPort, u16)>,
    ) -> Self {
        let mut parts = Self::default();
        for (first, more) in intents {
            match element::row(first, more) {
                Some(row) => drop(parts.items.insert(row)),
                None => {
                    let row = (0..=more).filter_map(|by| first.after(by));
                    let elements = row.filter_map(|intent| Element::of(&intent));
                    parts.elements.extend(elements);
                }
            }
        }
        parts
            .items
            .extend(relays.map(|(first, more)| relay::item(first, more)));
        parts
    }

    fn of_rows(published: &Published) -> Self {
        Self::of(published.intents.heads(), published.relays.heads())
    }

    /// Has the sets hold this in the place of what was before.
    fn exchange(&self, batch: &mut Batch, before: &Self) {
        element::change(batch, &before.elements, &self.elements);
        item::change(batch, &before.items, &self.items);
    }
}

impl Firewall {
    /// Exchanges published ports, in one change.
    pub(crate) fn exchange(&self, withdraw: &Published, publish: &Published) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        if withdraw == publish {
            return Ok(());
        }
        let mut batch = self.batch();
        Parts::of_rows(publish).exchange(&mut batch, &Parts::of_rows(withdraw));
        let mut state = state.lock();
        state.published.remove(withdraw);
        state.published.insert(publish);
        if let Err(error) = state.socket.commit(batch) {
            tracing::warn!(%error, "the firewall table is not what it was, making it again");
            if let Err(error) = self.rebuild(&mut state) {
                state.published.remove(publish);
                state.published.insert(withdraw);
                return Err(error);
            }
        }
        let [before, after] = [withdraw, publish].map(|all| shortcut::places(all.intents.heads()));
        self.lead(&before, &after);
        drop(state);
        self.complain_of_legacy();
        if let Err(error) = flows::forget(withdraw.intents.iter(), publish.intents.iter()) {
            // The ports are right; a flow that goes astray ends by itself.
            tracing::warn!(%error, "cannot forget old flows");
        }
        Ok(())
    }

    /// Makes the published ports be exactly these.
    pub(crate) fn set_published(&self, all: &Published) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        let mut before = Parts::default();
        for map in element::sets() {
            for (key, value) in state.socket.elements(Family::Inet, &self.table, map.name)? {
                before.elements.insert(Element {
                    map: map.name,
                    key,
                    value,
                });
            }
        }
        let mut batch = self.batch();
        // What the kernel has of rows is not read back, but replaced.
        for set in element::ROWS.iter().flatten().chain(&relay::SETS) {
            batch.flush_set(set.name);
        }
        Parts::of_rows(all).exchange(&mut batch, &before);
        let new = Heads {
            listeners: state.published.listeners,
            ..Heads::default()
        };
        let led = std::mem::replace(&mut state.published, new).places();
        state.published.insert(all);
        self.lead(&led, &state.published.places());
        state.socket.commit(batch)
    }

    /// Leads what is sent to relayed ports to these listeners from now on.
    pub(crate) fn lead_to(&self, listeners: Listeners) -> io::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut state = state.lock();
        if state.published.listeners == Some(listeners) {
            return Ok(());
        }
        let before = state.published.listeners.replace(listeners);
        let written = self.write_leads(&mut state, &listeners);
        if written.is_err() {
            state.published.listeners = before;
        }
        written
    }

    fn write_leads(&self, state: &mut State, listeners: &Listeners) -> io::Result<()> {
        let mut batch = self.batch();
        relay::write(&mut batch, listeners, self.ways.obey);
        match state.socket.commit(batch) {
            Ok(()) => Ok(()),
            // Somebody removed the table.
            Err(_) => self.rebuild(state),
        }
    }

    /// Whether the kernel can lead packets to a transparent socket.
    pub(crate) fn can_lead(&self) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        let name = format!("{}-try", self.table);
        let mut batch = Batch::new(Family::Inet, &name);
        batch.add_table();
        relay::lay_out(&mut batch);
        relay::write(&mut batch, &relay::SOME, false);
        batch.remove_table();
        state.lock().socket.commit(batch).is_ok()
    }
}
