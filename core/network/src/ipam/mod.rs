//! The built-in IPAM: pools for networks, addresses for endpoints. Nothing here is persisted: pools follow from the
//! network records, addresses from the live sandboxes.

mod choose;
mod occupied;
mod pool;

pub(crate) use choose::{Chooser, default_pools};
pub(crate) use pool::{Pool, check_held};

use std::collections::HashMap;
use std::net::IpAddr;

use gantry_model::NetworkId;
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::IpamConfig;

/// The address pools of all networks.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    pools: Mutex<HashMap<NetworkId, Vec<Pool>>>,
}

/// Why there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeError {
    /// The wished one is in none of the network's subnets.
    Outside(IpAddr),
    /// The wished one is in use.
    Taken,
    /// All are in use.
    Exhausted,
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
    ) -> std::result::Result<Option<IpNet>, TakeError> {
        let mut all = self.pools.lock();
        let pools = all
            .get_mut(network)
            .map(Vec::as_mut_slice)
            .unwrap_or_default();
        let mut family = pools.iter_mut().filter(|p| p.is_v6() == v6).peekable();
        if let Some(address) = wished {
            let pool = family.find(|p| p.subnet().contains(&address));
            let pool = pool.ok_or(TakeError::Outside(address))?;
            return match pool.take_this(address) {
                true => Ok(Some(with_prefix(address, pool))),
                false => Err(TakeError::Taken),
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
            .ok_or(TakeError::Exhausted)
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
