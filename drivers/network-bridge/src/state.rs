//! The networks that are there, and which bridges are ours to remove.

use std::collections::HashMap;
use std::path::PathBuf;

use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::bridges;
use gantry_plugin_sdk::network::NetworkSpec;
use gantry_plugin_sdk::notes::Notes;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// A network's bridge.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// As it is on the host.
    pub(crate) host: bridges::Bridge,
    /// Where its members' ways out lead, with prefix lengths; not all of it need be the bridge's.
    pub(crate) gateways: Vec<IpNet>,
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) internal: bool,
    pub(crate) options: Options,
}

/// What is kept of a network's bridge in a file named by the network's ID. It is enough to serve the network in
/// another process, which is not told of it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) link: String,
    /// Whether this driver made it.
    pub(crate) ours: bool,
    pub(crate) spec: NetworkSpec,
}

/// The bridges known after the others were forgotten.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    /// Bridges of networks that live.
    pub(crate) live: Vec<String>,
    /// Bridges that this driver made for networks that do not.
    pub(crate) orphans: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct State {
    notes: Notes<Note>,
    bridges: Mutex<HashMap<String, Bridge>>,
}

impl State {
    pub(crate) fn open(root: PathBuf) -> DriverResult<Self> {
        Ok(Self {
            notes: Notes::open(root)?,
            bridges: Mutex::default(),
        })
    }

    pub(crate) fn get(&self, network: &str) -> Option<Bridge> {
        self.bridges.lock().get(network).cloned()
    }

    pub(crate) fn set(&self, network: &str, bridge: Bridge) {
        self.bridges.lock().insert(network.to_owned(), bridge);
    }

    pub(crate) fn noted(&self, network: &str) -> Option<Note> {
        self.notes.get(network)
    }

    /// The network that uses a bridge.
    pub(crate) fn owner(&self, link: &str) -> Option<String> {
        let owner = self.notes.find(|note| note.link == link);
        owner.map(|(id, _)| id)
    }

    /// Remembers a network's bridge beyond this process.
    pub(crate) fn note(&self, spec: &NetworkSpec, link: &str, ours: bool) -> DriverResult<()> {
        let note = Note {
            link: link.to_owned(),
            ours,
            spec: spec.clone(),
        };
        self.notes.put(&spec.id, note)
    }

    /// Forgets a network.
    pub(crate) fn forget(&self, network: &str) -> DriverResult<()> {
        self.bridges.lock().remove(network);
        self.notes.remove(network).map(drop)
    }

    /// Forgets every network but these.
    pub(crate) fn retain(&self, live: &[String]) -> Retained {
        let mut retained = Retained::default();
        for (id, note) in self.notes.all() {
            if live.contains(&id) {
                retained.live.push(note.link);
            } else if self.forget(&id).is_ok() && note.ours {
                retained.orphans.push(note.link);
            }
        }
        retained
    }
}
