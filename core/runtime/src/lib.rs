//! From a container's configuration to a running process, through the monitor.
//!
//! The way of a container: the engine fills a [`SpecInput`]; [`Runtime::build_spec`] makes an OCI runtime
//! specification of it with Docker's defaults; [`Runtime::create`] lowers that to the monitor's plan (cgroups made,
//! seccomp compiled, users resolved), has the zygote fork a monitor and waits until the container's init stands just
//! before its `exec`; [`Process::start`] lets it go. From then on the [`Process`] is the one handle: signals, exit,
//! attach, execs, limits, statistics.
//!
//! Invariants:
//! - A container belongs to its monitor, not to this process: dropping every [`Process`] disturbs nothing, and
//!   [`Runtime::reconnect`] finds it again.
//! - Nothing on the start path executes a helper program or syncs a disk.
//! - What cannot be enforced is an error, never skipped in silence (seccomp above all).
//! - [`Process::delete`] leaves nothing: cgroups, sockets and runtime files; it is idempotent.
//!
//! It knows no images, volumes or networks: it is given a mount plan for the root and a network namespace.

pub mod cdi;
mod control;
mod create;
mod error;
mod exec;
mod failure;
mod limits;
mod lower;
mod process;
mod request;
mod runtime;
mod seccomp;
pub mod spec;
pub mod standalone;
mod state;
mod userns;
mod work;
mod zygote;

pub use error::{RuntimeError, StartError, StartErrorKind};
pub use exec::{ExecProcess, ExecStdio};
pub use gantry_monitor::plan::IdMap;
pub use process::Process;
pub use request::{
    Attach, Attached, ConsoleSize, CreateRequest, ExecRequest, ExitRecord, ExitStatus, LogTarget,
    Reconnected,
};
pub use runtime::{OciRuntime, Runtime, RuntimeConfig};
pub use spec::{ContainerSpec, SpecError, SpecInput, UserSpec};
pub use userns::{MadeNamespaces, UserNs};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gantry_sys::host::HostFacts;

    /// This machine.
    pub(crate) fn host() -> HostFacts {
        HostFacts::probe(Path::new("/proc"), Path::new("/sys")).unwrap()
    }
}
