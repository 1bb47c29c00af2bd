//! Networks that hosts share through the store of their driver: made and removed for all of them, followed when others
//! do so, with addresses that the driver gives and members on other hosts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gantry_driver_api::network::{
    EndpointRef, EndpointSpec, Member as Told, NetworkRef, Scope, SharedEndpoint, SharedNetwork,
    Watch,
};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode, Kind, Network as Driver};
use gantry_model::NetworkId;
use gantry_netd::Foreign;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use crate::inner::{Inner, Network, knowing};
use crate::{EndpointInfo, ErrorKind, NetworkError, NetworkRecord, Peer, Result};

/// How long one question waits for news: a driver that is put away waits for the calls that are under way.
const NEWS: Duration = Duration::from_secs(1);
/// The first pause after a failed question; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long the store may take for a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many networks that were taken back are remembered.
const LATE: usize = 1024;

/// What is known of shared networks beyond their records.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Drivers that are followed.
    followed: Mutex<HashSet<String>>,
    /// Networks shared from here that no answer had yet: that one lacks them means nothing.
    fresh: Mutex<HashSet<NetworkId>>,
    /// The last networks that were taken back from here, which late answers may still have.
    taken_back: Mutex<VecDeque<NetworkId>>,
    /// Networks that were removed elsewhere while there were endpoints here.
    orphaned: Mutex<HashSet<NetworkId>>,
    /// By driver, who is on other hosts.
    members: RwLock<HashMap<String, Vec<Told>>>,
    /// Nobody is to be followed any more.
    closed: Mutex<bool>,
}

impl Shared {
    /// Ends the following.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }
}

/// Asks for news and acts on them; the revision of the answer.
type Ask = fn(&Weak<Inner>, &str, &dyn Driver, u64) -> Followed;
type Followed = std::result::Result<u64, Trouble>;

impl Inner {
    /// Follows every driver whose networks hosts share.
    pub(crate) fn follow_all(self: &Arc<Self>) {
        let drivers = self.registry.list();
        for driver in drivers.iter().filter(|d| d.kind == Kind::Network) {
            let info = self
                .driver(&driver.name)
                .and_then(|d| Ok(d.info(&Call::default(), ())?));
            if info.is_ok_and(|info| info.scope == Scope::Global) {
                self.follow(&driver.name);
            }
        }
    }

    /// Follows what other hosts do with the networks of a driver, from threads of their own; once.
    pub(crate) fn follow(self: &Arc<Self>, driver: &str) {
        if !self.shared.followed.lock().insert(driver.to_owned()) {
            return;
        }
        let asks: [(&str, Ask); 2] = [("shared-nets", networks), ("shared-members", members)];
        for (name, ask) in asks {
            let (inner, driver) = (Arc::downgrade(self), driver.to_owned());
            let started = std::thread::Builder::new()
                .name(name.into())
                .stack_size(256 * 1024)
                .spawn(move || follow(&inner, &driver, ask));
            if let Err(error) = started {
                self.warn(format!("networks of other hosts are not followed: {error}"));
            }
        }
    }

