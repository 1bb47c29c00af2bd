//! What every driver has, whatever its kind.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Call, DriverError, DriverResult, ErrorCode, Invoke, Remote};

/// What a driver is created with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverConfig {
    /// The driver's name, as in its manifest.
    pub name: String,
    /// A directory of the driver's own under the data-root; exists, survives reboots.
    pub root: PathBuf,
    /// A directory of the driver's own under the exec-root; exists, may vanish with a reboot.
    pub run: PathBuf,
    /// Eight hex digits derived from the data-root. Everything a driver makes outside its directories (links, say)
    /// carries it in its name, so that engines run side by side.
    pub tag: String,
    /// The driver's options from the configuration; an object.
    #[serde(default)]
    pub options: serde_json::Value,
}

/// A driver's own view of its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it can serve calls.
    pub healthy: bool,
    /// Details for people; empty when there are none.
    #[serde(default)]
    pub message: String,
    /// Name and value pairs shown by `info`.
    #[serde(default)]
    pub status: Vec<(String, String)>,
}

/// The identifiers of all objects of the driver that core knows. What the driver holds beyond them is garbage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reconcile {
    /// Snapshot keys, network IDs or volume names.
    pub live: Vec<String>,
    /// For network drivers: endpoint IDs in use.
    #[serde(default)]
    pub endpoints: Vec<String>,
}

/// The base of every driver kind. All methods may be called at any time after creation, concurrently.
pub trait Driver: Send + Sync {
    /// Whether the driver can work, cheaply.
    fn health(&self, call: &Call<'_>) -> DriverResult<Health> {
        let _ = call;
        Ok(Health {
            healthy: true,
            message: String::new(),
            status: Vec::new(),
        })
    }
    /// Called once after start: remove leftovers of a crash, restore what a reboot took. Idempotent.
    fn reconcile(&self, call: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        let _ = (call, request);
        Ok(())
    }
    /// No further calls will come but [`Driver::shutdown`]; finish what is under way.
    fn drain(&self, call: &Call<'_>) -> DriverResult<()> {
        let _ = call;
        Ok(())
    }
    /// The last call. Objects stay.
    fn shutdown(&self, call: &Call<'_>) -> DriverResult<()> {
        let _ = call;
        Ok(())
    }
}

impl<I: Invoke> Driver for Remote<I> {
    fn health(&self, call: &Call<'_>) -> DriverResult<Health> {
        self.call("health", call, &())
    }
    fn reconcile(&self, call: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.call("reconcile", call, &request)
    }
    fn drain(&self, call: &Call<'_>) -> DriverResult<()> {
        self.call("drain", call, &())
    }
    fn shutdown(&self, call: &Call<'_>) -> DriverResult<()> {
        self.call("shutdown", call, &())
    }
}

/// Runs one encoded call of the base trait.
pub(crate) fn dispatch<D: Driver + ?Sized>(
    driver: &D,
    method: &str,
    call: &Call<'_>,
    request: &[u8],
    reply: &mut Vec<u8>,
) -> DriverResult<()> {
    match method {
        "health" => crate::encode(&driver.health(call)?, reply),
        "reconcile" => crate::encode(&driver.reconcile(call, crate::decode(request)?)?, reply),
        "drain" => crate::encode(&driver.drain(call)?, reply),
        "shutdown" => crate::encode(&driver.shutdown(call)?, reply),
        _ => Err(DriverError::new(
            ErrorCode::NotImplemented,
            format!("no method {method:?}"),
        )),
    }
}
