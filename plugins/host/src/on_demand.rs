//! A driver of the engine's own build that nothing has called yet. Until then it costs no memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gantry_driver_api::{Call, DriverResult, Invoke, Kind, Reconcile, decode, encode};
use gantry_driver_registry::{Backend, RegistryError};

use crate::PluginError;

/// A driver that was loaded, and the copy of its file that is mapped.
pub(crate) struct Started {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) staged: PathBuf,
}

/// Loads a driver at its first call. One that cannot be loaded is faulted: its calls fail with the reason.
pub(crate) struct OnDemand {
    kind: Kind,
    name: String,
    load: Box<dyn Fn() -> Result<Started, PluginError> + Send + Sync>,
    started: OnceLock<Result<Started, String>>,
}

impl OnDemand {
    /// `load` is called once at most.
    pub(crate) fn new(
        (kind, name): (Kind, String),
        load: impl Fn() -> Result<Started, PluginError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            name,
            load: Box::new(load),
            started: OnceLock::new(),
        }
    }

    /// The copy that is mapped, if any is.
    pub(crate) fn staged(&self) -> Option<&Path> {
        let started = self.started.get()?.as_ref().ok()?;
        Some(&started.staged)
    }

    fn backend(&self) -> DriverResult<&Arc<dyn Backend>> {
        let started = self
            .started
            .get_or_init(|| (self.load)().map_err(|e| e.to_string()));
        match started {
            Ok(started) => Ok(&started.backend),
            Err(reason) => Err(RegistryError::Unavailable {
                kind: self.kind,
                name: self.name.clone(),
                reason: reason.clone(),
            }
            .into()),
        }
    }
}

/// Whether a call asks nothing of a driver that has no objects and never had any.
fn asks_nothing(method: &str, request: &[u8]) -> bool {
    match method {
        "drain" | "shutdown" => true,
        "reconcile" => decode(request).is_ok_and(|Reconcile { live, .. }| live.is_empty()),
        _ => false,
    }
}

impl Invoke for OnDemand {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        if self.is_idle() && asks_nothing(method, request) {
            reply.clear();
            return encode(&(), reply);
        }
        self.backend()?.invoke(method, call, request, reply)
    }
}

impl Backend for OnDemand {
    fn fault(&self) -> Option<String> {
        match self.started.get()? {
            Ok(started) => started.backend.fault(),
            Err(reason) => Some(reason.clone()),
        }
    }

    fn unlimited(&self) -> bool {
        true
    }

    fn is_idle(&self) -> bool {
        self.started.get().is_none()
    }
}