    /// Shares a new network; what is returned is complete. It is to be taken back when something else fails.
    pub(crate) fn share(
        self: &Arc<Self>,
        driver: &dyn Driver,
        record: NetworkRecord,
    ) -> Result<NetworkRecord> {
        self.follow(&record.driver);
        let id = record.id.clone();
        self.shared.fresh.lock().insert(id.clone());
        let call = Call::new("create network").with_timeout(PATIENCE);
        let shared = match driver.share(&call, record.to_shared()) {
            Err(error) if error.code == ErrorCode::AlreadyExists => Err(NetworkError::conflict(
                format!("network with name {} already exists", record.name),
            )),
            Err(error) => {
                if error.code == ErrorCode::DeadlineExceeded {
                    // It may be there after all.
                    self.take_back(driver, &record);
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
        }
    }

    /// Takes a network back from all hosts. False when it is in use on one of them.
    pub(crate) fn unshare(&self, driver: &dyn Driver, record: &NetworkRecord) -> Result<bool> {
        {
            let mut taken_back = self.shared.taken_back.lock();
            taken_back.push_back(record.id.clone());
            if taken_back.len() > LATE {
                taken_back.pop_front();
            }
        }
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

    /// Brings the networks of a driver in line with what its store has.
    fn follow_networks(&self, driver: &str, told: Vec<SharedNetwork>) -> Result<()> {
        let mut there = HashMap::new();
        for network in told {
            match network.id.parse::<NetworkId>() {
                Ok(id) => drop(there.insert(id, network)),
                Err(error) => tracing::warn!(driver, network.id, %error, "not a network"),
            }
        }
        let known: HashSet<NetworkId> = self.ids_of(driver).into_iter().collect();
        let fresh: HashSet<NetworkId> = {
            let mut fresh = self.shared.fresh.lock();
            fresh.retain(|id| !there.contains_key(id));
            fresh.clone()
        };
        {
            let mut orphaned = self.shared.orphaned.lock();
            orphaned.retain(|id| !there.contains_key(id));
            let gone = known.iter().filter(|id| !there.contains_key(*id));
            orphaned.extend(gone.filter(|id| !fresh.contains(*id)).cloned());
        }
        for (id, network) in there {
            if !known.contains(&id) {
                self.adopt(NetworkRecord::of_shared(driver, network)?)?;
            }
        }
        self.forget_orphans();
        Ok(())
    }

    fn ids_of(&self, driver: &str) -> Vec<NetworkId> {
        let networks = self.networks.read();
        let of_driver = networks
            .values()
            .filter(|n| n.record.driver == driver && n.record.scope == Scope::Global);
        of_driver.map(|n| n.record.id.clone()).collect()
    }

    /// Takes a network in that another host made.
    fn adopt(&self, record: NetworkRecord) -> Result<()> {
        let _changing = self.changing.lock();
        let is_known = self.networks.read().contains_key(&record.id);
        if is_known || self.shared.taken_back.lock().contains(&record.id) {
            return Ok(());
        }
        if let Ok(other) = self.find(&record.name) {
            self.warn(format!(
                "network {} of this host hides one of the same name that hosts share ({})",
                other.record.name,
                record.id.short()
            ));
        }
        self.records.put(record.id.as_str(), &record)?;
        self.keep_network(&Arc::new(Network::new(record)));
        Ok(())
    }

    /// Lets networks go that were removed elsewhere, as soon as nobody here is on them.
    fn forget_orphans(&self) {
        let orphaned: Vec<NetworkId> = self.shared.orphaned.lock().iter().cloned().collect();
        for id in orphaned {
            let network = self.networks.read().get(&id).cloned();
            let forgotten = network.map_or(Ok(()), |network| {
                network.close()?;
                self.drop_network(&network)
                    .inspect_err(|_| network.reopen())
            });
            match forgotten {
                Ok(()) => drop(self.shared.orphaned.lock().remove(&id)),
                Err(error) => tracing::debug!(network = %id, %error, "removed elsewhere"),
            }
        }
    }

    /// Takes in who is on the networks of a driver on other hosts.
    fn follow_members(&self, driver: &str, told: Vec<Told>) -> Result<()> {
        let ids = self.ids_of(driver).into_iter();
        let mut networks: HashMap<String, Vec<Foreign>> =
            ids.map(|id| (id.to_string(), Vec::new())).collect();
        for member in &told {
            let foreign = Foreign {
                names: member.names.clone(),
                addresses: member.addresses.clone(),
            };
            networks
                .entry(member.network.clone())
                .or_default()
                .push(foreign);
        }
        self.shared.members.write().insert(driver.to_owned(), told);
        self.names.set_foreign(driver, networks)
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

/// A following thread: ends with the service.
fn follow(inner: &Weak<Inner>, driver: &str, ask: Ask) {
    let mut since = 0;
    let mut pause = PAUSE;
    let mut told = None;
    loop {
        let begun = Instant::now();
        let handle = match inner.upgrade() {
            Some(inner) if !*inner.shared.closed.lock() => inner.driver(driver),
            _ => return,
        };
        let asked = handle
            .map_err(Trouble::from)
            .and_then(|handle| ask(inner, driver, &*handle, since));
        match asked {
            Ok(revision) => {
                if revision == since {
                    // Whoever answers too early is not asked more often for that.
                    std::thread::sleep(NEWS.saturating_sub(begun.elapsed()));
                }
                (since, pause) = (revision, PAUSE);
                told = None;
            }
            Err(Trouble::Unused(why)) => {
                tracing::debug!(driver, why, "no hosts to follow");
                std::thread::sleep(LONGEST_PAUSE);
                since = 0;
            }
            Err(Trouble::Other(error)) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(driver, %error, "other hosts are not followed at present");
                    told = Some(error);
                }
                std::thread::sleep(pause);
                (since, pause) = (0, (pause * 2).min(LONGEST_PAUSE));
            }
        }
    }
}

/// Why other hosts cannot be followed.
enum Trouble {
    /// The driver was not told of a store: nobody uses it.
    Unused(String),
    /// Something is wrong.
    Other(NetworkError),
}

impl From<NetworkError> for Trouble {
    fn from(error: NetworkError) -> Self {
        Self::Other(error)
    }
}

/// The answer to a question for news; none when there is none.
fn news<T>(asked: DriverResult<T>) -> std::result::Result<Option<T>, Trouble> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.code {
            ErrorCode::DeadlineExceeded => Ok(None),
            ErrorCode::FailedPrecondition => Err(Trouble::Unused(error.message)),
            _ => Err(Trouble::Other(error.into())),
        },
    }
}

fn networks(inner: &Weak<Inner>, name: &str, driver: &dyn Driver, since: u64) -> Followed {
    let call = Call::new("follow networks").with_timeout(NEWS);
    let answer = news(driver.shared(&call, Watch { since }))?;
    let Some(inner) = inner.upgrade() else {
        return Ok(since);
    };
    let Some(answer) = answer.filter(|answer| answer.revision != since) else {
        inner.forget_orphans();
        return Ok(since);
    };
    inner.follow_networks(name, answer.networks)?;
    Ok(answer.revision)
}

fn members(inner: &Weak<Inner>, name: &str, driver: &dyn Driver, since: u64) -> Followed {
    let call = Call::new("follow members").with_timeout(NEWS);
    let answer = news(driver.members(&call, Watch { since }))?;
    let fresh = answer.filter(|answer| answer.revision != since);
    let (Some(answer), Some(inner)) = (fresh, inner.upgrade()) else {
        return Ok(since);
    };
    inner.follow_members(name, answer.members)?;
    Ok(answer.revision)
}
