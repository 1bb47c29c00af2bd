//! Keeps the mirror in step with the store: reads everything once, then follows the changes.
//!
//! A watch that has gone silent is not told from a store where nothing changes, so each is begun anew after a lease's
//! time, from where the last one ended: it costs one request and loses nothing.

use std::time::Duration;

use gantry_plugin_sdk::DriverResult;

use crate::cluster::Shared;
use crate::etcd::EtcdError;
use crate::lost;
use crate::mirror::Tables;
use crate::records::{Key, Keys, Layout};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// What is in the store.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) tables: Tables,
    pub(crate) layout: Layout,
    /// When the layout was changed last; 0 when there is none.
    pub(crate) layout_revision: i64,
    /// What it was read at.
    revision: i64,
}

/// Everything that is in the store, after what this host knows was put back if it was lost.
pub(crate) async fn everything(cluster: &Shared) -> Result<Content, EtcdError> {
    let content = read(cluster).await?;
    let past = &cluster.past;
    if !past.is_lost(&content.layout, content.layout_revision) {
        return Ok(content);
    }
    lost::put_back(cluster).await?;
    read(cluster).await
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
            Some(Key::Layout) => {
                content.layout = Layout::read(value);
                content.layout_revision = pair.mod_revision;
            }
            Some(key) => drop(content.tables.apply(key, value)),
            None => {}
        }
    }
    Ok(content)
}

fn key_of(keys: &Keys, name: Option<&str>) -> Option<Key> {
    keys.parse(name?)
}

/// Follows until the task is ended.
pub(crate) async fn follow(cluster: Shared) {
    let mut silent = false;
    loop {
        let result = once(&cluster, &mut silent).await;
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

async fn once(cluster: &Shared, silent: &mut bool) -> Result<(), EtcdError> {
    let content = everything(cluster).await?;
    let mut revision = content.revision;
    warn(cluster, cluster.past.note_all(&content));
    cluster.mirror.reset(content.tables);
    if std::mem::take(silent) {
        cluster.log.info("the cluster's store answers again");
    }
    let layout = cluster.keys.name(&Key::Layout);
    loop {
        // This renews a token that has ended, of which a watch would say that it is not permitted.
        let found = cluster.etcd.get(&layout).await?;
        let value = found.as_ref().map(|pair| pair.value.0.as_slice());
        let at = found.as_ref().map_or(0, |pair| pair.mod_revision);
        if cluster.past.is_lost(&Layout::read(value), at) {
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
            let changes = reply.events.into_iter().map(|event| {
                let key = key_of(&cluster.keys, event.kv.key.text());
                let value = (!event.is_deletion()).then_some(event.kv.value.0);
                (key, value, event.kv.mod_revision)
            });
            let changes: Vec<_> = changes.collect();
            let last = changes.iter().map(|change| change.2).max();
            let known = changes
                .into_iter()
                .filter_map(|(key, value, at)| Some((key?, value, at)));
            let known: Vec<_> = known.collect();
            if is_loss(cluster, &known) {
                return Ok(());
            }
            for (key, value, at) in &known {
                warn(cluster, cluster.past.note(key, value.as_deref(), *at));
            }
            let is_lost = |(key, value, _): &Change| matches!(key, Key::Live(_)) && value.is_none();
            let one_is_lost = known.iter().any(is_lost);
            let changes = known.into_iter().map(|(key, value, _)| (key, value));
            cluster.mirror.apply(changes);
            if one_is_lost {
                // Its absence counts from now.
                cluster.nudge.notify_one();
            }
            revision = last.map_or(revision, |last| last.max(revision));
        }
    }
}

/// What a key is now, and since which revision.
type Change = (Key, Option<Vec<u8>>, i64);

/// Whether changes show that the store has lost something: all is to be read anew then.
fn is_loss(cluster: &Shared, changes: &[Change]) -> bool {
    changes.iter().any(|(key, value, revision)| {
        let revision = if value.is_some() { *revision } else { 0 };
        *key == Key::Layout
            && cluster
                .past
                .is_lost(&Layout::read(value.as_deref()), revision)
    })
}

/// What cannot be noted is missed only if the store loses it.
fn warn(cluster: &Shared, noted: DriverResult<()>) {
    if let Err(error) = noted {
        cluster.log.warn(error.message);
    }
}
