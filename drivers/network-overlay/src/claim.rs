//! Puts right what the store has of this host, by what is noted here.

use std::collections::HashMap;
use std::time::Instant;

use gantry_plugin_sdk::notes::Notes;
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};

use crate::beat;
use crate::cluster::{Held, Shared};
use crate::etcd::wire::{KeyValue, Txn};
use crate::follow::everything;
use crate::lost;
use crate::records::{EndpointRecord, Key, encode};

/// Puts back what this host holds and the store does not know (any more), and removes what the store has of this host
/// and nobody here knows.
pub(crate) async fn claim(cluster: &Shared, lease: i64) -> DriverResult<()> {
    let content = everything(cluster).await?;
    let tables = content.tables;
    let v6 = cluster.address()?.is_ipv6();
    for (id, record) in &tables.hosts {
        if *id != cluster.host && record.address.is_ipv6() != v6 {
            let text = "is not reached: its address is of another family than this host's";
            cluster
                .log
                .warn(format!("host {} ({}) {text}", record.name, record.address));
        }
    }
    let mut stray: HashMap<String, Held> = tables
        .endpoints
        .iter()
        .filter(|(_, record)| record.host == cluster.host)
        .map(|((network, id), record)| {
            let held = Held {
                network: network.clone(),
                record: record.clone(),
                released: true,
                lost: false,
            };
            (id.clone(), held)
        })
        .collect();
    let held = {
        let mut notes = cluster.held.lock();
        // Another process of this driver may have written since.
        *notes = Notes::open(notes.root().to_owned())?;
        notes.all()
    };
    let mut kept = Instant::now();
    for (id, held) in held {
        stray.remove(&id);
        if kept.elapsed() > cluster.options.lease() / 3 {
            // There may be many.
            cluster.etcd.keep_alive(lease).await?;
            kept = Instant::now();
        }
        let known = tables.endpoints.get(&(held.network, id.clone()));
        put_back(cluster, known, &id).await?;
    }
    for (id, held) in stray {
        beat::remove(cluster, &id, &held).await?;
    }
    if content.undead {
        lost::bury(cluster).await?;
    }
    Ok(())
}

/// Tries again what this host lost to others, who may have let go of it meanwhile.
pub(crate) async fn claim_lost(cluster: &Shared) -> DriverResult<()> {
    let all = cluster.held.lock().all();
    for (id, _) in all.iter().filter(|(_, held)| held.lost) {
        put_back(cluster, None, id).await?;
    }
    Ok(())
}

/// Puts an endpoint of this host's back, of which the store had what is `known`. It may be released, or get other names,
/// meanwhile.
async fn put_back(cluster: &Shared, known: Option<&EndpointRecord>, id: &str) -> DriverResult<()> {
    let noted = cluster.held.lock().get(id);
    let Some(held) = noted.filter(|held| !held.released) else {
        return Ok(());
    };
    let lost = match known {
        Some(known) => {
            write(cluster, known, id, &held).await?;
            false
        }
        None => {
            let txn = beat::create(cluster, &held.network, id, &held.record)?;
            let reply = cluster.etcd.txn(&txn).await?;
            let made = reply.succeeded;
            !made && is_lost(cluster, id, &held, &reply.found()).await?
        }
    };
    settle(cluster, id, &held, lost).await
}

/// Writes an endpoint that is there as it is here.
async fn write(
    cluster: &Shared,
    known: &EndpointRecord,
    id: &str,
    held: &Held,
) -> DriverResult<()> {
    if *known == held.record {
        return Ok(());
    }
    let name = cluster.keys.name(&Key::endpoint(&held.network, id));
    let txn = Txn::default()
        .if_present(&name)
        .put(&name, encode(&held.record)?);
    cluster.etcd.txn(&txn).await?;
    Ok(())
}

/// Whether an endpoint that could not be put back has lost its addresses or its network. It may be there, put by another
/// host or by a transaction whose answer was lost.
async fn is_lost(
    cluster: &Shared,
    id: &str,
    held: &Held,
    found: &[KeyValue],
) -> DriverResult<bool> {
    for pair in found {
        let key = pair.key.text().and_then(|name| cluster.keys.parse(name));
        if let Some(Key::Endpoint(..)) = key {
            let record = serde_json::from_slice::<EndpointRecord>(&pair.value.0).ok();
            let ours = record.filter(|record| record.host == cluster.host);
            return match ours {
                Some(record) => write(cluster, &record, id, held).await.map(|()| false),
                None => Ok(true),
            };
        }
    }
    if !found.is_empty() {
        return Ok(true);
    }
    let network = cluster.keys.name(&Key::Network(held.network.clone()));
    match cluster.etcd.get(&network).await? {
        None => Ok(true),
        Some(_) => Err(DriverError::new(
            ErrorCode::Unavailable,
            "this host's lease has ended while it put back what it has",
        )),
    }
}

/// Notes what came of it, unless the endpoint was released meanwhile: then it is given back.
pub(crate) async fn settle(
    cluster: &Shared,
    id: &str,
    tried: &Held,
    lost: bool,
) -> DriverResult<()> {
    let (addresses, network) = (&tried.record.addresses, &tried.network);
    {
        let notes = cluster.held.lock();
        if let Some(now) = notes.get(id).filter(|now| !now.released) {
            match (now.lost, lost) {
                (true, false) => cluster.log.info(format!(
                    "endpoint {id}: its addresses ({addresses:?}) are its own again"
                )),
                (false, true) => cluster.log.error(format!(
                    "endpoint {id}: another host was given its addresses ({addresses:?}), or its network {network} is gone, \
                     while this host was away: start its container anew"
                )),
                _ => return Ok(()),
            }
            return notes.put(id, Held { lost, ..now });
        }
    }
    match lost {
        true => Ok(()),
        false => beat::remove(cluster, id, tried).await,
    }
}
