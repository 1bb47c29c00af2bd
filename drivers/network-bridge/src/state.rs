//! The networks that are there, and which bridges are ours to remove.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use gantry_plugin_sdk::network::NetworkSpec;
use gantry_plugin_sdk::{DriverError, DriverResult, serde_json};
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// A network's bridge.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub(crate) link: String,
    pub(crate) index: u32,
    /// The bridge's own addresses with their prefix lengths.
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

const TEMPORARY: &str = ".new";

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
    root: PathBuf,
    notes: Mutex<HashMap<String, Note>>,
    bridges: Mutex<HashMap<String, Bridge>>,
}

impl State {
    pub(crate) fn open(root: PathBuf) -> DriverResult<Self> {
        let mut notes = HashMap::new();
        let entries = fs::read_dir(&root)
            .map_err(|e| DriverError::io(format_args!("reading {}", root.display()), &e))?;
        for entry in entries.flatten() {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if id.ends_with(TEMPORARY) {
                // Cut off by a crash; a file that cannot be removed now is overwritten later.
                let _ = fs::remove_file(entry.path());
                continue;
            }
            if let Ok(bytes) = fs::read(entry.path())
                && let Ok(note) = serde_json::from_slice(&bytes)
            {
                notes.insert(id, note);
            }
        }
        Ok(Self {
            root,
            notes: Mutex::new(notes),
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
        self.notes.lock().get(network).cloned()
    }

    /// The network that uses a bridge.
    pub(crate) fn owner(&self, link: &str) -> Option<String> {
        let notes = self.notes.lock();
        let owner = notes.iter().find(|(_, note)| note.link == link);
        owner.map(|(id, _)| id.clone())
    }

    /// Remembers a network's bridge beyond this process.
    pub(crate) fn note(&self, spec: &NetworkSpec, link: &str, ours: bool) -> DriverResult<()> {
        let network = spec.id.as_str();
        let note = Note {
            link: link.to_owned(),
            ours,
            spec: spec.clone(),
        };
        if self.notes.lock().get(network) == Some(&note) {
            return Ok(());
        }
        if network.contains(['/', '.']) {
            return Err(DriverError::invalid(format!(
                "invalid network ID {network:?}"
            )));
        }
        let path = self.root.join(network);
        let bytes = serde_json::to_vec(&note).map_err(|e| DriverError::internal(e.to_string()))?;
        let temporary = self.root.join(format!("{network}{TEMPORARY}"));
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| DriverError::io(format_args!("writing {}", path.display()), &e))?;
        self.notes.lock().insert(network.to_owned(), note);
        Ok(())
    }

    /// Forgets a network.
    pub(crate) fn forget(&self, network: &str) -> DriverResult<()> {
        self.bridges.lock().remove(network);
        if self.notes.lock().remove(network).is_none() {
            return Ok(());
        }
        let path = self.root.join(network);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DriverError::io(
                format_args!("removing {}", path.display()),
                &e,
            )),
            _ => Ok(()),
        }
    }

    /// Forgets every network but these.
    pub(crate) fn retain(&self, live: &[String]) -> Retained {
        let mut retained = Retained::default();
        let notes = self.notes.lock().clone();
        for (id, note) in notes {
            if live.contains(&id) {
                retained.live.push(note.link);
            } else if self.forget(&id).is_ok() && note.ours {
                retained.orphans.push(note.link);
            }
        }
        retained
    }
}
