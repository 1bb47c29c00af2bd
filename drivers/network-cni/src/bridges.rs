//! Bridges that plugins make, and leave behind when their last port is gone.

use std::io;

use gantry_plugin_sdk::sys::netlink::{Change, LinkFacts, RouteSocket};
use gantry_plugin_sdk::{DriverError, DriverResult};

use crate::outcome::Outcome;
use crate::{CniNetwork, Made};

pub(crate) fn links_of_host() -> io::Result<Vec<LinkFacts>> {
    RouteSocket::open()?.links()
}

impl CniNetwork {
    /// Takes note of bridges that were not there before.
    pub(crate) fn note_bridges(
        &self,
        network: &str,
        outcome: &Outcome,
        before: &[LinkFacts],
    ) -> DriverResult<()> {
        let failed = |e| DriverError::io("listing links", &e);
        for link in outcome.on_host() {
            let is_noted = |made: &Made| made.bridges.iter().any(|bridge| bridge == link);
            let ours = self.networks.find(is_noted).is_some();
            let is_bridge = |now: &LinkFacts| now.name == link && now.kind == "bridge";
            let foreign = !ours && before.iter().any(|known| known.name == link);
            if foreign || !links_of_host().map_err(failed)?.iter().any(is_bridge) {
                continue;
            }
            let mut made = self.network(network)?;
            if !is_noted(&made) {
                made.bridges.push(link.to_owned());
                self.networks.put(network, made)?;
            }
        }
        Ok(())
    }

    /// Removes the bridges of a network that is gone, unless others use them.
    pub(crate) fn remove_bridges(&self, gone: &Made) -> io::Result<()> {
        for name in &gone.bridges {
            let shared = self.networks.find(|other| other.bridges.contains(name));
            let links = links_of_host()?;
            let bridge = links.iter().find(|l| l.name == *name && l.kind == "bridge");
            let Some(bridge) = bridge.filter(|_| shared.is_none()) else {
                continue;
            };
            if !links.iter().any(|link| link.master == bridge.index) {
                RouteSocket::open()?.apply(vec![Change::delete(bridge.index)])?;
            }
        }
        Ok(())
    }
}
