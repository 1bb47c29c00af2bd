//! Leases and holds: blobs that are wanted before any record points to them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use gantry_model::{Digest, Timestamp};
use gantry_store::{Store, Unreadable};
use serde::{Deserialize, Serialize};

use crate::{ContentStore, Result, Shared};

/// Where leases are kept.
pub(crate) const TABLE: &str = "leases";

/// The leases that cannot be read.
///
/// # Errors
/// [`crate::Error::Store`].
pub fn unreadable_leases(store: &Store) -> Result<Vec<Unreadable>> {
    Ok(store.table::<LeaseRecord>(TABLE).unreadable()?)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) expires: Timestamp,
    pub(crate) digests: Vec<Digest>,
}

/// What must not be collected although no record points to it. One lock guards it, a blob's getting its name, and the
/// collector's taking blobs away, so that none of them sees half of another.
#[derive(Default)]
pub(crate) struct Protection {
    leases: HashMap<String, Held>,
    /// Holds that live.
    holds: BTreeSet<u64>,
    /// The next hold's number.
    next_hold: u64,
    /// Blobs that came while there were holds, with the number that the next hold had then.
    fresh: HashMap<Digest, u64>,
    /// Whether a collection has left something because of a hold.
    deferred: bool,
}

struct Held {
    /// Operations that have the lease now; it does not expire under them.
    holders: usize,
    expires: Timestamp,
    digests: HashSet<Digest>,
}

impl Protection {
    /// Takes over the leases that the store has.
    pub(crate) fn load(records: Vec<(String, LeaseRecord)>) -> Self {
        let leases = records.into_iter().map(|(name, record)| {
            let held = Held {
                holders: 0,
                expires: record.expires,
                digests: record.digests.into_iter().collect(),
            };
            (name, held)
        });
        Self {
            leases: leases.collect(),
            ..Self::default()
        }
    }

    /// Notes that a blob is used by whoever holds at this moment.
    pub(crate) fn note(&mut self, digest: &Digest) {
        if !self.holds.is_empty() {
            self.fresh.insert(digest.clone(), self.next_hold);
        }
    }

    /// Whether a blob must stay.
    pub(crate) fn protects(&mut self, digest: &Digest) -> bool {
        let leased = self.is_leased(digest);
        let held = self.fresh.contains_key(digest);
        self.deferred |= held && !leased;
        leased || held
    }

    pub(crate) fn is_leased(&self, digest: &Digest) -> bool {
        self.leases
            .values()
            .any(|held| held.digests.contains(digest))
    }

    /// Forgets leases that have expired, and returns their names.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<String> {
        let expired = |held: &Held| held.holders == 0 && held.expires < now;
        self.leases
            .extract_if(|_, held| expired(held))
            .map(|(name, _)| name)
            .collect()
    }
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its name.
    pub name: String,
    /// Whether an operation under way has it.
    pub held: bool,
    /// The blobs that it protects, there or not.
    pub digests: Vec<Digest>,
}

/// Protects blobs from [`ContentStore::collect`]. Kept when dropped, until it expires: what a failed or killed
/// operation has fetched is there for the next attempt. [`Lease::release`] ends it, unless another operation has the
/// lease of the same name.
#[derive(Debug)]
#[must_use = "an unreleased lease protects its blobs until it expires"]
pub struct Lease {
    content: ContentStore,
    name: String,
    released: bool,
}

/// Protects every blob that comes in, or is claimed, while it lives. Who drops it asks
/// [`ContentStore::take_deferred`] whether to collect what it protected.
#[derive(Debug)]
#[must_use = "blobs without a lease or record are safe only as long as this lives"]
pub struct Hold<'a> {
    shared: &'a Shared,
    number: u64,
}

impl ContentStore {
    /// Protects what comes in from now on, for operations whose blobs a crash may take.
    pub fn hold(&self) -> Hold<'_> {
        let mut protection = self.shared.protection.lock();
        let number = protection.next_hold;
        protection.next_hold += 1;
        protection.holds.insert(number);
        Hold {
            shared: &self.shared,
            number,
        }
    }

    /// Whether a blob is there; if so, it stays for as long as whoever holds now.
    #[must_use]
    pub fn claim(&self, digest: &Digest) -> bool {
        let mut protection = self.shared.protection.lock();
        let there = self.contains(digest);
        if there {
            protection.note(digest);
        }
        there
    }

    /// Whether a collection since the last call has left something because of a hold.
    #[must_use]
    pub fn take_deferred(&self) -> bool {
        std::mem::take(&mut self.shared.protection.lock().deferred)
    }

    /// Takes the lease `name` on `digests`, in addition to what it has protected so far, and extends it. Returns when it
    /// is durable.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn lease(&self, name: &str, digests: Vec<Digest>, lifetime: Duration) -> Result<Lease> {
        let now = Timestamp::now();
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let expires = Timestamp::from_unix(now.seconds().saturating_add(seconds), 0);
        let (lease, commit) = {
            let mut protection = self.shared.protection.lock();
            let held = protection
                .leases
                .entry(name.into())
                .or_insert_with(|| Held {
                    holders: 0,
                    expires,
                    digests: HashSet::new(),
                });
            held.holders += 1;
            held.expires = expires;
            held.digests.extend(digests);
            let record = LeaseRecord {
                expires,
                digests: held.digests.iter().cloned().collect(),
            };
            // Handed in under the lock, so that the store's order is that of the memory.
            let commit = self.shared.leases.put(name, &record)?;
            let lease = Lease {
                content: self.clone(),
                name: name.into(),
                released: false,
            };
            (lease, commit)
        };
        commit.wait()?;
        Ok(lease)
    }

    /// All leases, by name.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseInfo> {
        let protection = self.shared.protection.lock();
        let mut leases: Vec<LeaseInfo> = protection
            .leases
            .iter()
            .map(|(name, held)| LeaseInfo {
                name: name.clone(),
                held: held.holders > 0,
                digests: held.digests.iter().cloned().collect(),
            })
            .collect();
        leases.sort_by(|a, b| a.name.cmp(&b.name));
        leases
    }

    /// Ends a lease that no operation has; `false` when one has.
    pub fn end_lease(&self, name: &str) -> bool {
        let mut protection = self.shared.protection.lock();
        if protection
            .leases
            .get(name)
            .is_some_and(|held| held.holders > 0)
        {
            return false;
        }
        protection.leases.remove(name);
        self.shared.leases.delete(name).detach();
        true
    }
}

impl Lease {
    /// Ends the lease. Its removal need not be durable: at worst it expires.
    pub fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let shared = &self.content.shared;
        let mut protection = shared.protection.lock();
        let Some(held) = protection.leases.get_mut(&self.name) else {
            return;
        };
        held.holders = held.holders.saturating_sub(1);
        if self.released && held.holders == 0 {
            protection.leases.remove(&self.name);
            shared.leases.delete(&self.name).detach();
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut protection = self.shared.protection.lock();
        protection.holds.remove(&self.number);
        // Those that began after a blob had come do not know of it.
        let oldest = protection.holds.first().copied().unwrap_or(u64::MAX);
        protection.fresh.retain(|_, came| oldest < *came);
    }
}
