//! A plugin in the engine's own process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use gantry_driver_api::{
    Call, DriverConfig, DriverError, DriverResult, ErrorCode, Invoke, Kind, decode, encode,
};
use gantry_driver_registry::Backend;
use gantry_plugin_abi::host::{Instance, Library, Outcome};
use gantry_plugin_abi::{HostCallbacks, Level};

use crate::PluginError;
use crate::workers::Workers;

/// A loaded driver. Calls without a deadline run on the caller's thread; those with one on a worker's, which cannot be
/// stopped, but need not be waited for.
pub(crate) struct InProcess {
    instance: Arc<Instance>,
    workers: Arc<Workers>,
    shipped: bool,
    fault: OnceLock<String>,
}

impl InProcess {
    /// Makes an instance of the driver in `library`, which `shipped` with the engine or not.
    pub(crate) fn create(
        library: &Library,
        kind: Kind,
        config: &DriverConfig,
        shipped: bool,
    ) -> Result<Self, PluginError> {
        let mut bytes = Vec::new();
        encode(config, &mut bytes).map_err(PluginError::Create)?;
        let driver = format!("{kind}/{}", config.name);
        let host = HostCallbacks::new(move |level, message| log(&driver, level, message));
        let instance = library
            .create(&bytes, host)
            .map_err(|(outcome, said)| PluginError::Create(fault(outcome, &said)))?;
        Ok(Self {
            instance: Arc::new(instance),
            workers: Arc::default(),
            shipped,
            fault: OnceLock::new(),
        })
    }

    fn settle(&self, outcome: Outcome, reply: &mut Vec<u8>) -> DriverResult<()> {
        if outcome == Outcome::Reply {
            return Ok(());
        }
        let error = fault(outcome, reply);
        reply.clear();
        if outcome == Outcome::Panicked {
            let _ = self.fault.set(error.message.clone());
        }
        Err(error)
    }

    fn invoke_within(
        &self,
        timeout: Duration,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        let fds = call
            .fds
            .iter()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<Result<Vec<OwnedFd>, _>>()
            .map_err(|e| DriverError::io("duplicating a descriptor", &e))?;
        let instance = self.instance.clone();
        let (method, operation) = (method.to_owned(), call.operation.to_owned());
        let request = request.to_vec();
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            let mut reply = Vec::new();
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let outcome = instance.invoke(
                &method,
                &operation,
                Some(timeout),
                &borrowed,
                &request,
                &mut reply,
            );
            // The caller must find its descriptors to be the only ones, and the instance to be its own.
            drop(borrowed);
            drop((fds, instance));
            // Nobody listens any more when the deadline has passed.
            let _ = answer.send((outcome, reply));
        });
        if !self.workers.run(job) {
            let text = "too many of its calls hang";
            return Err(DriverError::new(ErrorCode::Unavailable, text));
        }
        match answered.recv_timeout(timeout) {
            Ok((outcome, bytes)) => {
                *reply = bytes;
                self.settle(outcome, reply)
            }
            Err(_) => Err(deadline_exceeded(timeout)),
        }
    }
}

impl Invoke for InProcess {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        reply.clear();
        if let Some(timeout) = call.timeout {
            return self.invoke_within(timeout, method, call, request, reply);
        }
        let outcome = self
            .instance
            .invoke(method, call.operation, None, call.fds, request, reply);
        self.settle(outcome, reply)
    }
}

impl Backend for InProcess {
    fn fault(&self) -> Option<String> {
        self.fault.get().cloned()
    }

    fn unlimited(&self) -> bool {
        self.shipped
    }
}

/// What a plugin left instead of a reply, as an error.
pub(crate) fn fault(outcome: Outcome, said: &[u8]) -> DriverError {
    match outcome {
        Outcome::Panicked => {
            let text = String::from_utf8_lossy(said).into_owned();
            DriverError::new(ErrorCode::Panicked, text)
        }
        Outcome::Fault | Outcome::Reply => decode(said)
            .unwrap_or_else(|_| DriverError::internal("the driver failed without saying why")),
    }
}

pub(crate) fn deadline_exceeded(timeout: Duration) -> DriverError {
    let text = format!("no answer within {timeout:?}");
    DriverError::new(ErrorCode::DeadlineExceeded, text)
}

/// Writes a driver's line to the engine's log.
pub(crate) fn log(driver: &str, level: Level, message: &str) {
    match level {
        Level::ERROR => tracing::error!(driver, "{message}"),
        Level::WARN => tracing::warn!(driver, "{message}"),
        Level::INFO => tracing::info!(driver, "{message}"),
        _ => tracing::debug!(driver, "{message}"),
    }
}
