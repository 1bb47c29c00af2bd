//! Keeps the mirror in step with the store: reads everything once, then follows the changes.
//!
//! A watch that has gone silent is not told from a store where nothing changes, so each is begun anew after a lease's
//! time, from where the last one ended: it costs one request and loses nothing.

use std::time::Duration;

use gantry_plugin_sdk::DriverResult;

use crate::cluster::Shared;
use crate::etcd::EtcdError;
use crate::etcd::wire::WatchReply;
use crate::lost;
use crate::mark::{Mark, Store};
use crate::mirror::Tables;
use crate::records::{Key, Keys, Layout};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// What is in the store.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) tables: Tables,
    pub(crate) layout: Layout,
    /// Networks are there again that were removed, of which the tables do not tell.
    pub(crate) undead: bool,
    /// What it was read at.
    revision: i64,
    newest: Option<Mark>,
}

/// Everything that is in the store, after what this host knows was put back if it was lost.
pub(crate) async fn everything(cluster: &Shared) -> Result<Content, EtcdError> {
    let content = read(cluster).await?;
    if !cluster.past.is_lost(&content.layout) {
        return Ok(content);
    }
    lost::put_back(cluster).await?;
    read(cluster).await
}

/// The same; a store that has not made the last change that this host was told of has lost something as well.
async fn anew(cluster: &Shared, mark: Option<&Mark>) -> Result<Content, EtcdError> {
    if let Some(mark) = mark
        && mark.find(cluster).await? == Store::Other
    {
        lost::put_back_unseen(cluster, &mark.store).await?;
    }
    everything(cluster).await
}

/// Everything that is in the store as it is.
pub(crate) async fn read(cluster: &Shared) -> Result<Content, EtcdError> {
    let reply = cluster.etcd.list(cluster.keys.root()).await?;
    let mut content = Content {
        revision: reply.header.revision,
        ..Content::default()
    };
    for pair in &reply.kvs {
        let value = Some(pair.value.0.as_slice());
        match key_of(&cluster.keys, pair.key.text()) {
            Some(Key::Layout) => content.layout = Layout::read(value),
            Some(key) => drop(content.tables.apply(key, value)),
            None => {}
        }
    }
    let (networks, removed) = (&mut content.tables.networks, &content.layout.removed);
    let all = networks.len();
    networks.retain(|id, _| !removed.contains(id));
    content.undead = networks.len() < all;
    content.newest = Mark::newest(&reply.header, &reply.kvs, &content.layout.store);
    Ok(content)
}

fn key_of(keys: &Keys, name: Option<&str>) -> Option<Key> {
    keys.parse(name?)
}

/// Follows until the task is ended.
pub(crate) async fn follow(cluster: Shared) {
    let mut silent = false;
    let mut mark = None;
    loop {
        let result = once(&cluster, &mut mark, &mut silent).await;
        match result {
            Err(EtcdError::Compacted) | Ok(()) => continue,
            Err(error) if !silent => {
                silent = true;
                cluster.log.warn(error.to_string());
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(
    cluster: &Shared,
    mark: &mut Option<Mark>,
    silent: &mut bool,
) -> Result<(), EtcdError> {
    let content = anew(cluster, mark.as_ref()).await?;
    let mut revision = content.revision;
    warn(cluster, cluster.past.note_all(&content));
    mark.clone_from(&content.newest);
    cluster.mirror.reset(content.tables);
    if std::mem::take(silent) {
        cluster.log.info("the cluster's store answers again");
    }
    loop {
        if !is_as_before(cluster, mark.as_ref()).await? {
            return Ok(());
        }
        let root = cluster.keys.root();
        let mut changes = cluster.etcd.watch(root, revision + 1).await?;
        if changes.revision < revision {
            // It was set back, or a member is late: what it has is read anew.
            return Ok(());
        }
        cluster.mirror.heard();
        let end = tokio::time::Instant::now() + cluster.options.lease();
        loop {
            let Ok(reply) = tokio::time::timeout_at(end, changes.next()).await else {
                break;
            };
            let reply = reply?;
            let last = reply.events.iter().map(|event| event.kv.mod_revision).max();
            if !take(cluster, mark, reply) {
                return Ok(());
            }
            revision = last.map_or(revision, |last| last.max(revision));
        }
    }
}

/// Makes the changes that the store tells of. False when they show that it has lost something: all is to be read anew
/// then.
fn take(cluster: &Shared, mark: &mut Option<Mark>, reply: WatchReply) -> bool {
    let store = mark.as_ref().map_or("", |mark| &mark.store);
    if let Some(last) = Mark::last(&reply.header, &reply.events, store) {
        *mark = Some(last);
    }
    let changes = reply.events.into_iter().filter_map(|event| {
        let key = key_of(&cluster.keys, event.kv.key.text())?;
        let value = (!event.is_deletion()).then_some(event.kv.value.0);
        Some((key, value))
    });
    let changes: Vec<(Key, Option<Vec<u8>>)> = changes.collect();
    let is_loss = |layout: Option<&[u8]>| cluster.past.is_lost(&Layout::read(layout));
    let mut layouts = changes.iter().filter(|(key, _)| *key == Key::Layout);
    if layouts.any(|(_, value)| is_loss(value.as_deref())) {
        return false;
    }
    for (key, value) in &changes {
        warn(cluster, cluster.past.note(key, value.as_deref()));
    }
    let mut gone = changes.iter().filter(|(_, value)| value.is_none());
    let one_is_lost = gone.any(|(key, _)| matches!(key, Key::Live(_)));
    cluster.mirror.apply(changes);
    if one_is_lost {
        // Its absence counts from now.
        cluster.nudge.notify_one();
    }
    true
}

/// Whether the store is, for all that can be known, the one that was followed until now.
async fn is_as_before(cluster: &Shared, mark: Option<&Mark>) -> Result<bool, EtcdError> {
    // This renews a token that has ended, of which a watch would say that it is not permitted.
    let layout = cluster.etcd.get(&cluster.keys.name(&Key::Layout)).await?;
    let value = layout.as_ref().map(|pair| pair.value.0.as_slice());
    if cluster.past.is_lost(&Layout::read(value)) {
        return Ok(false);
    }
    match mark {
        Some(mark) => Ok(mark.find(cluster).await? == Store::Same),
        None => Ok(true),
    }
}

/// What cannot be noted is missed only if the store loses it.
fn warn(cluster: &Shared, noted: DriverResult<()>) {
    if let Err(error) = noted {
        cluster.log.warn(error.message);
    }
}
