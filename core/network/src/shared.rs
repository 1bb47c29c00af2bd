//! Networks that hosts share through the store of their driver: made and removed for all of them, with addresses that
//! the driver gives.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gantry_driver_api::network::{
    EndpointRef, EndpointSpec, Member as Told, NetworkRef, Scope, SharedEndpoint,
};
use gantry_driver_api::{Call, DriverError, ErrorCode, Network as Driver};
use gantry_model::NetworkId;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use crate::inner::{Inner, Network, knowing};
use crate::{EndpointInfo, ErrorKind, NetworkError, NetworkRecord, Peer, Result};

/// How long the store may take for a change.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the news of a member may take.
const LAG: Duration = Duration::from_secs(1);
/// How many of those who are on a network are named.
const SHOWN: usize = 32;
/// How many networks that were taken back, or are to be, are remembered.
const LATE: usize = 1024;

/// What happened to a network that hosts share, other than by a call here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedChange {
    /// Another host made it.
    Made,
    /// Another host removed it, and now nobody here is on it any more.
    Removed,
}

type Tell = dyn Fn(SharedChange, &NetworkRecord) + Send + Sync;

/// Who is told of such changes.
#[derive(Default)]
pub(crate) struct Listener(OnceLock<Box<Tell>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// What is known of shared networks beyond their records.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Drivers that are followed.
    pub(crate) followed: Mutex<HashSet<String>>,
    /// Networks shared from here that no answer had yet: that one lacks them means nothing.
    pub(crate) fresh: Mutex<HashSet<NetworkId>>,
    /// The last networks that were shared from here, of which whoever asked for them tells.
    made_here: Mutex<VecDeque<NetworkId>>,
    listener: Listener,
    /// The last networks that were taken back from here, which late answers may still have.
    pub(crate) taken_back: Mutex<VecDeque<NetworkId>>,
    /// The last networks whose creation was told to have failed, and which may be there after all.
    pub(crate) unwanted: Mutex<VecDeque<NetworkId>>,
    /// Networks that were removed elsewhere while there were endpoints here.
    pub(crate) orphaned: Mutex<HashSet<NetworkId>>,
    /// By driver, who is on other hosts.
    pub(crate) members: RwLock<HashMap<String, Vec<Told>>>,
    /// Nobody is to be followed any more.
    pub(crate) closed: Mutex<bool>,
}

impl Shared {
    /// Ends the following.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    /// Has somebody told of what other hosts do; only the first one is.
    pub(crate) fn listen(
        &self,
        tell: impl Fn(SharedChange, &NetworkRecord) + Send + Sync + 'static,
    ) {
        if self.listener.0.set(Box::new(tell)).is_err() {
            tracing::warn!("somebody listens to other hosts' networks already");
        }
    }

    /// Tells what another host did.
    pub(crate) fn tell(&self, change: SharedChange, record: &NetworkRecord) {
        let is_own = change == SharedChange::Made && self.made_here.lock().contains(&record.id);
        if let Some(tell) = self.listener.0.get().filter(|_| !is_own) {
            tell(change, record);
        }
    }
}

impl Inner {
    /// Shares a new network; what is returned is complete. It is to be taken back when something else fails.
    pub(crate) fn share(
        self: &Arc<Self>,
        driver: &dyn Driver,
        record: NetworkRecord,
    ) -> Result<NetworkRecord> {
        self.follow(&record.driver);
        let id = record.id.clone();
        self.shared.fresh.lock().insert(id.clone());
        remember(&mut self.shared.made_here.lock(), &id);
        let call = Call::new("create network").with_timeout(PATIENCE);
        let shared = match driver.share(&call, record.to_shared()) {
            Err(error) if error.code == ErrorCode::AlreadyExists => Err(NetworkError::conflict(
                format!("network with name {} already exists", record.name),
            )),
            Err(error) => {
                if matches!(
                    error.code,
                    ErrorCode::DeadlineExceeded | ErrorCode::Unavailable
                ) {
                    // The store is not asked again now: nobody knows for how long.
                    remember(&mut self.shared.unwanted.lock(), &record.id);
                }
                Err(absent(error))
            }
            Ok(shared) => record
                .clone()
                .completed(shared)
                .inspect_err(|_| self.take_back(driver, &record)),
        };
        shared.inspect_err(|_| {
            self.shared.fresh.lock().remove(&id);
        })
    }

    /// Takes a network back that was just shared.
    pub(crate) fn take_back(&self, driver: &dyn Driver, record: &NetworkRecord) {
        if let Err(error) = self.unshare(driver, record) {
            tracing::warn!(network = record.name, %error, "undoing a network's creation");
            remember(&mut self.shared.unwanted.lock(), &record.id);
        }
    }

