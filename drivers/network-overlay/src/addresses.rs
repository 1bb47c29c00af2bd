//! Addresses of endpoints: chosen here by what the mirror knows, taken in the store by a transaction that fails when
//! anybody was faster.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use gantry_plugin_sdk::links;
use gantry_plugin_sdk::network::{SharedEndpoint, SharedNetwork};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use ipnet::IpNet;

use crate::beat;
use crate::cluster::{Cluster, Held, Shared};
use crate::etcd::wire::{KeyValue, Txn};
use crate::records::{EndpointRecord, Key, encode};
use crate::space::{is_of_a_host, spaces};

/// How long to wait for this host's lease.
const PAUSE: Duration = Duration::from_millis(50);

/// What an endpoint wishes for, by family.
fn wishes(network: &SharedNetwork, wish: &SharedEndpoint) -> DriverResult<[Option<IpAddr>; 2]> {
    let mut wished = [None, None];
    for net in &wish.endpoint.addresses {
        let ip = net.addr();
        let space = spaces(network, ip.is_ipv6()).find(|space| space.subnet.contains(&ip));
        let Some(space) = space else {
            return Err(DriverError::invalid(format!(
                "invalid endpoint settings:\nno configured subnet contains IP address {ip}"
            )));
        };
        if space.kept.contains(&ip) || !is_of_a_host(&space.subnet, ip) {
            return Err(conflict());
        }
        wished[usize::from(ip.is_ipv6())] = Some(ip);
    }
    Ok(wished)
}

fn conflict() -> DriverError {
    DriverError::new(ErrorCode::Conflict, "Address already in use")
}

/// One endpoint that is to get addresses.
struct Allocation<'a> {
    cluster: &'a Cluster,
    wish: &'a SharedEndpoint,
    network: SharedNetwork,
    wished: [Option<IpAddr>; 2],
    /// What turned out to be taken.
    lost: BTreeSet<IpAddr>,
}

