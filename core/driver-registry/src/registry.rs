//! The registry proper.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{
    Driver, Invoke, Kind, Network, PROTOCOL, PROTOCOL_MIN, Registry, Storage, Volume,
};
use parking_lot::RwLock;

use crate::slot::{Handle, Slot, client};
use crate::{Backend, DriverState, DriverStatus, Isolation, Local, RegistryError, Retired};

/// Names that mean another driver: kind, alias, driver.
const ALIASES: &[(Kind, &str, &str)] = &[
    (Kind::Storage, "overlay2", "overlayfs"),
    (Kind::Storage, "vfs", "native"),
];

/// The default of each kind where the configuration names none.
fn built_in_default(kind: Kind) -> &'static str {
    match kind {
        Kind::Storage => "overlayfs",
        Kind::Network => "bridge",
        Kind::Volume => "local",
        Kind::Registry => "hub",
    }
}

/// Where a driver came from; shown, not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its version.
    pub version: String,
    /// The plugin file.
    pub source: Option<PathBuf>,
    /// Where it runs.
    pub isolation: Isolation,
    /// Optional facets.
    pub capabilities: Vec<String>,
}

struct Entry {
    origin: Origin,
    /// The slot, or why there is none.
    place: Result<Arc<Slot>, String>,
}

/// All drivers of an engine. Cheap to ask; shared by reference or `Arc`.
#[derive(Default)]
pub struct DriverRegistry {
    entries: RwLock<BTreeMap<(Kind, String), Entry>>,
    defaults: RwLock<BTreeMap<Kind, String>>,
    /// Registry drivers by what they serve: a registry's name, or that and the beginning of a repository's.
    routes: RwLock<BTreeMap<String, String>>,
}

impl DriverRegistry {
    /// An empty registry with the built-in defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The driver that `name` means within its kind.
    #[must_use]
    pub fn canonical(kind: Kind, name: &str) -> &str {
        ALIASES
            .iter()
            .find(|(k, alias, _)| *k == kind && *alias == name)
            .map_or(name, |(_, _, driver)| driver)
    }

    /// The storage driver `name` (or alias).
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn storage(&self, name: &str) -> Result<Arc<dyn Storage>, RegistryError> {
        Ok(Arc::new(client(&self.slot(Kind::Storage, name)?)))
    }

