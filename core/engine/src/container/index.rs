//! All containers by identifier and name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gantry_model::ContainerId;
use parking_lot::RwLock;

use super::Container;
use crate::{EngineError, Result};

#[derive(Default)]
struct Maps {
    by_id: BTreeMap<ContainerId, Arc<Container>>,
    /// Names in use, also of containers that are still being made.
    by_name: HashMap<String, ContainerId>,
}

/// The containers. Locks are held for look-ups only.
#[derive(Default)]
pub(crate) struct Index(RwLock<Maps>);

/// A name that is taken for a container; given back when dropped unless kept.
pub(crate) struct Reserved<'a> {
    index: &'a Index,
    name: Option<String>,
}

impl Reserved<'_> {
    /// The container exists: it keeps the name.
    pub(crate) fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.index.0.write().by_name.remove(&name);
        }
    }
}

impl Index {
    /// Takes a name for a container.
    ///
    /// # Errors
    /// Docker's conflict.
    pub(crate) fn reserve(&self, name: &str, id: &ContainerId) -> Result<Reserved<'_>> {
        let mut maps = self.0.write();
        if let Some(owner) = maps.by_name.get(name) {
            return Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        maps.by_name.insert(name.to_owned(), id.clone());
        Ok(Reserved {
            index: self,
            name: Some(name.to_owned()),
        })
    }

    /// Frees a name.
    pub(crate) fn free(&self, name: &str) {
        self.0.write().by_name.remove(name);
    }

    /// Adds a container whose name is taken.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut maps = self.0.write();
        maps.by_id.insert(container.id.clone(), container);
    }

    /// Takes a container and its name out.
    pub(crate) fn remove(&self, container: &Container) {
        let mut maps = self.0.write();
        maps.by_id.remove(&container.id);
        maps.by_name.remove(&container.record().name);
    }

    /// The container of this identifier.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.0.read().by_id.get(id).cloned()
    }

    /// The container that a client means: by identifier, name, or the beginning of an identifier, in this order.
    ///
    /// # Errors
    /// `No such container: x`; several beginnings.
    pub(crate) fn find(&self, what: &str) -> Result<Arc<Container>> {
        if what.is_empty() {
            return Err(EngineError::bad_request("No container name or ID supplied"));
        }
        let missing = || EngineError::not_found(format!("No such container: {what}"));
        let maps = self.0.read();
        let name = what.strip_prefix('/').unwrap_or(what);
        if let Ok(id) = what.parse::<ContainerId>()
            && let Some(container) = maps.by_id.get(&id)
        {
            return Ok(container.clone());
        }
        if let Some(id) = maps.by_name.get(name) {
            return maps.by_id.get(id).cloned().ok_or_else(missing);
        }
        if what.len() > 64 || !what.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matches = maps
            .by_id
            .iter()
            .filter(|(id, _)| id.as_str().starts_with(what));
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(EngineError::bad_request(format!(
                "Multiple IDs found with provided prefix: {what}"
            ))),
            _ => Err(missing()),
        }
    }

    /// Whether a container of this identifier exists, or is being made.
    pub(crate) fn is_taken(&self, id: &ContainerId) -> bool {
        let maps = self.0.read();
        maps.by_id.contains_key(id) || maps.by_name.values().any(|taken| taken == id)
    }

    /// Every container, in any order.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.0.read().by_id.values().cloned().collect()
    }
}
