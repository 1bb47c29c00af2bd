//! What hosts tell each other: keys in the store, and the JSON behind them.
//!
//! ```text
//! <prefix>/overlay/layout                     what is handed out in order
//! <prefix>/overlay/networks/<network>         a network
//! <prefix>/overlay/hosts/<host>               a host that has or had endpoints
//! <prefix>/overlay/live/<host>                goes with the host's lease
//! <prefix>/overlay/keys/<from>/<to>           what a host sends to another one by, where networks are encrypted
//! <prefix>/overlay/endpoints/<network>/<id>   an endpoint, with its host
//! <prefix>/overlay/addresses/<network>/<ip>   the endpoint that has the address
//! ```

use std::net::IpAddr;

use gantry_plugin_sdk::network::SharedNetwork;
use gantry_plugin_sdk::{DriverError, DriverResult};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How many removed networks, and changes, are remembered: for hosts that were away when the store lost what it had.
const REMEMBERED: usize = 32;
/// Digits of a change's name.
const DIGITS: usize = 8;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) vni: u32,
    pub(crate) network: SharedNetwork,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostRecord {
    /// Its name for itself.
    pub(crate) name: String,
    /// Where frames for its endpoints are sent.
    pub(crate) address: IpAddr,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) host: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

/// What is handed out in order, so that it is not used again soon. Every change of the set of networks changes it, which
/// makes those changes one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    #[serde(default)]
    pub(crate) last_vni: u32,
    /// Drawn with the first change, and when what the store had lost was put back.
    #[serde(default)]
    pub(crate) store: String,
    /// The networks that were removed last.
    #[serde(default)]
    pub(crate) removed: Vec<String>,
    /// How many changes made it what it is.
    #[serde(default)]
    pub(crate) changes: u64,
    /// The names of the last ones of them, drawn for each, the newest at the end. Revisions of a store that was restored
    /// from a backup say nothing of what it was before.
    #[serde(default)]
    pub(crate) trail: Vec<String>,
}

impl Layout {
    /// As it is written; what cannot be read is as good as none.
    pub(crate) fn read(value: Option<&[u8]>) -> Self {
        let read = value.and_then(|value| serde_json::from_slice(value).ok());
        read.unwrap_or_default()
    }

    /// As it is written with the next change.
    pub(crate) fn changed(mut self) -> DriverResult<Self> {
        if self.store.is_empty() {
            self.store = draw_name()?;
        }
        self.changes += 1;
        self.trail.push(draw_name()?.split_off(32 - DIGITS));
        keep_last(&mut self.trail);
        Ok(self)
    }

    /// The name of the last change.
    pub(crate) fn last_change(&self) -> &str {
        self.trail.last().map_or("", String::as_str)
    }

    /// Whether it may have come of what it was after so many changes, the last of which had this name. False when it is
    /// older, or has another past; of changes that were long ago nothing is known.
    pub(crate) fn may_come_of(&self, changes: u64, last: &str) -> bool {
        let Some(since) = self.changes.checked_sub(changes) else {
            return false;
        };
        let mut trail = self.trail.iter().rev();
        let then = usize::try_from(since).ok().and_then(|n| trail.nth(n));
        then.is_none_or(|name| name == last)
    }

    /// Notes that a network was removed.
    pub(crate) fn without(mut self, network: &str) -> Self {
        self.removed.push(network.to_owned());
        keep_last(&mut self.removed);
        self
    }

    /// Notes networks that were removed before those that it knows of.
    pub(crate) fn also_without(mut self, earlier: &[String]) -> Self {
        let earlier = earlier.iter().filter(|id| !self.removed.contains(id));
        let earlier: Vec<String> = earlier.cloned().collect();
        self.removed.splice(..0, earlier);
        keep_last(&mut self.removed);
        self
    }
}

fn keep_last(list: &mut Vec<String>) {
    let surplus = list.len().saturating_sub(REMEMBERED);
    list.drain(..surplus);
}

/// 32 hexadecimal digits that nobody else draws.
pub(crate) fn draw_name() -> DriverResult<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| DriverError::internal(format!("drawing a name: {e}")))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// A record as it is written.
pub(crate) fn encode(record: &impl Serialize) -> DriverResult<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| DriverError::internal(format!("encoding a record: {e}")))
}

/// Refuses an identifier that cannot be a part of a key.
pub(crate) fn check_id(id: &str) -> DriverResult<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match !id.is_empty() && id.len() <= 64 && id.bytes().all(fits) {
        true => Ok(()),
        false => Err(DriverError::invalid(format!("invalid ID {id:?}"))),
    }
}

/// What a key below the root is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Layout,
    Network(String),
    Host(String),
    Live(String),
    /// Of the first host, for the second.
    Secret(String, String),
    Endpoint(String, String),
    Address(String, IpAddr),
}