    /// Takes a network back from all hosts. False when it is in use on one of them.
    pub(crate) fn unshare(&self, driver: &dyn Driver, record: &NetworkRecord) -> Result<bool> {
        remember(&mut self.shared.taken_back.lock(), &record.id);
        let reference = NetworkRef {
            id: record.id.to_string(),
        };
        let call = Call::new("remove network").with_timeout(PATIENCE);
        let done = match driver.unshare(&call, reference) {
            Ok(()) => Ok(true),
            // Somebody else was faster.
            Err(error) if error.code == ErrorCode::NotFound => Ok(true),
            Err(error) if error.code == ErrorCode::FailedPrecondition => Ok(false),
            Err(error) => Err(error.into()),
        };
        if !matches!(done, Ok(true)) {
            let mut taken_back = self.shared.taken_back.lock();
            taken_back.retain(|id| *id != record.id);
        }
        done
    }

    /// The hosts beside this one that have members of a network.
    pub(crate) fn peers(&self, network: &NetworkId) -> Vec<Peer> {
        let members = self.shared.members.read();
        let there = members
            .values()
            .flatten()
            .filter(|m| m.network == network.as_str());
        let mut peers: Vec<Peer> = there
            .map(|member| Peer {
                name: member.host.clone(),
                address: member.host_address,
            })
            .collect();
        peers.sort();
        peers.dedup();
        peers
    }

    /// Who is on a network, in Docker's words, with the host where it is another one.
    pub(crate) fn active(&self, network: &NetworkId) -> String {
        let here = self.members(network).into_iter().map(|member| {
            let id = member.endpoint.endpoint.short();
            format!("name:{:?} id:{id:?}", member.name)
        });
        let mut active: Vec<String> = here.collect();
        for told in self.shared.members.read().values().flatten() {
            if told.network == network.as_str() {
                let name = told.names.first().map_or("", String::as_str);
                let id: String = told.endpoint.chars().take(12).collect();
                let mut text = format!("name:{name:?} id:{id:?} host:{:?}", told.host);
                if let Some(address) = told.host_address {
                    text += &format!(" address:\"{address}\"");
                }
                active.push(text);
            }
        }
        let further = active.len().saturating_sub(SHOWN);
        active.truncate(SHOWN);
        if further > 0 {
            active.push(format!("and {further} more"));
        }
        active.join(", ")
    }

    /// The same of a network that the driver says is in use elsewhere: by whom may be told a moment later.
    pub(crate) fn active_elsewhere(&self, network: &NetworkId) -> String {
        let end = Instant::now() + LAG;
        loop {
            let active = self.active(network);
            if !active.is_empty() || Instant::now() > end {
                return active;
            }
            std::thread::sleep(LAG / 50);
        }
    }

    /// Has the driver give addresses to an endpoint under names that other hosts may know, or leaves nothing of it.
    pub(crate) fn allocate(
        &self,
        network: &Network,
        spec: &EndpointSpec,
        names: Vec<String>,
    ) -> Result<Vec<IpNet>> {
        let driver = self.driver(&network.record.driver)?;
        let call = Call::new("connect").with_timeout(PATIENCE);
        let wanted = SharedEndpoint {
            endpoint: spec.clone(),
            names,
        };
        let given = knowing(&*driver, network, || driver.allocate(&call, wanted.clone()));
        given.map_err(|error| {
            // It may have been given after all.
            let reference = EndpointRef {
                network: spec.network.clone(),
                id: spec.id.clone(),
            };
            if let Err(error) = driver.delete_endpoint(&call, reference) {
                tracing::warn!(network = network.record.name, %error, "giving addresses back");
            }
            refused(&network.record, error)
        })
    }

    /// Tells other hosts what an endpoint is called now.
    pub(crate) fn tell_hosts(&self, endpoint: &EndpointInfo, spec: &EndpointSpec) -> Result<()> {
        let network = self.find(endpoint.network.as_str())?;
        if network.record.scope != Scope::Global {
            return Ok(());
        }
        let driver = self.driver(&network.record.driver)?;
        let call = Call::new("rename").with_timeout(PATIENCE);
        let wanted = SharedEndpoint {
            endpoint: spec.clone(),
            names: endpoint.dns_names.clone(),
        };
        driver.allocate(&call, wanted)?;
        Ok(())
    }
}

fn remember(list: &mut VecDeque<NetworkId>, id: &NetworkId) {
    list.push_back(id.clone());
    if list.len() > LATE {
        list.pop_front();
    }
}

/// The error of a store that cannot be used, for whatever reason.
fn absent(error: DriverError) -> NetworkError {
    match error.code {
        ErrorCode::FailedPrecondition => NetworkError::new(ErrorKind::Unavailable, error.message),
        _ => error.into(),
    }
}

/// Docker's words for addresses that are not to be had.
fn refused(record: &NetworkRecord, error: DriverError) -> NetworkError {
    match error.code {
        ErrorCode::Conflict => NetworkError::forbidden("Address already in use"),
        ErrorCode::ResourceExhausted => NetworkError::internal(format!(
            "no available addresses on this network's address pools: {} ({})",
            record.name, record.id
        )),
        _ => absent(error),
    }
}
