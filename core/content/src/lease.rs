//! Leases: blobs that are wanted before any record points to them.

use std::time::Duration;

use gantry_model::{Digest, Timestamp};
use parking_lot::RwLockReadGuard;
use serde::{Deserialize, Serialize};

use crate::{ContentStore, Result};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) expires: Timestamp,
    pub(crate) digests: Vec<Digest>,
}

/// Protects blobs from [`ContentStore::collect`]. Kept when dropped, until it expires: what a failed or killed
/// operation has fetched is there for the next attempt. [`Lease::release`] ends it.
#[derive(Debug)]
#[must_use = "an unreleased lease protects its blobs until it expires"]
pub struct Lease {
    content: ContentStore,
    name: String,
}

/// Keeps collections off while it lives.
#[derive(Debug)]
#[must_use = "blobs without a lease or record are safe only as long as this lives"]
pub struct Hold<'a>(#[expect(dead_code, reason = "held for its drop")] RwLockReadGuard<'a, ()>);

impl ContentStore {
    /// Keeps collections off: [`ContentStore::collect`] does nothing meanwhile.
    pub fn hold(&self) -> Hold<'_> {
        Hold(self.shared.holds.read())
    }

    /// Takes (or takes over and extends) the lease `name` on `digests`.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn lease(&self, name: &str, digests: Vec<Digest>, lifetime: Duration) -> Result<Lease> {
        let now = Timestamp::now();
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let record = LeaseRecord {
            expires: Timestamp::from_unix(now.seconds().saturating_add(seconds), 0),
            digests,
        };
        let _guard = self.shared.collecting.lock();
        self.shared.leases.put(name, &record)?.wait()?;
        Ok(Lease {
            content: self.clone(),
            name: name.into(),
        })
    }
}

impl Lease {
    /// Ends the lease. Its removal need not be durable: at worst it expires.
    pub fn release(self) {
        let _guard = self.content.shared.collecting.lock();
        self.content.shared.leases.delete(&self.name).detach();
    }
}
