//! Networks in the store. Every change of their set compares and changes one key, `layout`: names, numbers and subnets
//! cannot clash, whoever makes networks at the same time.

use std::collections::BTreeSet;

use gantry_plugin_sdk::network::SharedNetwork;
use gantry_plugin_sdk::sys::netlink::RouteSocket;
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use ipnet::IpNet;

use crate::cluster::{Cluster, Shared};
use crate::etcd::EtcdError;
use crate::etcd::wire::Txn;
use crate::lost;
use crate::options::{NetworkOptions, VNI};
use crate::pools::{Chooser, next_vni};
use crate::records::{Key, Layout, NetworkRecord, encode};

/// All networks, at one revision of the layout.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) layout: Layout,
    /// 0 when there is no layout.
    pub(crate) revision: i64,
    pub(crate) networks: Vec<NetworkRecord>,
    pub(crate) cluster: u64,
}

/// Them, after those that were lost were put back.
async fn known(cluster: &Shared) -> DriverResult<Known> {
    let known = now(cluster).await?;
    if !cluster.past.is_lost(&known.layout) {
        return Ok(known);
    }
    lost::put_back(cluster).await?;
    Ok(now(cluster).await?)
}

/// Them as they are.
pub(crate) async fn now(cluster: &Cluster) -> Result<Known, EtcdError> {
    let layout = cluster.etcd.get(&cluster.keys.name(&Key::Layout)).await?;
    let all = cluster.etcd.list(&cluster.keys.networks()).await?;
    let records = all.kvs.iter();
    Ok(Known {
        revision: layout.as_ref().map_or(0, |pair| pair.mod_revision),
        layout: Layout::read(layout.as_ref().map(|pair| pair.value.0.as_slice())),
        networks: records
            .filter_map(|pair| serde_json::from_slice(&pair.value.0).ok())
            .collect(),
        cluster: all.header.cluster_id,
    })
}

/// Where this host's routes lead, other than to shared networks.
pub(crate) fn routes() -> Vec<IpNet> {
    // Without knowing them the choice is as good as any other.
    let routes = RouteSocket::open().and_then(|mut socket| socket.routes());
    routes
        .unwrap_or_default()
        .into_iter()
        .map(|route| route.to)
        .collect()
}

impl Known {
    /// The network as it is to be, with the layout after it.
    fn plan(
        &self,
        cluster: &Cluster,
        wish: &SharedNetwork,
        routes: &[IpNet],
    ) -> DriverResult<(NetworkRecord, Layout)> {
        if self.networks.iter().any(|n| n.network.name == wish.name) {
            return Err(DriverError::new(
                ErrorCode::AlreadyExists,
                format!("network with name {} already exists", wish.name),
            ));
        }
        let taken: Vec<IpNet> = self
            .networks
            .iter()
            .flat_map(|n| n.network.pools.iter().filter_map(|pool| pool.subnet))
            .collect();
        let mut network = wish.clone();
        let chooser = Chooser {
            pools: &cluster.options.pools,
            taken: &taken,
            routes,
            cluster: self.cluster,
        };
        chooser.complete(&mut network)?;
        let (vni, layout) = self.number(&network)?;
        network.options.insert(VNI.to_owned(), vni.to_string());
        Ok((NetworkRecord { vni, network }, layout.changed()?))
    }

    fn number(&self, network: &SharedNetwork) -> DriverResult<(u32, Layout)> {
        let taken: BTreeSet<u32> = self.networks.iter().map(|n| n.vni).collect();
        match NetworkOptions::parse(&network.options)?.vni {
            Some(vni) if taken.contains(&vni) => Err(DriverError::new(
                ErrorCode::Conflict,
                format!("VXLAN ID {vni} is in use by another network"),
            )),
            Some(vni) => Ok((vni, self.layout.clone())),
            None => {
                let vni = next_vni(self.layout.last_vni, &taken).ok_or_else(|| {
                    let text = "every VXLAN ID is in use";
                    DriverError::new(ErrorCode::ResourceExhausted, text)
                })?;
                let layout = Layout {
                    last_vni: vni,
                    ..self.layout.clone()
                };
                Ok((vni, layout))
            }
        }
    }
}

/// Makes a network known to all hosts.
pub(crate) async fn share(
    cluster: Shared,
    wish: SharedNetwork,
    routes: Vec<IpNet>,
) -> DriverResult<SharedNetwork> {
    let (layout, name) = (
        cluster.keys.name(&Key::Layout),
        cluster.keys.name(&Key::Network(wish.id.clone())),
    );
    // Others who change the layout make progress: this ends, at the latest when the call's time is up.
    loop {
        let known = known(&cluster).await?;
        if let Some(record) = known.networks.iter().find(|n| n.network.id == wish.id) {
            return Ok(record.network.clone());
        }
        let (record, after) = known.plan(&cluster, &wish, &routes)?;
        let txn = Txn::default()
            .if_unchanged(&layout, known.revision)
            .put(&layout, encode(&after)?)
            .put(&name, encode(&record)?);
        if cluster.etcd.txn(&txn).await?.succeeded {
            return Ok(record.network);
        }
    }
}

/// Takes a network back, unless it has endpoints.
pub(crate) async fn unshare(cluster: Shared, id: String) -> DriverResult<()> {
    let keys = &cluster.keys;
    let layout = keys.name(&Key::Layout);
    loop {
        let known = known(&cluster).await?;
        let Some(record) = known.networks.iter().find(|n| n.network.id == id) else {
            return Ok(());
        };
        let endpoints = cluster.etcd.list(&keys.endpoints(&id)).await?.kvs.len();
        if endpoints > 0 {
            let name = &record.network.name;
            return Err(DriverError::new(
                ErrorCode::FailedPrecondition,
                format!("network {name} has active endpoints on hosts of the cluster: {endpoints}"),
            ));
        }
        let txn = Txn::default()
            .if_unchanged(&layout, known.revision)
            .put(&layout, encode(&known.layout.changed()?.without(&id))?);
        let txn = end(&cluster, txn, &id);
        if cluster.etcd.txn(&txn).await?.succeeded {
            return Ok(());
        }
    }
}

/// Has a transaction remove a network, if nobody is on it.
pub(crate) fn end(cluster: &Cluster, txn: Txn, id: &str) -> Txn {
    let keys = &cluster.keys;
    txn.if_none_below(&keys.endpoints(id))
        .delete(&keys.name(&Key::Network(id.to_owned())))
        .delete_below(&keys.addresses(id))
}
