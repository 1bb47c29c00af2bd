//! What other hosts do with the networks that they share with this one: asked for by threads, and acted upon.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gantry_driver_api::network::{Member as Told, Scope, SharedNetwork, Watch};
use gantry_driver_api::{Call, DriverResult, ErrorCode, Kind, Network as Driver};
use gantry_driver_registry::{DriverState, DriverStatus};
use gantry_model::NetworkId;
use gantry_netd::Foreign;

use crate::inner::{Inner, Network};
use crate::{ErrorKind, NetworkError, NetworkRecord, Result, SharedChange};

/// How long one question waits for news: a driver that is put away waits for the calls that are under way.
const NEWS: Duration = Duration::from_secs(1);
/// The first pause after a failed question; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Asks for news and acts on them; the revision of the answer.
type Ask = fn(&Weak<Inner>, &str, &dyn Driver, u64) -> Followed;
type Followed = std::result::Result<u64, Trouble>;

impl Inner {
    /// Follows every driver whose networks hosts share. One that is not loaded has none.
    pub(crate) fn follow_all(self: &Arc<Self>) {
        let drivers = self.registry.list();
        let loaded = |d: &&DriverStatus| d.kind == Kind::Network && d.state != DriverState::Idle;
        for driver in drivers.iter().filter(loaded) {
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
            if known.contains(&id) {
                continue;
            }
            let name = network.name.clone();
            let taken = NetworkRecord::of_shared(driver, network).and_then(|r| self.adopt(r));
            if let Err(error) = taken {
                tracing::warn!(driver, network = name, %error, "a network of other hosts is not to be had here");
            }
        }
        self.forget_orphans();
        self.give_up_unwanted();
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
        let network = Arc::new(Network::new(record));
        self.keep_network(&network);
        self.shared.tell(SharedChange::Made, &network.record);
        Ok(())
    }

    /// Lets networks go that were removed elsewhere, as soon as nobody here is on them.
    fn forget_orphans(&self) {
        let orphaned: Vec<NetworkId> = self.shared.orphaned.lock().iter().cloned().collect();
        for id in orphaned {
            let network = self.networks.read().get(&id).cloned();
            let forgotten: Result<()> = network.map_or(Ok(()), |network| {
                network.close(String::new)?;
                // Not unshared: should it come back, it is not this host's to remove.
                self.drop_network(&network, false)
                    .inspect_err(|_| network.reopen())?;
                self.shared.tell(SharedChange::Removed, &network.record);
                Ok(())
            });
            match forgotten {
                Ok(()) => drop(self.shared.orphaned.lock().remove(&id)),
                Err(error) => tracing::debug!(network = %id, %error, "removed elsewhere"),
            }
        }
    }

    /// Takes back networks whose creation failed here as far as anybody was told, and which came by way of the store.
    fn give_up_unwanted(&self) {
        let unwanted: Vec<NetworkId> = self.shared.unwanted.lock().iter().cloned().collect();
        for id in unwanted {
            let Some(network) = self.networks.read().get(&id).cloned() else {
                continue;
            };
            let removed = network.close(String::new).and_then(|()| {
                self.drop_network(&network, true)
                    .inspect_err(|_| network.reopen())
            });
            match removed {
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    tracing::debug!(network = %id, %error, "to be taken back");
                }
                // Whoever uses it by now may have it.
                _ => self.shared.unwanted.lock().retain(|other| *other != id),
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
        inner.give_up_unwanted();
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