impl Allocation<'_> {
    /// Chooses addresses and notes them, so that no other thread chooses the same.
    fn choose(&self) -> DriverResult<EndpointRecord> {
        let endpoint = &self.wish.endpoint;
        let notes = self.cluster.held.lock();
        let mut taken = self.lost.clone();
        let all = notes.all().into_iter();
        let here = all.filter(|(id, held)| held.network == endpoint.network && *id != endpoint.id);
        taken.extend(here.flat_map(|(_, held)| {
            let addresses = held.record.addresses.into_iter();
            addresses.map(|net| net.addr()).collect::<Vec<_>>()
        }));
        let known = self.cluster.mirror.look(|tables| {
            let table = tables.addresses.get(&endpoint.network);
            let ips = table.into_iter().flat_map(|table| table.keys().copied());
            ips.collect::<Vec<_>>()
        });
        taken.extend(known.unwrap_or_default());
        let mut chosen = Vec::new();
        let families = [
            (self.network.enable_ipv4, false),
            (self.network.enable_ipv6, true),
        ];
        for (_, v6) in families.into_iter().filter(|(enabled, _)| *enabled) {
            let wish = self.wished[usize::from(v6)];
            let cursors = &self.cluster.cursors;
            chosen.push(cursors.choose(&self.network, v6, wish, &taken)?);
        }
        let mut with = endpoint.clone();
        with.addresses.clone_from(&chosen);
        let record = EndpointRecord {
            host: self.cluster.host.clone(),
            mac: links::mac(&with)?.to_string(),
            addresses: chosen,
            names: self.wish.names.clone(),
        };
        let held = Held {
            network: endpoint.network.clone(),
            record: record.clone(),
            released: false,
            lost: false,
        };
        notes.put(&endpoint.id, held)?;
        Ok(record)
    }

    /// What is to be made of a transaction that was not made: the record when it had been made before, none to try
    /// again.
    fn beaten(&mut self, found: &[KeyValue]) -> DriverResult<Option<EndpointRecord>> {
        let keys = &self.cluster.keys;
        for pair in found {
            match pair.key.text().and_then(|name| keys.parse(name)) {
                Some(Key::Endpoint(..)) => {
                    let record: Option<EndpointRecord> = serde_json::from_slice(&pair.value.0).ok();
                    let ours = record.filter(|record| record.host == self.cluster.host);
                    return ours.map(Some).ok_or_else(conflict);
                }
                Some(Key::Address(_, ip)) => {
                    if self.wished.contains(&Some(ip)) {
                        return Err(conflict());
                    }
                    self.lost.insert(ip);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    async fn take(&mut self) -> DriverResult<Vec<IpNet>> {
        let (network, id) = (&self.network.id.clone(), &self.wish.endpoint.id);
        loop {
            let record = self.choose()?;
            let txn = beat::create(self.cluster, network, id, &record)?;
            let reply = self.cluster.etcd.txn(&txn).await?;
            if reply.succeeded {
                return Ok(record.addresses);
            }
            let found = reply.found();
            if let Some(record) = self.beaten(&found)? {
                let addresses = record.addresses.clone();
                let held = Held {
                    network: network.clone(),
                    record,
                    released: false,
                    lost: false,
                };
                self.cluster.hold(id, held)?;
                return Ok(addresses);
            }
            if found.is_empty() {
                // Neither an address nor the endpoint was in the way: the network is gone, or this host's lease.
                fetch(self.cluster, network).await?;
                self.cluster.address()?;
                self.cluster.nudge.notify_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn gone(network: &str) -> DriverError {
    DriverError::not_found(format!("network {network} not found"))
}

/// Gives an endpoint its addresses.
pub(crate) async fn allocate(cluster: Shared, wish: SharedEndpoint) -> DriverResult<Vec<IpNet>> {
    let id = &wish.endpoint.id;
    let held = cluster.held.lock().get(id);
    match held {
        Some(held) if held.released => beat::remove(&cluster, id, &held).await?,
        Some(held) if held.network == wish.endpoint.network => {
            return rename(&cluster, &wish, held).await;
        }
        Some(_) => return Err(conflict()),
        None => {}
    }
    let network = cluster.mirror.look(|tables| {
        let record = tables.networks.get(&wish.endpoint.network);
        record.map(|record| record.network.clone())
    });
    let network = match network.ok_or_else(Cluster::unheard)? {
        Some(network) => network,
        // It may be newer than the mirror.
        None => fetch(&cluster, &wish.endpoint.network).await?,
    };
    let mut allocation = Allocation {
        cluster: &cluster,
        wish: &wish,
        wished: wishes(&network, &wish)?,
        network,
        lost: BTreeSet::new(),
    };
    allocation.take().await
}

async fn fetch(cluster: &Cluster, id: &str) -> DriverResult<SharedNetwork> {
    let name = cluster.keys.name(&Key::Network(id.to_owned()));
    let found = cluster.etcd.get(&name).await?;
    let record = found.and_then(|pair| serde_json::from_slice(&pair.value.0).ok());
    let record: crate::records::NetworkRecord = record.ok_or_else(|| gone(id))?;
    Ok(record.network)
}

/// An endpoint that has its addresses may have got other names.
async fn rename(
    cluster: &Cluster,
    wish: &SharedEndpoint,
    mut held: Held,
) -> DriverResult<Vec<IpNet>> {
    let addresses = held.record.addresses.clone();
    if held.record.names == wish.names {
        return Ok(addresses);
    }
    held.record.names.clone_from(&wish.names);
    let id = &wish.endpoint.id;
    let name = cluster.keys.name(&Key::endpoint(&held.network, id));
    let txn = Txn::default()
        .if_present(&name)
        .put(&name, encode(&held.record)?);
    cluster.hold(id, held)?;
    cluster.etcd.txn(&txn).await?;
    Ok(addresses)
}
