//! A driver of the engine's own build that nothing has called yet. Until then it costs no memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gantry_driver_api::{Call, DriverResult, Invoke, Kind, Reconcile, decode, encode};
use gantry_driver_registry::{Backend, RegistryError};
use parking_lot::Mutex;

use crate::PluginError;

/// A driver that was loaded, and the copy of its file that is mapped.
pub(crate) struct Started {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) staged: PathBuf,
}

/// Loads a driver at its first call. While it cannot be loaded it is faulted: its calls try again, and fail with the
/// reason.
pub(crate) struct OnDemand {
    kind: Kind,
    name: String,
    load: Box<dyn Fn() -> Result<Started, PluginError> + Send + Sync>,
    started: OnceLock<Started>,
    /// Why the last attempt failed. Held during one.
    failed: Mutex<Option<String>>,
}

impl OnDemand {
    pub(crate) fn new(
        (kind, name): (Kind, String),
        load: impl Fn() -> Result<Started, PluginError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            name,
            load: Box::new(load),
            started: OnceLock::new(),
            failed: Mutex::default(),
        }
    }

    /// The copy that is mapped, if any is.
    pub(crate) fn staged(&self) -> Option<&Path> {
        self.started.get().map(|started| started.staged.as_path())
    }

    fn backend(&self) -> DriverResult<&Arc<dyn Backend>> {
        if let Some(started) = self.started.get() {
            return Ok(&started.backend);
        }
        let mut failed = self.failed.lock();
        if self.started.get().is_none() {
            match (self.load)() {
                Ok(started) => {
                    *failed = None;
                    // The lock is held: nobody else sets it.
                    let _ = self.started.set(started);
                }
                Err(error) => *failed = Some(error.to_string()),
            }
        }
        match self.started.get() {
            Some(started) => Ok(&started.backend),
            None => Err(RegistryError::Unavailable {
                kind: self.kind,
                name: self.name.clone(),
                reason: failed.clone().unwrap_or_default(),
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
        match self.started.get() {
            Some(started) => started.backend.fault(),
            // An attempt that is under way has not failed yet.
            None => self.failed.try_lock()?.clone(),
        }
    }

    fn unlimited(&self) -> bool {
        true
    }

    fn is_idle(&self) -> bool {
        self.started.get().is_none() && self.fault().is_none()
    }
}
