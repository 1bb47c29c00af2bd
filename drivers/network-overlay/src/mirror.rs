//! The store's content, as this host knows it: kept in step by one task, read and waited for by everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_plugin_sdk::network::{Member, Members, SharedNetworks};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::de::DeserializeOwned;

use crate::records::{EndpointRecord, HostRecord, Key, NetworkRecord};
use crate::secure::KeyRecord;

/// The tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) networks: BTreeMap<String, NetworkRecord>,
    pub(crate) hosts: BTreeMap<String, HostRecord>,
    pub(crate) live: BTreeSet<String>,
    /// By who sends and who receives.
    pub(crate) keys: BTreeMap<(String, String), KeyRecord>,
    /// By network and ID.
    pub(crate) endpoints: BTreeMap<(String, String), EndpointRecord>,
    /// By network.
    pub(crate) addresses: BTreeMap<String, BTreeMap<IpAddr, String>>,
}

fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(value?).ok()
}

/// Puts what was read, or removes what is gone or unreadable.
fn set<K: Ord, V: PartialEq>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) if table.get(&key) == Some(&value) => false,
        Some(value) => {
            table.insert(key, value);
            true
        }
        None => table.remove(&key).is_some(),
    }
}

impl Tables {
    /// Makes one change of the store's; whether it made a difference.
    pub(crate) fn apply(&mut self, key: Key, value: Option<&[u8]>) -> bool {
        match key {
            Key::Layout => false,
            Key::Network(id) => set(&mut self.networks, id, read(value)),
            Key::Host(id) => set(&mut self.hosts, id, read(value)),
            Key::Live(id) => match value {
                Some(_) => self.live.insert(id),
                None => self.live.remove(&id),
            },
            Key::Secret(from, to) => set(&mut self.keys, (from, to), read(value)),
            Key::Endpoint(network, id) => set(&mut self.endpoints, (network, id), read(value)),
            Key::Address(network, ip) => {
                let owner = value.and_then(|v| String::from_utf8(v.to_vec()).ok());
                let table = self.addresses.entry(network.clone()).or_default();
                let changed = set(table, ip, owner);
                if table.is_empty() {
                    self.addresses.remove(&network);
                }
                changed
            }
        }
    }

    /// The endpoints of a network.
    pub(crate) fn endpoints_of<'a>(
        &'a self,
        network: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a EndpointRecord)> {
        let first = (network.to_owned(), String::new());
        let below = self.endpoints.range(first..);
        let below = below.take_while(move |((of, _), _)| of == network);
        below.map(|((_, id), endpoint)| (id, endpoint))
    }
}

#[derive(Debug)]
struct State {
    tables: Tables,
    /// When the store was last known to be heard; none before it was heard at all.
    heard: Option<Instant>,
    /// Of the networks, and of the endpoints on other hosts.
    networks: u64,
    members: u64,
    /// The networks whose endpoints changed since they were last asked for; none: any of them.
    touched: Option<BTreeSet<String>>,
    closed: bool,
}

