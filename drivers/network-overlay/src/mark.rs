//! The last change that this host was told of, by which it knows the store again.
//!
//! A store that was restored from a backup may count less, as much, or more than the one before, and may be there before
//! anybody notes that one's end. What it does not have is that change, at that revision.

use std::fmt;

use crate::cluster::Cluster;
use crate::etcd::EtcdError;
use crate::etcd::wire::{Event, Header, KeyValue};

/// A change of the store's.
#[derive(Clone)]
pub(crate) struct Mark {
    key: String,
    /// None: it was removed.
    value: Option<Vec<u8>>,
    revision: i64,
    /// What the layout called the store.
    pub(crate) store: String,
    /// The store's, and how many leaders it had.
    cluster: u64,
    term: u64,
}

/// Without the value, which may be a key that encrypts.
impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// What store it is that is asked for a change that this host was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// The one that made it.
    Same,
    /// One that never made it: it was restored, or is a new one.
    Other,
    /// It keeps nothing from then.
    Unknown,
}

impl Mark {
    /// The last change of those that left something.
    pub(crate) fn newest(header: &Header, pairs: &[KeyValue], store: &str) -> Option<Self> {
        let pair = pairs.iter().max_by_key(|pair| pair.mod_revision)?;
        Self::new(header, pair, Some(pair.value.0.clone()), store)
    }

    /// The last one of some.
    pub(crate) fn last(header: &Header, events: &[Event], store: &str) -> Option<Self> {
        let event = events.last()?;
        let value = (!event.is_deletion()).then(|| event.kv.value.0.clone());
        Self::new(header, &event.kv, value, store)
    }

    fn new(header: &Header, pair: &KeyValue, value: Option<Vec<u8>>, store: &str) -> Option<Self> {
        Some(Self {
            key: pair.key.text()?.to_owned(),
            value,
            revision: pair.mod_revision,
            store: store.to_owned(),
            cluster: header.cluster_id,
            term: header.raft_term,
        })
    }

    /// Asks the store whether it has made this change.
    pub(crate) async fn find(&self, cluster: &Cluster) -> Result<Store, EtcdError> {
        match self.look_back(cluster).await {
            Ok(true) => Ok(Store::Same),
            Ok(false) | Err(EtcdError::NotYet) => Ok(Store::Other),
            Err(EtcdError::Compacted) => self.look_now(cluster).await,
            Err(error) => Err(error),
        }
    }

    async fn look_back(&self, cluster: &Cluster) -> Result<bool, EtcdError> {
        let then = cluster.etcd.get_at(&self.key, self.revision).await?;
        Ok(match (&self.value, then.kvs.first()) {
            (Some(_), Some(pair)) => self.is_left(pair),
            (None, None) => {
                let before = cluster.etcd.get_at(&self.key, self.revision - 1).await?;
                !before.kvs.is_empty()
            }
            _ => false,
        })
    }

    fn is_left(&self, pair: &KeyValue) -> bool {
        pair.mod_revision == self.revision && Some(&pair.value.0) == self.value.as_ref()
    }

    /// What can be known of a store that forgot what was then: revisions of a key only grow, and leaders are only
    /// followed by further ones.
    async fn look_now(&self, cluster: &Cluster) -> Result<Store, EtcdError> {
        let now = cluster.etcd.get_at(&self.key, 0).await?;
        let is_other = now.header.cluster_id != self.cluster || now.header.raft_term < self.term;
        Ok(match now.kvs.first() {
            Some(pair) if self.is_left(pair) => Store::Same,
            Some(pair) if pair.mod_revision <= self.revision => Store::Other,
            _ if is_other => Store::Other,
            _ => Store::Unknown,
        })
    }
}
