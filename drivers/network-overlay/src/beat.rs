//! What keeps this host alive in the store, and what happens to hosts that are not.
//!
//! A host has a key that goes with its lease of a few seconds. Without that key it is *away*: nothing is taken from it,
//! since its containers and the links to them live on while its engine is restarted or a cable is out. Only after a much
//! longer time (`forget`) any other host that sees the store removes what it had. A host that comes back, sooner or
//! later, takes a new lease first, which stops that, and then puts back what it still has; an address that was given to
//! another meanwhile stays with the other, and is told of in the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::DriverError;

use crate::claim::{claim, claim_lost};
use crate::cluster::{Cluster, Held, Shared};
use crate::etcd::wire::Txn;
use crate::forget::forget;
use crate::plane::Plane;
use crate::records::{EndpointRecord, HostRecord, Key, encode};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a beat failed.
type Result<T> = std::result::Result<T, DriverError>;

/// Beats until the task is ended.
pub(crate) async fn beat(cluster: Shared, plane: Arc<Plane>) {
    let mut lease = None;
    let mut away = HashMap::new();
    let mut amiss = None;
    loop {
        if let Some(patience) = is_amiss(&cluster) {
            // What is under way is amiss for a moment; what stays so is claimed anew.
            let since: &mut Instant = amiss.get_or_insert_with(Instant::now);
            if since.elapsed() > patience {
                (lease, amiss) = (None, None);
            }
        } else {
            amiss = None;
        }
        let kept = keep(&cluster, &mut lease).await;
        cluster.set_live(kept.as_ref().copied());
        let kept = match kept {
            Ok(()) => give_back(&cluster).await,
            failed => failed,
        };
        let kept = match kept {
            Ok(()) => claim_lost(&cluster).await,
            failed => failed,
        };
        let kept = match kept {
            Ok(()) => draw_keys(&cluster, &plane).await,
            failed => failed,
        };
        let regular = cluster.options.lease() / 3;
        let pause = match kept {
            Ok(()) => {
                let due = forget(&cluster, &mut away).await;
                due.map_or(regular, |due| due.min(regular))
            }
            // The task that follows the store tells of it.
            Err(_) => PAUSE.min(regular),
        };
        let nudged = cluster.nudge.notified();
        // It makes no difference which of them it was.
        let _ = tokio::time::timeout(pause, nudged).await;
    }
}

/// Whether the store has something else of this host than the host itself, since it was set back or changed by hand; how
/// long that may be.
fn is_amiss(cluster: &Cluster) -> Option<Duration> {
    let held = cluster.held.lock().all();
    let held: Vec<_> = held.into_iter().filter(|(_, held)| !held.lost).collect();
    let amiss = cluster.mirror.look(|tables| {
        let all = tables.endpoints.values();
        let known = all.filter(|record| record.host == cluster.host).count();
        let is_known = |(id, held): &&(String, Held)| {
            let key = (held.network.clone(), id.clone());
            tables.endpoints.get(&key) == Some(&held.record)
        };
        let right = held.iter().filter(is_known).count();
        let lease = cluster.options.lease();
        match tables.live.contains(&cluster.host) {
            // Others take this one for away, and may forget it.
            false => Some(lease / 3),
            true => (right != held.len() || right != known).then_some(lease),
        }
    });
    amiss.flatten()
}

/// Sees to it that this host has a lease.
async fn keep(cluster: &Shared, lease: &mut Option<i64>) -> Result<()> {
    if let Some(id) = *lease
        && cluster.etcd.keep_alive(id).await?
    {
        return Ok(());
    }
    *lease = None;
    let looking = Arc::clone(cluster);
    // It may wait for name servers.
    let address = tokio::task::spawn_blocking(move || looking.address()).await;
    let address = address.map_err(|e| DriverError::internal(e.to_string()))??;
    let granted = cluster.etcd.grant(cluster.options.lease()).await?.id;
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let (host, live) = (
        cluster.keys.name(&Key::Host(cluster.host.clone())),
        cluster.keys.name(&Key::Live(cluster.host.clone())),
    );
    let txn = Txn::default()
        .put_leased(&live, "", granted)
        .put(&host, encode(&HostRecord { name, address })?);
    cluster.etcd.txn(&txn).await?;
    claim(cluster, granted).await?;
    *lease = Some(granted);
    Ok(())
}

/// The transaction that makes an endpoint of this host and takes its addresses, if nobody has them.
pub(crate) fn create(
    cluster: &Cluster,
    network: &str,
    id: &str,
    record: &EndpointRecord,
) -> Result<Txn> {
    let live = Key::Live(cluster.host.clone());
    let txn = take(cluster, network, id, record)?;
    Ok(txn.if_present(&cluster.keys.name(&live)))
}

/// The same for one of any host.
pub(crate) fn take(
    cluster: &Cluster,
    network: &str,
    id: &str,
    record: &EndpointRecord,
) -> Result<Txn> {
    let keys = &cluster.keys;
    let endpoint = keys.name(&Key::endpoint(network, id));
    let mut txn = Txn::default()
        .if_present(&keys.name(&Key::Network(network.to_owned())))
        .if_absent(&endpoint)
        .put(&endpoint, encode(record)?)
        .or_get(&endpoint);
    for net in &record.addresses {
        let address = keys.name(&Key::Address(network.to_owned(), net.addr()));
        txn = txn
            .if_absent(&address)
            .put(&address, id.as_bytes())
            .or_get(&address);
    }
    Ok(txn)
}

/// The transaction that removes an endpoint and its addresses, if it is there.
pub(crate) fn end(cluster: &Cluster, network: &str, id: &str, record: &EndpointRecord) -> Txn {
    let endpoint = cluster.keys.name(&Key::endpoint(network, id));
    let txn = Txn::default().if_present(&endpoint).delete(&endpoint);
    record.addresses.iter().fold(txn, |txn, net| {
        let address = Key::Address(network.to_owned(), net.addr());
        txn.delete(&cluster.keys.name(&address))
    })
}

/// Removes an endpoint of this host's from the store.
pub(crate) async fn remove(cluster: &Cluster, id: &str, held: &Held) -> Result<()> {
    let txn = end(cluster, &held.network, id, &held.record);
    cluster.etcd.txn(&txn).await?;
    cluster.let_go(id)
}

/// Gives back what could not be given back when it was released.
async fn give_back(cluster: &Shared) -> Result<()> {
    let all = cluster.held.lock().all();
    for (id, held) in all.into_iter().filter(|(_, held)| held.released) {
        remove(cluster, &id, &held).await?;
    }
    Ok(())
}

/// Sees to it that this host can send to all others, and receive from them, where networks are encrypted.
async fn draw_keys(cluster: &Shared, plane: &Plane) -> Result<()> {
    let missing = cluster.mirror.look(|tables| {
        plane.secure.accept(tables);
        plane.secure.missing(tables)
    });
    let (wanted, gone) = missing.unwrap_or_else(|| Ok(Default::default()))?;
    let name = |to: &str| {
        let key = Key::Secret(cluster.host.clone(), to.to_owned());
        cluster.keys.name(&key)
    };
    for host in gone {
        cluster
            .etcd
            .txn(&Txn::default().delete(&name(&host)))
            .await?;
    }
    for wanted in wanted {
        // The other one receives by it as soon as it is told.
        let txn = Txn::default().put(&name(&wanted.host), encode(&wanted.record)?);
        cluster.etcd.txn(&txn).await?;
        plane.secure.send(&wanted)?;
    }
    Ok(())
}
