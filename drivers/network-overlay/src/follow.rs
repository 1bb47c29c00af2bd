//! Keeps the mirror in step with the store: reads everything once, then follows the changes.
//!
//! A watch that has gone silent is not told from a store where nothing changes, so each is begun anew after a lease's
//! time, from where the last one ended: it costs one request and loses nothing.

use std::time::Duration;

use crate::cluster::Shared;
use crate::etcd::EtcdError;
use crate::mirror::Tables;
use crate::records::Keys;

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Everything that is in the store, and the revision that it was of.
pub(crate) async fn everything(cluster: &Shared) -> Result<(Tables, i64), EtcdError> {
    let reply = cluster.etcd.list(cluster.keys.root()).await?;
    let mut tables = Tables::default();
    for pair in &reply.kvs {
        if let Some(key) = key_of(&cluster.keys, pair.key.text()) {
            tables.apply(key, Some(&pair.value.0));
        }
    }
    Ok((tables, reply.header.revision))
}

fn key_of(keys: &Keys, name: Option<&str>) -> Option<crate::records::Key> {
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
    let (tables, mut revision) = everything(cluster).await?;
    cluster.mirror.reset(tables);
    if std::mem::take(silent) {
        cluster.log.info("the cluster's store answers again");
    }
    loop {
        let root = cluster.keys.root();
        let mut changes = cluster.etcd.watch(root, revision + 1).await?;
        cluster.mirror.heard();
        let end = tokio::time::Instant::now() + cluster.options.lease();
        loop {
            let Ok(reply) = tokio::time::timeout_at(end, changes.next()).await else {
                break;
            };
            let reply = reply?;
            let events = reply.events.iter().filter_map(|event| {
                let key = key_of(&cluster.keys, event.kv.key.text())?;
                let value = (!event.is_deletion()).then(|| event.kv.value.0.clone());
                Some((key, value))
            });
            cluster.mirror.apply(events);
            let last = reply.events.iter().map(|event| event.kv.mod_revision).max();
            revision = last.map_or(revision, |last| last.max(revision));
        }
    }
}
