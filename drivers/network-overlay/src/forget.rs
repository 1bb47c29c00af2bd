//! Removes what hosts had that are away for long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::beat;
use crate::cluster::{Cluster, Shared};
use crate::etcd::EtcdError;
use crate::etcd::wire::Txn;
use crate::lost;
use crate::records::Key;

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What people call a host.
fn called(cluster: &Cluster, host: &str) -> String {
    let known = cluster.mirror.look(|tables| {
        let record = tables.hosts.get(host)?;
        Some(format!("{} ({})", record.name, record.address))
    });
    known.flatten().unwrap_or_else(|| host.to_owned())
}

/// Removes what hosts had that are away for long. Their absence counts from when this host saw it, and only while this
/// host sees the store. How soon the next one is due.
pub(crate) async fn forget(
    cluster: &Shared,
    away: &mut HashMap<String, Instant>,
) -> Option<Duration> {
    let age = cluster.mirror.age().unwrap_or(Duration::MAX);
    if age > 2 * cluster.options.lease() {
        if age > cluster.options.forget() {
            away.clear();
        }
        return None;
    }
    let absent = cluster.mirror.look(|tables| {
        let hosts = tables.hosts.keys();
        let absent = hosts.filter(|host| !tables.live.contains(*host) && **host != cluster.host);
        absent.cloned().collect::<Vec<_>>()
    });
    let absent = absent.unwrap_or_default();
    away.retain(|host, _| {
        let is_back = cluster.mirror.look(|tables| tables.live.contains(host));
        if is_back == Some(true) {
            let name = called(cluster, host);
            cluster.log.info(format!("host {name} is there again"));
        }
        absent.contains(host)
    });
    for host in absent {
        let since = *away.entry(host.clone()).or_insert_with(|| {
            let name = called(cluster, &host);
            cluster.log.warn(format!("host {name} is away"));
            Instant::now()
        });
        if since.elapsed() < cluster.options.forget() {
            continue;
        }
        match forget_host(cluster, &host).await {
            Ok(()) => {
                away.remove(&host);
            }
            Err(error) => {
                let text = format!("forgetting host {host}: {error}");
                cluster.log.warn(text);
            }
        }
    }
    let waiting = away.values().map(|since| {
        let left = cluster.options.forget().checked_sub(since.elapsed());
        left.unwrap_or(PAUSE)
    });
    waiting.min()
}

async fn forget_host(cluster: &Shared, host: &str) -> Result<(), EtcdError> {
    let had = cluster.mirror.look(|tables| {
        let all = tables.endpoints.iter();
        let had = all.filter(|(_, record)| record.host == host);
        had.map(|(key, record)| (key.clone(), record.clone()))
            .collect::<Vec<_>>()
    });
    let live = cluster.keys.name(&Key::Live(host.to_owned()));
    let had = had.unwrap_or_default();
    cluster.log.warn(format!(
        "host {} is away for long: its {} endpoints are removed",
        called(cluster, host),
        had.len()
    ));
    for ((network, id), record) in had {
        let txn = beat::end(cluster, &network, &id, &record).if_absent(&live);
        cluster.etcd.txn(&txn).await?;
    }
    let name = cluster.keys.name(&Key::Host(host.to_owned()));
    let txn = Txn::default()
        .if_absent(&live)
        .delete(&name)
        .delete_below(&cluster.keys.secrets(host));
    cluster.etcd.txn(&txn).await?;
    // It may have been the last one on a network that a restored store has again.
    lost::bury(cluster).await
}
