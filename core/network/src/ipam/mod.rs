//! The built-in IPAM: pools for networks, addresses for endpoints. Nothing here is persisted: pools follow from the
//! network records, addresses from the live sandboxes.

mod choose;
mod pool;

pub(crate) use choose::{Chooser, default_pools};
pub(crate) use pool::Pool;

use std::collections::HashMap;
use std::net::IpAddr;

use gantry_model::NetworkId;
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::{IpamConfig, NetworkError, Result};

/// The address pools of all networks.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    pools: Mutex<HashMap<NetworkId, Vec<Pool>>>,
}

/// An address with its subnet's prefix length.
fn with_prefix(address: IpAddr, pool: &Pool) -> IpNet {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    IpNet::new(address, pool.subnet().prefix_len().min(longest)).unwrap_or_else(|_| address.into())
}

impl Ipam {
    /// Registers a network's pools, whose subnets and gateways are all chosen.
    pub(crate) fn add(&self, network: &NetworkId, config: &IpamConfig) {
        let pools = config.pools.iter().filter_map(Pool::of).collect();
        self.pools.lock().insert(network.clone(), pools);
    }

    pub(crate) fn remove(&self, network: &NetworkId) {
        self.pools.lock().remove(network);
    }

    /// Takes an address of one family, or this very one. None when the network has no pool of the family and none was
    /// wished.
    pub(crate) fn take(
        &self,
        network: &NetworkId,
        v6: bool,
        wished: Option<IpAddr>,
    ) -> Result<Option<IpNet>> {
        let mut all = self.pools.lock();
        let pools = all
            .get_mut(network)
            .map(Vec::as_mut_slice)
            .unwrap_or_default();
        let mut family = pools.iter_mut().filter(|p| p.is_v6() == v6).peekable();
        if let Some(address) = wished {
            let Some(pool) = family.find(|p| p.subnet().contains(&address)) else {
                return Err(NetworkError::invalid(format!(
                    "invalid config for network: invalid endpoint settings: no configured subnet contains IP address {address}"
                )));
            };
            return match pool.take_this(address) {
                true => Ok(Some(with_prefix(address, pool))),
                false => Err(NetworkError::forbidden("Address already in use")),
            };
        }
        if family.peek().is_none() {
            return Ok(None);
        }
        family
            .find_map(|pool| {
                pool.take_next()
                    .map(|address| Some(with_prefix(address, pool)))
            })
            .ok_or_else(|| {
                NetworkError::forbidden(
                    "no available addresses on this network: all of its pools are used up",
                )
            })
    }

    /// Whether an address could be wished for.
    pub(crate) fn check(&self, network: &NetworkId, address: IpAddr) -> bool {
        let all = self.pools.lock();
        let mut pools = all.get(network).into_iter().flatten();
        pools.any(|pool| pool.subnet().contains(&address))
    }

    /// Marks an address as taken by a container that outlived the daemon.
    pub(crate) fn keep(&self, network: &NetworkId, address: IpAddr) {
        for pool in self.pools.lock().get_mut(network).into_iter().flatten() {
            if pool.subnet().contains(&address) {
                pool.take_this(address);
            }
        }
    }

    /// Gives an address back.
    pub(crate) fn give_back(&self, network: &NetworkId, address: IpAddr) {
        for pool in self.pools.lock().get_mut(network).into_iter().flatten() {
            pool.give_back(address);
        }
    }
}
