//! The host's side: loads a library, makes instances, calls them.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use abi_stable::library::{LibraryError, RootModuleError, lib_header_from_path};
use abi_stable::std_types::{RSlice, RStr};

use crate::{CallHeader, HostCallbacks, PluginModuleRef, RawInstance, Sink, Status};

/// Why a file is no plugin for this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError(String);

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// A loaded library with a checked interface. Never unloaded, hence `Copy`.
#[derive(Clone, Copy)]
pub struct Library(PluginModuleRef);

/// What a call into a plugin left in the reply buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The encoded reply.
    Reply,
    /// An encoded fault.
    Fault,
    /// The text of a panic, in UTF-8. The instance is faulted.
    Panicked,
}

impl Library {
    /// Maps the file and runs its initialisers. The caller has decided to trust it. Each path is loaded once; the
    /// dynamic linker takes two paths to one inode for one library.
    ///
    /// # Errors
    /// In one line, whatever `abi_stable` has to say.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        // Not `RootModule::load_from`: that returns the first library it ever loaded, whatever the path.
        lib_header_from_path(path)
            .and_then(|header| header.init_root_module::<PluginModuleRef>())
            .map(Self)
            .map_err(|error| LoadError(explain(&error)))
    }

    /// The manifest's bytes, as the loaded code has them.
    #[must_use]
    pub fn manifest(&self) -> &'static [u8] {
        self.0.manifest().as_slice()
    }

    /// Makes an instance of the driver.
    ///
    /// # Errors
    /// `Fault` or `Panicked`, with what the plugin said of it.
    pub fn create(
        &self,
        config: &[u8],
        host: HostCallbacks,
    ) -> Result<Instance, (Outcome, Vec<u8>)> {
        let mut said = Vec::new();
        let mut status = Status::PANICKED;
        // SAFETY: the layout of the module was checked at load; all arguments outlive the call.
        let raw = unsafe {
            self.0.create()(
                RSlice::from_slice(config),
                host,
                Sink::new(&mut said),
                &mut status,
            )
        };
        if status == Status::OK && !raw.0.is_null() {
            return Ok(Instance {
                module: self.0,
                raw,
            });
        }
        Err((outcome(status), said))
    }
}

/// A driver's instance in this process; shut down when dropped.
pub struct Instance {
    module: PluginModuleRef,
    raw: RawInstance,
}

// SAFETY: the instance is a `Plugin`, which is `Send + Sync`; its pointer is only handed to the plugin's entries, and
// those take it from any thread.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    /// Runs one call and leaves what came of it in `reply`.
    pub fn invoke(
        &self,
        method: &str,
        operation: &str,
        timeout: Option<Duration>,
        fds: &[BorrowedFd<'_>],
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Outcome {
        let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let header = CallHeader {
            method: RStr::from_str(method),
            operation: RStr::from_str(operation),
            timeout: timeout.map_or(u64::MAX, |t| {
                u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)
            }),
            fds: RSlice::from_slice(&fds),
        };
        // SAFETY: the layout was checked at load, `raw` came from this module's `create` and is shut down only by
        // `drop`; the descriptors are borrowed by the caller for the whole call.
        let status = unsafe {
            self.module.invoke()(
                self.raw,
                &header,
                RSlice::from_slice(request),
                Sink::new(reply),
            )
        };
        outcome(status)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `drop` has the only reference, so no call runs and none follows.
        unsafe { self.module.shutdown()(self.raw) }
    }
}

fn outcome(status: Status) -> Outcome {
    match status {
        Status::OK => Outcome::Reply,
        Status::FAULT => Outcome::Fault,
        _ => Outcome::Panicked,
    }
}

/// One line for an error that may be 35 KB long.
fn explain(error: &LibraryError) -> String {
    match error {
        LibraryError::OpenError { err, .. } => {
            format!("cannot be mapped: {}", one_line(&err.to_string()))
        }
        LibraryError::GetSymbolError { .. } => {
            "is not a Gantry plugin: it exports no root module".to_owned()
        }
        LibraryError::InvalidAbiHeader(_) => "was built with an incompatible abi_stable".to_owned(),
        LibraryError::IncompatibleVersionNumber {
            expected_version,
            actual_version,
            ..
        } => format!("has binary interface {actual_version}, this host needs {expected_version}"),
        LibraryError::AbiInstability(_) => {
            "was built against another layout of the binary interface".to_owned()
        }
        LibraryError::RootModule {
            err: RootModuleError::Unwound,
            ..
        } => "panicked while it was initialised".to_owned(),
        other => one_line(&other.to_string()),
    }
}

/// The end of a message, which is where `abi_stable` puts the point, on one line.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = text.chars().count().saturating_sub(300);
    text.chars().skip(skip).collect()
}