    /// The network driver `name`.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn network(&self, name: &str) -> Result<Arc<dyn Network>, RegistryError> {
        Ok(Arc::new(client(&self.slot(Kind::Network, name)?)))
    }

    /// The volume driver `name`.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn volume(&self, name: &str) -> Result<Arc<dyn Volume>, RegistryError> {
        Ok(Arc::new(client(&self.slot(Kind::Volume, name)?)))
    }

    /// The registry driver `name`.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn registry(&self, name: &str) -> Result<Arc<dyn Registry>, RegistryError> {
        Ok(Arc::new(client(&self.slot(Kind::Registry, name)?)))
    }

    /// The name of the driver of a repository: that of the longest of the routes that lead to it, by whole components, else
    /// the default.
    #[must_use]
    pub fn registry_of(&self, domain: &str, repository: &str) -> String {
        let routes = self.routes.read();
        let mut name = format!("{domain}/{repository}");
        loop {
            if let Some(driver) = routes.get(&name) {
                return driver.clone();
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => return self.default_name(Kind::Registry),
            }
        }
    }

    /// The driver of a repository; see [`DriverRegistry::registry_of`]. With an empty repository that of the registry.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn registry_for(
        &self,
        domain: &str,
        repository: &str,
    ) -> Result<Arc<dyn Registry>, RegistryError> {
        self.registry(&self.registry_of(domain, repository))
    }

    /// Says which registry drivers serve what, in place of what was said before.
    pub fn set_routes(&self, routes: BTreeMap<String, String>) {
        *self.routes.write() = routes;
    }

    /// Any driver, as what all kinds have in common.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn driver(&self, kind: Kind, name: &str) -> Result<Arc<dyn Driver>, RegistryError> {
        Ok(Arc::new(client(&self.slot(kind, name)?)))
    }

    /// Any driver, for calls that the caller encodes.
    ///
    /// # Errors
    /// When it is not there, with the reason.
    pub fn invoker(&self, kind: Kind, name: &str) -> Result<Arc<dyn Invoke>, RegistryError> {
        Ok(Arc::new(Handle(self.slot(kind, name)?)))
    }

    /// The driver that new objects of `kind` get unless told otherwise. It need not be available.
    #[must_use]
    pub fn default_name(&self, kind: Kind) -> String {
        self.defaults
            .read()
            .get(&kind)
            .cloned()
            .unwrap_or_else(|| built_in_default(kind).to_owned())
    }

    /// Changes the default of a kind; existing objects keep their driver.
    pub fn set_default(&self, kind: Kind, name: &str) {
        let name = Self::canonical(kind, name).to_owned();
        self.defaults.write().insert(kind, name);
    }

    /// Registers a loaded driver. Where one of the name is loaded already, the new one is swapped in as its next
    /// generation and the old one returned, to be [finished](Retired::finish).
    pub fn register(
        &self,
        kind: Kind,
        name: &str,
        origin: Origin,
        backend: Arc<dyn Backend>,
    ) -> Option<Retired> {
        let mut entries = self.entries.write();
        let key = (kind, name.to_owned());
        if let Some(entry) = entries.get_mut(&key)
            && let Ok(slot) = &entry.place
        {
            let (generation, old) = slot.swap(backend);
            entry.origin = origin;
            tracing::info!(%kind, name, generation, "driver swapped");
            return Some(old);
        }
        let place = Ok(Slot::new(kind, name.to_owned(), backend));
        entries.insert(key, Entry { origin, place });
        None
    }

    /// Registers a value of this program under a name. For tests of core.
    pub fn register_local(&self, name: &str, driver: Local) -> Option<Retired> {
        let origin = Origin {
            version: format!("protocol {PROTOCOL_MIN}-{PROTOCOL}"),
            source: None,
            isolation: Isolation::None,
            capabilities: Vec::new(),
        };
        self.register(driver.kind(), name, origin, Arc::new(driver))
    }

    /// Notes a driver that could not be loaded. A loaded generation of the name stays in service: a bad replacement
    /// does not take a working driver away.
    pub fn unavailable(&self, kind: Kind, name: &str, origin: Origin, reason: String) {
        tracing::warn!(%kind, name, %reason, "driver not available");
        let mut entries = self.entries.write();
        let key = (kind, name.to_owned());
        if entries.get(&key).is_some_and(|entry| entry.place.is_ok()) {
            return;
        }
        let place = Err(reason);
        entries.insert(key, Entry { origin, place });
    }

    /// Every driver that is known, by kind and name.
    #[must_use]
    pub fn list(&self) -> Vec<DriverStatus> {
        let entries = self.entries.read();
        entries
            .iter()
            .map(|((kind, name), entry)| self.describe(*kind, name, entry))
            .collect()
    }

    /// One driver (or alias).
    ///
    /// # Errors
    /// When none of that name is known.
    pub fn status(&self, kind: Kind, name: &str) -> Result<DriverStatus, RegistryError> {
        let name = Self::canonical(kind, name);
        let entries = self.entries.read();
        entries
            .get(&(kind, name.to_owned()))
            .map(|entry| self.describe(kind, name, entry))
            .ok_or_else(|| unknown(kind, name))
    }

    /// Drains and shuts down every driver, each within `timeout`. Handles that are still held fail or hang up as
    /// their backend does.
    pub fn shutdown(&self, timeout: Duration) {
        let entries = std::mem::take(&mut *self.entries.write());
        for entry in entries.into_values() {
            if let Ok(slot) = entry.place {
                slot.retire().finish(timeout);
            }
        }
    }

    fn describe(&self, kind: Kind, name: &str, entry: &Entry) -> DriverStatus {
        let (state, reason, generation) = match &entry.place {
            Err(reason) => (DriverState::Unavailable, reason.clone(), 0),
            Ok(slot) => {
                let current = slot.current();
                let generation = current.number + current.backend.restarts();
                match current.backend.fault() {
                    None if current.backend.is_idle() => {
                        (DriverState::Idle, String::new(), generation)
                    }
                    None => (DriverState::Ready, String::new(), generation),
                    Some(reason) => (DriverState::Faulted, reason, generation),
                }
            }
        };
        DriverStatus {
            kind,
            name: name.to_owned(),
            version: entry.origin.version.clone(),
            source: entry.origin.source.clone(),
            isolation: entry.origin.isolation,
            state,
            reason,
            capabilities: entry.origin.capabilities.clone(),
            generation,
            default: self.default_name(kind) == name,
        }
    }

    fn slot(&self, kind: Kind, name: &str) -> Result<Arc<Slot>, RegistryError> {
        let name = Self::canonical(kind, name);
        let entries = self.entries.read();
        match entries.get(&(kind, name.to_owned())).map(|e| &e.place) {
            Some(Ok(slot)) => Ok(slot.clone()),
            Some(Err(reason)) => Err(RegistryError::Unavailable {
                kind,
                name: name.to_owned(),
                reason: reason.clone(),
            }),
            None => Err(unknown(kind, name)),
        }
    }
}

fn unknown(kind: Kind, name: &str) -> RegistryError {
    RegistryError::Unknown {
        kind,
        name: name.to_owned(),
    }
}
