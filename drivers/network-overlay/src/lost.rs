//! A store that lost what it had, emptied or set back to an earlier state, is given it again by the hosts that know it.
//!
//! Each host notes the networks it was told of, and of the layout the drawn name and its last change. A layout that is
//! gone, older than that, of another name, or of another past is not the one that was noted: some of what it told may be
//! missing. So it is when the store has not made the last change at all that a host was told of (`mark`). Then every host
//! puts there what it knows and the store does not, and the layout gets a new name if it has none that is new, so that
//! hosts that come later see it too. Networks removed since are named in the layout and stay removed. What is there keeps
//! its place: of two hosts that put the same, one does.

use std::path::Path;

use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::notes::Notes;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::beat;
use crate::cluster::Shared;
use crate::etcd::EtcdError;
use crate::etcd::wire::Txn;
use crate::follow::{Content, read};
use crate::mirror::Tables;
use crate::pools::overlap;
use crate::records::{Key, Layout, NetworkRecord, draw_name, encode};
use crate::share;

/// Operations of one transaction: etcd takes 128.
const BATCH: usize = 100;
const SEEN: &str = "layout";

/// What this host last saw of the layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    prefix: String,
    store: String,
    #[serde(default)]
    changes: u64,
    #[serde(default)]
    last_change: String,
    /// The networks that were removed last.
    #[serde(default)]
    removed: Vec<String>,
}

/// What this host knows of the store when it is not told.
#[derive(Debug)]
pub(crate) struct Past {
    prefix: String,
    networks: Notes<NetworkRecord>,
    seen: Notes<Seen>,
    restoring: tokio::sync::Mutex<()>,
}

impl Past {
    /// Reads what was noted. Of another prefix, that is another cluster, nothing is kept.
    pub(crate) fn open(root: &Path, prefix: &str) -> DriverResult<Self> {
        let past = Self {
            prefix: prefix.to_owned(),
            networks: Notes::open(root.join("known"))?,
            seen: Notes::open(root.join("seen"))?,
            restoring: tokio::sync::Mutex::default(),
        };
        if past
            .seen
            .get(SEEN)
            .is_some_and(|seen| seen.prefix != prefix)
        {
            for (id, _) in past.networks.all() {
                past.networks.remove(&id)?;
            }
            past.seen.remove(SEEN)?;
        }
        Ok(past)
    }

    fn seen(&self) -> Seen {
        self.seen.get(SEEN).unwrap_or_default()
    }

    /// Whether the store may lack what this host was told.
    pub(crate) fn is_lost(&self, layout: &Layout) -> bool {
        let Some(seen) = self.seen.get(SEEN) else {
            // A power cut may have taken that note alone.
            return !self.networks.all().is_empty();
        };
        let another =
            !seen.store.is_empty() && !layout.store.is_empty() && seen.store != layout.store;
        another || !layout.may_come_of(seen.changes, &seen.last_change)
    }

    /// Notes a change of the store's.
    pub(crate) fn note(&self, key: &Key, value: Option<&[u8]>) -> DriverResult<()> {
        match key {
            Key::Network(id) => match value.and_then(|v| serde_json::from_slice(v).ok()) {
                Some(record) => self.networks.put(id, record),
                None => self.networks.remove(id).map(drop),
            },
            Key::Layout => self.note_layout(&Layout::read(value)),
            _ => Ok(()),
        }
    }

    fn note_layout(&self, layout: &Layout) -> DriverResult<()> {
        let seen = Seen {
            prefix: self.prefix.clone(),
            store: layout.store.clone(),
            changes: layout.changes,
            last_change: layout.last_change().to_owned(),
            removed: layout.removed.clone(),
        };
        self.seen.put(SEEN, seen)
    }

    /// Notes everything anew.
    pub(crate) fn note_all(&self, content: &Content) -> DriverResult<()> {
        let networks = &content.tables.networks;
        // What cannot be noted keeps nothing else from it.
        let mut outcome = Ok(());
        for (id, record) in networks {
            outcome = outcome.and(self.networks.put(id, record.clone()));
        }
        for (id, _) in self.networks.all() {
            if !networks.contains_key(&id) {
                outcome = outcome.and(self.networks.remove(&id).map(drop));
            }
        }
        outcome.and(self.note_layout(&content.layout))
    }
}

/// Puts back what this host knows and the store has lost, unless that has been done.
pub(crate) async fn put_back(cluster: &Shared) -> Result<(), EtcdError> {
    let _turn = cluster.past.restoring.lock().await;
    let content = read(cluster).await?;
    match cluster.past.is_lost(&content.layout) {
        true => restore(cluster, &content, &cluster.past.seen().store).await,
        false => Ok(()),
    }
}