/// The mirror. Waiting is for threads that may block.
#[derive(Debug)]
pub(crate) struct Mirror {
    host: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl Mirror {
    /// An empty one that was told nothing yet, of this host.
    pub(crate) fn new(host: &str) -> Self {
        // Another process counts on from elsewhere, so that what was asked of one is not taken for the other's.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let first = now.map_or(1, |now| now.as_nanos() as u64).max(1);
        Self {
            host: host.to_owned(),
            state: Mutex::new(State {
                tables: Tables::default(),
                heard: None,
                networks: first,
                members: first,
                touched: None,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Looks at the tables, once the store has told its content.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Tables) -> T) -> Option<T> {
        let state = self.state.lock();
        state.heard.is_some().then(|| look(&state.tables))
    }

    /// How long ago the store was last known to be heard.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.state.lock().heard.map(|heard| heard.elapsed())
    }

    /// Notes that the store is heard, and that nothing before now is missing.
    pub(crate) fn heard(&self) {
        let mut state = self.state.lock();
        if state.heard.replace(Instant::now()).is_none() {
            self.changed.notify_all();
        }
    }

    /// Puts everything anew.
    pub(crate) fn reset(&self, tables: Tables) {
        let mut state = self.state.lock();
        if state.tables.networks != tables.networks {
            state.networks += 1;
        }
        if state.tables.endpoints != tables.endpoints || state.tables.hosts != tables.hosts {
            state.members += 1;
        }
        state.tables = tables;
        state.touched = None;
        state.heard = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Makes changes of the store's.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = (Key, Option<Vec<u8>>)>) {
        let mut state = self.state.lock();
        for (key, value) in changes {
            let of = key.clone();
            if !state.tables.apply(key, value.as_deref()) {
                continue;
            }
            match of {
                Key::Network(_) => state.networks += 1,
                Key::Host(_) => {
                    state.members += 1;
                    state.touched = None;
                }
                Key::Endpoint(network, _) => {
                    state.members += 1;
                    if let Some(touched) = &mut state.touched {
                        touched.insert(network);
                    }
                }
                Key::Secret(_, to) if to == self.host => state.touched = None,
                Key::Layout | Key::Live(_) | Key::Secret(..) | Key::Address(..) => {}
            }
        }
        state.heard = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Has networks told again.
    pub(crate) fn touch(&self, networks: BTreeSet<String>) {
        if let Some(touched) = &mut self.state.lock().touched {
            touched.extend(networks);
        }
        self.changed.notify_all();
    }

    /// Lets nobody wait any longer.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for something until a point in time.
    fn wait(&self, until: Instant, ready: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while !ready(&state) && !state.closed {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state
    }

    /// The networks, once they are others than at a revision; none while the store was not heard yet.
    pub(crate) fn networks(&self, since: u64, until: Instant) -> Option<SharedNetworks> {
        let state = self.wait(until, |s| s.heard.is_some() && s.networks != since);
        state.heard?;
        let networks = state.tables.networks.values();
        Some(SharedNetworks {
            revision: state.networks,
            networks: networks.map(|record| record.network.clone()).collect(),
        })
    }

    /// The endpoints on other hosts, once they are others than at a revision; none while the store was not heard yet.
    pub(crate) fn members(&self, since: u64, until: Instant) -> Option<Members> {
        let state = self.wait(until, |s| s.heard.is_some() && s.members != since);
        state.heard?;
        let endpoints = state.tables.endpoints.iter();
        let elsewhere = endpoints.filter(|(_, endpoint)| endpoint.host != self.host);
        let members = elsewhere.map(|((network, id), endpoint)| {
            let host = state.tables.hosts.get(&endpoint.host);
            Member {
                network: network.clone(),
                endpoint: id.clone(),
                names: endpoint.names.clone(),
                addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
                host: host.map_or_else(String::new, |host| host.name.clone()),
                host_address: host.map(|host| host.address),
            }
        });
        Some(Members {
            revision: state.members,
            members: members.collect(),
        })
    }

    /// Waits until endpoints have changed, and calls `each` with those of their networks that are in `ours` (or with all
    /// of those). False when the mirror was closed.
    pub(crate) fn next_touched(&self) -> Option<Touched> {
        let forever = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
        let mut state = self.wait(forever, |s| {
            s.heard.is_some() && s.touched.as_ref().is_none_or(|t| !t.is_empty())
        });
        if state.closed {
            return None;
        }
        Some(match state.touched.replace(BTreeSet::new()) {
            Some(networks) => Touched::These(networks),
            None => Touched::Any,
        })
    }
}

/// Networks whose endpoints changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    Any,
    These(BTreeSet<String>),
}

impl Touched {
    pub(crate) fn is(&self, network: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(networks) => networks.contains(network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str) -> Option<Vec<u8>> {
        let record = serde_json::json!({"host": host, "addresses": ["10.64.0.2/24"], "mac": "02:42:0a:40:00:02"});
        Some(record.to_string().into_bytes())
    }

    #[test]
    fn waiters_are_told_of_what_concerns_them() {
        let mirror = Mirror::new("me");
        let now = Instant::now();
        assert_eq!(mirror.networks(0, now), None, "nothing was heard yet");
        mirror.reset(Tables::default());
        assert_eq!(mirror.next_touched(), Some(Touched::Any));
        let networks = mirror.networks(0, now).unwrap();
        assert!(networks.networks.is_empty() && networks.revision != 0);
        let before = mirror.members(0, now).unwrap();
        let host = serde_json::json!({"name": "other", "address": "10.0.0.2"}).to_string();
        mirror.apply([
            (Key::endpoint("n", "a"), endpoint("other")),
            (Key::endpoint("m", "b"), endpoint("me")),
        ]);
        let touched = mirror.next_touched().unwrap();
        assert!(touched.is("n") && touched.is("m") && !touched.is("o"));
        mirror.apply([(Key::Host("other".into()), Some(host.into_bytes()))]);
        assert_eq!(
            mirror.next_touched(),
            Some(Touched::Any),
            "its endpoints may be on any"
        );
        let after = mirror.members(before.revision, now).unwrap();
        assert_ne!(after.revision, before.revision);
        assert_eq!(after.members.len(), 1);
        assert_eq!(after.members[0].endpoint, "a");
        assert_eq!(after.members[0].host, "other");
        assert_eq!(
            mirror.members(after.revision, now),
            Some(after),
            "time is up"
        );
        assert_eq!(mirror.networks(networks.revision, now), Some(networks));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| mirror.next_touched());
            mirror.apply([(Key::endpoint("n", "a"), None)]);
            assert!(waiter.join().unwrap().unwrap().is("n"));
            let waiter = scope.spawn(|| mirror.next_touched());
            mirror.close();
            assert_eq!(waiter.join().unwrap(), None);
        });
    }

    #[test]
    fn tables_drop_what_they_cannot_read() {
        let mut tables = Tables::default();
        let key = || Key::endpoint("n", "a");
        assert!(tables.apply(key(), endpoint("h").as_deref()));
        assert!(
            !tables.apply(key(), endpoint("h").as_deref()),
            "it is the same"
        );
        assert_eq!(tables.endpoints_of("n").count(), 1);
        assert_eq!(tables.endpoints_of("").count(), 0);
        assert!(tables.apply(key(), Some(b"{")));
        assert_eq!(tables, Tables::default());
        let ip = Key::Address("n".into(), "10.64.0.2".parse().unwrap());
        assert!(tables.apply(ip.clone(), Some(b"a")) && tables.apply(ip, None));
        assert_eq!(tables, Tables::default());
    }
}
