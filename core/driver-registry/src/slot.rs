//! One driver's place: what handles point at, and the generations that come and go in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode, Invoke, Kind, Remote, encode};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::Backend;
use crate::patience::patience;

/// A backend and the calls that are under way in it.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) backend: Arc<dyn Backend>,
    calls: Mutex<usize>,
    idle: Condvar,
}

impl Generation {
    fn new(number: u64, backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            number,
            backend,
            calls: Mutex::new(0),
            idle: Condvar::new(),
        })
    }
}

/// Counts a call for as long as it lives.
struct Running<'a>(&'a Generation);

impl<'a> Running<'a> {
    fn enter(generation: &'a Generation) -> Self {
        *generation.calls.lock() += 1;
        Self(generation)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock();
        *calls -= 1;
        if *calls == 0 {
            self.0.idle.notify_all();
        }
    }
}

/// The place of one driver.
pub(crate) struct Slot {
    kind: Kind,
    name: String,
    current: RwLock<Arc<Generation>>,
}

impl Slot {
    pub(crate) fn new(kind: Kind, name: String, backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            kind,
            name,
            current: RwLock::new(Generation::new(1, backend)),
        })
    }

    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.read().clone()
    }

    /// Points the slot at `backend` and hands the former generation back.
    pub(crate) fn swap(&self, backend: Arc<dyn Backend>) -> (u64, Retired) {
        let mut current = self.current.write();
        let number = current.number + 1 + current.backend.restarts();
        let old = std::mem::replace(&mut *current, Generation::new(number, backend));
        (number, Retired(old))
    }

    /// Ends the current generation without a successor.
    pub(crate) fn retire(&self) -> Retired {
        Retired(self.current())
    }
}

/// The trait object that core holds is `Remote<Handle>`.
pub(crate) struct Handle(pub(crate) Arc<Slot>);

impl Invoke for Handle {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        // The call is counted before the lock is let go, so that a swap that follows waits for it.
        let current = self.0.current.read();
        let generation = current.clone();
        let _running = Running::enter(&generation);
        drop(current);
        let timeout = match call.timeout {
            None if generation.backend.unlimited() => None,
            None => patience(self.0.kind, method),
            Some(Duration::MAX) => None,
            limit => limit,
        };
        let call = Call { timeout, ..*call };
        generation
            .backend
            .invoke(method, &call, request, reply)
            .map_err(|error| self.name_it(error))
    }
}

impl Handle {
    /// Faults name the driver; what the driver itself said goes to clients as it is.
    fn name_it(&self, error: DriverError) -> DriverError {
        match error.code {
            ErrorCode::Panicked | ErrorCode::DeadlineExceeded => DriverError {
                message: format!("driver {}/{}: {}", self.0.kind, self.0.name, error.message),
                ..error
            },
            _ => error,
        }
    }
}

/// A generation that no new call reaches. Those under way still run; [`Retired::finish`] waits for them.
#[must_use = "an old generation is shut down by `finish`"]
pub struct Retired(Arc<Generation>);

impl Retired {
    /// Waits up to `timeout` for the calls under way, then tells the driver to drain and shut down. Returns whether
    /// all calls had ended. Faults of a driver that is being put away are of no interest and dropped.
    pub fn finish(self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut calls = self.0.calls.lock();
        while *calls > 0 {
            if self.0.idle.wait_until(&mut calls, end).timed_out() {
                break;
            }
        }
        let quiet = *calls == 0;
        drop(calls);
        let call = Call::new("retire").with_timeout(timeout.max(Duration::from_millis(100)));
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        if encode(&(), &mut request).is_ok() {
            for method in ["drain", "shutdown"] {
                let _ = self.0.backend.invoke(method, &call, &request, &mut reply);
            }
        }
        quiet
    }
}

/// The handle of a slot, as the client of any contract.
pub(crate) fn client(slot: &Arc<Slot>) -> Remote<Handle> {
    Remote(Handle(slot.clone()))
}