/// The same for a store whose layout need not tell of the loss. It does by its name, which is another one then than
/// before.
pub(crate) async fn put_back_unseen(cluster: &Shared, before: &str) -> Result<(), EtcdError> {
    let _turn = cluster.past.restoring.lock().await;
    let content = read(cluster).await?;
    restore(cluster, &content, before).await
}

async fn restore(cluster: &Shared, content: &Content, before: &str) -> Result<(), EtcdError> {
    let text = "the cluster's store has lost what it had: what this host knows and is missing is put there again";
    cluster.log.warn(text);
    networks(cluster, before).await?;
    let known = cluster.mirror.look(Tables::clone).unwrap_or_default();
    members(cluster, &known, &content.tables).await?;
    let content = read(cluster).await?;
    Ok(cluster.past.note_all(&content)?)
}

async fn networks(cluster: &Shared, before: &str) -> Result<(), EtcdError> {
    let (seen, mut noted) = (cluster.past.seen(), cluster.past.networks.all());
    // Where two cannot both be, it is the same one everywhere.
    noted.sort_by(|(a, x), (b, y)| (&x.network.created, a).cmp(&(&y.network.created, b)));
    let name = cluster.keys.name(&Key::Layout);
    loop {
        let known = share::now(cluster).await?;
        let mut layout = known.layout.clone().also_without(&seen.removed);
        let (missing, refused) = missing(&known.networks, &layout.removed, &noted);
        let undead = undead(cluster, &known.networks, &seen.removed).await?;
        let is_named = !layout.store.is_empty() && layout.store != before;
        let is_same = layout == known.layout && undead.is_empty();
        if missing.is_empty() && is_named && is_same {
            refused.iter().for_each(|why| cluster.log.error(why));
            return Ok(());
        }
        if !is_named {
            layout.store = draw_name()?;
        }
        let mut txn = Txn::default().if_unchanged(&name, known.revision);
        for id in undead.iter().take(BATCH / 4) {
            txn = share::end(cluster, txn, id);
        }
        for record in missing.iter().take(BATCH / 4) {
            layout.last_vni = layout.last_vni.max(record.vni);
            let id = record.network.id.clone();
            txn = txn.put(&cluster.keys.name(&Key::Network(id)), encode(record)?);
        }
        let txn = txn.put(&name, encode(&layout.changed()?)?);
        cluster.etcd.txn(&txn).await?;
    }
}

/// Removes networks that are there again though they were removed, as soon as nobody is on them.
pub(crate) async fn bury(cluster: &Shared) -> Result<(), EtcdError> {
    let known = share::now(cluster).await?;
    for id in undead(cluster, &known.networks, &known.layout.removed).await? {
        let txn = share::end(cluster, Txn::default(), &id);
        cluster.etcd.txn(&txn).await?;
    }
    Ok(())
}

/// The networks that are to be put back, and why others are not.
fn missing<'a>(
    known: &'a [NetworkRecord],
    removed: &[String],
    noted: &'a [(String, NetworkRecord)],
) -> (Vec<&'a NetworkRecord>, Vec<String>) {
    let mut there: Vec<&NetworkRecord> = known.iter().collect();
    let (mut missing, mut refused) = (Vec::new(), Vec::new());
    for (id, record) in noted {
        let is_there = there.iter().any(|n| n.network.id == *id);
        if is_there || removed.contains(id) {
            continue;
        }
        match there.iter().find(|other| clash(record, other)) {
            Some(other) => refused.push(format!(
                "network {} ({id}) is not put back: network {} ({}) has its name, subnet or VXLAN ID by now",
                record.network.name, other.network.name, other.network.id
            )),
            None => {
                there.push(record);
                missing.push(record);
            }
        }
    }
    (missing, refused)
}

/// The networks that are there again though they were removed, and that nobody is on.
async fn undead(
    cluster: &Shared,
    known: &[NetworkRecord],
    removed: &[String],
) -> Result<Vec<String>, EtcdError> {
    let mut undead = Vec::new();
    let again = known.iter().map(|record| &record.network.id);
    for id in again.filter(|id| removed.contains(id)) {
        let endpoints = cluster.etcd.list(&cluster.keys.endpoints(id)).await?;
        if endpoints.kvs.is_empty() {
            undead.push(id.clone());
        }
    }
    Ok(undead)
}