impl Key {
    pub(crate) fn endpoint(network: &str, id: &str) -> Self {
        Self::Endpoint(network.to_owned(), id.to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let (table, rest) = text.split_once('/').unwrap_or((text, ""));
        let pair = || {
            let (network, id) = rest.split_once('/')?;
            let whole = !network.is_empty() && !id.is_empty() && !id.contains('/');
            whole.then(|| (network.to_owned(), id.to_owned()))
        };
        let one = || (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned());
        Some(match table {
            "layout" if rest.is_empty() => Self::Layout,
            "networks" => Self::Network(one()?),
            "hosts" => Self::Host(one()?),
            "live" => Self::Live(one()?),
            "keys" => {
                let (from, to) = pair()?;
                Self::Secret(from, to)
            }
            "endpoints" => {
                let (network, id) = pair()?;
                Self::Endpoint(network, id)
            }
            "addresses" => {
                let (network, ip) = pair()?;
                Self::Address(network, ip.parse().ok()?)
            }
            _ => return None,
        })
    }
}

/// Where the keys are.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            root: format!("{prefix}/overlay/"),
        }
    }

    /// What all keys begin with.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// What the keys of networks begin with.
    pub(crate) fn networks(&self) -> String {
        format!("{}networks/", self.root)
    }

    /// What the keys of a host's secrets begin with.
    pub(crate) fn secrets(&self, host: &str) -> String {
        format!("{}keys/{host}/", self.root)
    }

    /// What the keys of a network's endpoints begin with.
    pub(crate) fn endpoints(&self, network: &str) -> String {
        format!("{}endpoints/{network}/", self.root)
    }

    /// What the keys of a network's addresses begin with.
    pub(crate) fn addresses(&self, network: &str) -> String {
        format!("{}addresses/{network}/", self.root)
    }

    pub(crate) fn name(&self, key: &Key) -> String {
        let root = &self.root;
        match key {
            Key::Layout => format!("{root}layout"),
            Key::Network(id) => format!("{root}networks/{id}"),
            Key::Host(id) => format!("{root}hosts/{id}"),
            Key::Live(id) => format!("{root}live/{id}"),
            Key::Secret(from, to) => format!("{}{to}", self.secrets(from)),
            Key::Endpoint(network, id) => format!("{}{id}", self.endpoints(network)),
            Key::Address(network, ip) => format!("{}{ip}", self.addresses(network)),
        }
    }

    /// What a key is of; none for keys that this version does not know.
    pub(crate) fn parse(&self, name: &str) -> Option<Key> {
        Key::parse(name.strip_prefix(&self.root)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parts_of_keys() {
        assert!(check_id(&"0f".repeat(32)).is_ok());
        for bad in ["", "a/b", "..", &"0".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_layout_knows_what_it_may_come_of() {
        let mut all = vec![Layout::default()];
        for n in 0..REMEMBERED + 8 {
            let next = all[n].clone().changed().unwrap();
            assert!(n == 0 || next.store == all[n].store);
            all.push(next);
        }
        let comes_of = |later: &Layout, earlier: &Layout| {
            later.may_come_of(earlier.changes, earlier.last_change())
        };
        let last = all.last().unwrap();
        for earlier in &all {
            assert!(comes_of(last, earlier), "{earlier:?}");
        }
        assert!(!comes_of(&all[3], &all[4]));
        let other = all[3].clone().changed().unwrap();
        assert!(comes_of(&other, &all[3]) && !comes_of(&other, &all[4]));
        let longer = other.clone().changed().unwrap();
        assert!(!comes_of(&longer, &all[4]) && !comes_of(&longer, &all[5]));
        assert!(!comes_of(&Layout::default(), &all[1]));
        assert_eq!(last.trail.len(), REMEMBERED);
        assert_eq!(Layout::read(Some(&encode(last).unwrap())), *last);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let keys = Keys::new("/gantry");
        let all = [
            Key::Layout,
            Key::Network("n".into()),
            Key::Host("h".into()),
            Key::Live("h".into()),
            Key::Secret("h".into(), "i".into()),
            Key::endpoint("n", "e"),
            Key::Address("n".into(), "10.64.0.2".parse().unwrap()),
            Key::Address("n".into(), "fd00::2".parse().unwrap()),
        ];
        for key in all {
            let name = keys.name(&key);
            assert!(name.starts_with(keys.root()), "{name}");
            assert_eq!(keys.parse(&name), Some(key), "{name}");
        }
        for unknown in [
            "/gantry/overlay/networks/",
            "/gantry/overlay/endpoints/n",
            "/gantry/overlay/x/y",
            "/g/overlay/layout",
            "/gantry/overlay/addresses/n/here",
            "/gantry/overlay/endpoints/n/e/f",
        ] {
            assert_eq!(keys.parse(unknown), None, "{unknown}");
        }
    }
}
