//! The entrance: configuration, creation, recovery.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_model::ContainerId;
use gantry_monitor::client;
use gantry_monitor::protocol::{Message, Request};
use gantry_sys::cgroup::Group;
use gantry_sys::host::HostFacts;
use parking_lot::RwLock;

use crate::control::{Control, unexpected};
use crate::seccomp::Seccomp;
use crate::spec::{self, ContainerSpec, SpecInput};
use crate::state::Dir;
use crate::work::{blocking, clear};
use crate::zygote::Zygotes;
use crate::{
    CreateRequest, MadeNamespaces, Process, Reconnected, RuntimeError, UserNs, create, userns,
};

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
    /// Parent of every container's cgroup where the container names none: `gantry-<tag>`, so that engines
    /// side by side are told apart.
    pub cgroup_parent: String,
    /// Foreign runtimes by name.
    pub runtimes: BTreeMap<String, OciRuntime>,
    /// Facts of this host: [`HostFacts::probe`].
    pub host: HostFacts,
}

/// What the parts of a runtime share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RuntimeConfig,
    /// The foreign runtimes in force.
    pub(crate) runtimes: RwLock<BTreeMap<String, OciRuntime>>,
    pub(crate) zygotes: Zygotes,
    pub(crate) seccomp: Seccomp,
}

/// Creates and finds containers. Cheap to share.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

impl Runtime {
    /// Starts the zygote.
    ///
    /// # Errors
    /// [`RuntimeError::Zygote`], or `exec_root` cannot be made.
    pub async fn new(config: RuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        blocking(move || {
            let dir = config.exec_root.join("containers");
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o711);
            builder
                .recursive(true)
                .create(&dir)
                .map_err(|source| RuntimeError::Io { path: dir, source })?;
            Ok(Arc::new(Self {
                shared: Arc::new(Shared {
                    zygotes: Zygotes::new(config.zygote.clone())?,
                    seccomp: Seccomp::new(&config.host)?,
                    runtimes: RwLock::new(config.runtimes.clone()),
                    config,
                }),
            }))
        })
        .await
    }
    /// Takes over other foreign runtimes, for containers that are created from now on.
    pub fn set_runtimes(&self, runtimes: BTreeMap<String, OciRuntime>) {
        *self.shared.runtimes.write() = runtimes;
    }
    /// The facts it was given.
    #[must_use]
    pub fn host(&self) -> &HostFacts {
        &self.shared.config.host
    }
    /// The zygote's process ID, for diagnosis.
    #[must_use]
    pub fn zygote_pid(&self) -> u32 {
        self.shared.zygotes.pid()
    }
    /// Makes the OCI specification of a container: Docker's defaults, then `input`. Pure computation but for a look at
    /// the named devices.
    ///
    /// # Errors
    /// [`RuntimeError::Spec`] with Docker's wording.
    pub fn build_spec(&self, input: &SpecInput) -> Result<ContainerSpec, RuntimeError> {
        let context = spec::Context {
            host: &self.shared.config.host,
            seccomp: &self.shared.seccomp,
            cgroup_parent: &self.shared.config.cgroup_parent,
            sys: Path::new("/sys"),
        };
        Ok(spec::build(input, &context)?)
    }
    /// Makes a user namespace with these maps, and a network namespace that belongs to it.
    ///
    /// # Errors
    /// [`RuntimeError::Zygote`]; maps that the kernel refuses ([`RuntimeError::Create`]).
    pub async fn make_namespaces(&self, maps: &UserNs) -> Result<MadeNamespaces, RuntimeError> {
        let (shared, maps) = (Arc::clone(&self.shared), maps.clone());
        blocking(move || userns::make(&shared.zygotes, &maps)).await
    }
    /// Makes a network namespace that belongs to a user namespace.
    ///
    /// # Errors
    /// [`RuntimeError::Zygote`].
    pub async fn make_network_in(&self, userns: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        let userns = userns
            .try_clone()
            .map_err(|e| RuntimeError::Zygote(e.to_string()))?;
        blocking(move || userns::make_network(&shared.zygotes, &userns)).await
    }
    /// Sets a container up to the point before its program is executed. To be run to its end: a container whose
    /// creation is dropped half-way is found by [`Runtime::known`] only.
    ///
    /// # Errors
    /// [`RuntimeError`]; nothing of the container is left then.
    pub async fn create(&self, request: CreateRequest) -> Result<Arc<Process>, RuntimeError> {
        create::create(&self.shared, request).await
    }
    /// Finds a container that this or an earlier engine created.
    ///
    /// # Errors
    /// Reading the runtime directory; a monitor that does not speak the protocol.
    pub async fn reconnect(&self, id: &ContainerId) -> Result<Reconnected, RuntimeError> {
        let dir = Dir::of(&self.shared.config.exec_root, id);
        let Some(state) = dir.state() else {
            return Ok(Reconnected::Gone);
        };
        if let Ok(socket) = client::connect(dir.path()) {
            let control = Control::new(socket, None).map_err(|e| dir.failed(e))?;
            match control.ask(Request::Info).await.map(|a| a.message) {
                Ok(Message::Info(info)) => {
                    let (pid, at) = (info.pid, info.started_at);
                    return create::found(&self.shared, id, dir, &state, control, pid, at)
                        .map(Reconnected::Running);
                }
                Ok(other) => return Err(unexpected(other)),
                // It left just now: then its record is there.
                Err(RuntimeError::NotRunning) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(dir.exit().map_or(Reconnected::Gone, Reconnected::Exited))
    }
    /// Removes what is left of a container that does not run (cgroups, runtime files, exit record). Idempotent.
    /// Processes of one whose monitor is gone are killed.
    ///
    /// # Errors
    /// Errors of the file systems; calling again goes on.
    pub async fn forget(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = Dir::of(&self.shared.config.exec_root, id);
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let Some(state) = dir.state() else {
                return dir.remove();
            };
            match &shared.config.host.cgroups {
                Some(cgroups) => clear(&Group::new(Arc::new(cgroups.clone()), &state.cgroup), &dir),
                None => dir.remove(),
            }
        })
        .await
    }
    /// Removes what containers share on the host when the last one is gone: the engine's parent cgroup. For a
    /// shutdown; with containers left nothing happens, and the next container makes it again.
    pub async fn tidy(&self) {
        let shared = Arc::clone(&self.shared);
        let done = blocking(move || {
            if let Some(cgroups) = &shared.config.host.cgroups {
                let parent = Path::new(&shared.config.cgroup_parent);
                Group::new(Arc::new(cgroups.clone()), parent).remove_if_empty();
            }
            Ok(())
        });
        if let Err(e) = done.await {
            tracing::warn!("removing the parent cgroup: {e}");
        }
    }
    /// Containers with a runtime directory, running or not: for the sweep after a crash.
    ///
    /// # Errors
    /// Reading `exec_root`.
    pub async fn known(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        let path = self.shared.config.exec_root.join("containers");
        blocking(move || {
            let failed = |source: io::Error| RuntimeError::Io {
                path: path.clone(),
                source,
            };
            let mut ids = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                ids.extend(name.to_str().and_then(|n| n.parse().ok()));
            }
            Ok(ids)
        })
        .await
    }
}