fn clash(a: &NetworkRecord, b: &NetworkRecord) -> bool {
    let subnets = |record: &NetworkRecord| -> Vec<IpNet> {
        let pools = record.network.pools.iter();
        pools.filter_map(|pool| pool.subnet).collect()
    };
    let theirs = subnets(b);
    let overlaps = |net: &IpNet| theirs.iter().any(|other| overlap(net, other));
    a.vni == b.vni || a.network.name == b.network.name || subnets(a).iter().any(overlaps)
}

/// Puts back hosts, keys and endpoints, those of other hosts as well: their addresses stay taken, and their names known, until
/// they see for themselves.
async fn members(cluster: &Shared, known: &Tables, there: &Tables) -> Result<(), EtcdError> {
    let keys = &cluster.keys;
    let mut alone = Vec::new();
    for (host, record) in &known.hosts {
        if !there.hosts.contains_key(host) {
            alone.push((keys.name(&Key::Host(host.clone())), encode(record)?));
        }
    }
    for ((from, to), record) in &known.keys {
        if !there.keys.contains_key(&(from.clone(), to.clone())) {
            let key = Key::Secret(from.clone(), to.clone());
            alone.push((keys.name(&key), encode(record)?));
        }
    }
    for (name, value) in alone {
        let txn = Txn::default().if_absent(&name).put(&name, value);
        cluster.etcd.txn(&txn).await?;
    }
    for (key, record) in &known.endpoints {
        if !there.endpoints.contains_key(key) {
            let txn = beat::take(cluster, &key.0, &key.1, record)?;
            cluster.etcd.txn(&txn).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::network_of;

    fn record(id: &str, name: &str, vni: u32, subnet: &str) -> NetworkRecord {
        let mut network = network_of(id);
        network.name = name.into();
        network.pools = vec![gantry_plugin_sdk::network::SharedPool {
            subnet: Some(subnet.parse().unwrap()),
            ..Default::default()
        }];
        NetworkRecord { vni, network }
    }

    #[test]
    fn a_store_is_lost_when_it_is_older_or_another() {
        let root = tempfile::tempdir().unwrap();
        let past = Past::open(root.path(), "/a").unwrap();
        let mut made = vec![Layout::default()];
        for n in 0..3 {
            made.push(made[n].clone().changed().unwrap());
        }
        assert!(!past.is_lost(&made[0]), "nothing was there");
        assert!(!past.is_lost(&made[2]));
        past.note_layout(&made[2]).unwrap();
        let record = record("n", "n", 1, "10.64.0.0/24");
        let value = encode(&record).unwrap();
        past.note(&Key::Network("n".into()), Some(&value)).unwrap();
        let other = made[1].clone().changed().unwrap();
        let longer = other.clone().changed().unwrap();
        let renamed = Layout {
            store: "y".into(),
            ..made[3].clone()
        };
        for (layout, lost) in [
            (&made[2], false),
            (&made[3], false),
            (&made[1], true),
            (&made[0], true),
            (&other, true),
            (&longer, true),
            (&renamed, true),
        ] {
            assert_eq!(past.is_lost(layout), lost, "{layout:?}");
        }
        let again = Past::open(root.path(), "/a").unwrap();
        assert!(again.is_lost(&made[1]));
        std::fs::write(root.path().join("seen").join(SEEN), "").unwrap();
        let torn = Past::open(root.path(), "/a").unwrap();
        assert!(torn.is_lost(&made[3]), "it cannot be known");
        again.note_layout(&renamed).unwrap();
        assert_eq!(again.networks.get("n"), Some(record));
        let other = Past::open(root.path(), "/b").unwrap();
        assert!(!other.is_lost(&made[1]) && other.networks.all().is_empty());
    }

    #[test]
    fn what_is_there_keeps_its_place() {
        let noted = [
            record("a", "one", 1, "10.64.0.0/24"),
            record("b", "two", 2, "10.64.1.0/24"),
            record("c", "three", 3, "10.64.2.0/24"),
            record("d", "four", 4, "10.64.0.0/16"),
            record("e", "five", 5, "10.65.5.0/24"),
            record("f", "six", 6, "10.65.6.0/24"),
        ];
        let noted = noted.map(|record| (record.network.id.clone(), record));
        let known = [
            record("b", "two", 2, "10.64.1.0/24"),
            record("x", "new", 3, "10.70.0.0/24"),
            record("y", "five", 9, "10.71.0.0/24"),
        ];
        let (missing, refused) = missing(&known, &["f".into()], &noted);
        let names: Vec<_> = missing.iter().map(|n| n.network.name.as_str()).collect();
        assert_eq!(names, ["one"]);
        assert_eq!(refused.len(), 3, "{refused:?}");
    }
}
