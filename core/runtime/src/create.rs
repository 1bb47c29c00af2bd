//! Setting a container up.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use gantry_model::ContainerId;
use gantry_monitor::plan::{
    Cgroup, FdRole, Foreign, Hooks, Launch, LogConfig, Namespace, NamespaceKind, Namespaces, Plan,
    Stdio,
};
use gantry_sys::cgroup::{Cgroups, Group};
use gantry_sys::host::HostFacts;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::control::Control;
use crate::failure::{cgroup, create_error};
use crate::limits;
use crate::lower::{self, Lowered, lower};
use crate::runtime::{OciRuntime, Shared};
use crate::spec::foreign;
use crate::state::{Dir, State};
use crate::work::{blocking, clear};
use crate::zygote::Launched;
use crate::{ContainerSpec, CreateRequest, Process, RuntimeError, SpecError};

/// What programs take for the sign that they are in a container.
const MARK: &str = "/.dockerenv";

/// What a launch needs, made before anything is done.
struct Prepared {
    launch: Launch,
    plan: Plan,
    group: Group,
    state: State,
    dir: Dir,
    /// Limits and device rules; a foreign runtime sets its own.
    own: Option<Lowered>,
    /// The bundle's config.json, for a foreign runtime and for hooks.
    bundle: Option<Vec<u8>>,
    netns: Option<OwnedFd>,
    userns: Option<OwnedFd>,
}

pub(crate) async fn create(
    shared: &Arc<Shared>,
    request: CreateRequest,
) -> Result<Arc<Process>, RuntimeError> {
    let id = request.id.clone();
    let worker = Arc::clone(shared);
    let (mut prepared, launched) = blocking(move || {
        let prepared = prepare(&worker, request)?;
        let launched = set_up(&worker, &prepared).and_then(|()| launch(&worker, &prepared));
        match launched {
            Ok(launched) => Ok((prepared, launched)),
            Err(e) => {
                undo(&prepared.group, &prepared.dir);
                Err(e)
            }
        }
    })
    .await?;
    let zygote = launched.zygote;
    let mut outcome = created(launched.socket).await;
    if matches!(outcome, Err(RuntimeError::MonitorLost)) && shared.zygotes.has_died(zygote) {
        (prepared, outcome) = relaunch(shared, prepared).await?;
    }
    let Prepared { group, dir, .. } = prepared;
    match outcome {
        Ok((pid, control)) => Ok(Arc::new(Process {
            id,
            pid,
            dir,
            group,
            control,
            all_caps: shared.config.host.bounding_set,
            started_at: AtomicI64::new(0),
            ended: Mutex::new(None),
        })),
        Err(e) => {
            blocking(move || {
                undo(&group, &dir);
                Ok(())
            })
            .await?;
            Err(e)
        }
    }
}

/// Once more, by another zygote.
async fn relaunch(
    shared: &Arc<Shared>,
    prepared: Prepared,
) -> Result<(Prepared, Result<(i32, Control), RuntimeError>), RuntimeError> {
    let worker = Arc::clone(shared);
    let again = blocking(move || {
        let launched = launch(&worker, &prepared);
        Ok((prepared, launched))
    });
    let (prepared, launched) = again.await?;
    let outcome = match launched {
        Ok(launched) => created(launched.socket).await,
        Err(e) => Err(e),
    };
    Ok((prepared, outcome))
}

/// Waits for the monitor's word.
async fn created(socket: StdStream) -> Result<(i32, Control), RuntimeError> {
    let (first, outcome) = oneshot::channel();
    let control =
        Control::new(socket, Some(first)).map_err(|e| RuntimeError::Protocol(e.to_string()))?;
    match outcome.await {
        Ok(Ok((pid, _))) => Ok((pid, control)),
        Ok(Err(failure)) => Err(create_error(failure)),
        Err(_) => Err(RuntimeError::MonitorLost),
    }
}

/// Takes back what was made; what fails here is found again by [`crate::Runtime::known`].
fn undo(group: &Group, dir: &Dir) {
    if let Err(e) = clear(group, dir) {
        tracing::warn!("cleaning up after a failed creation: {e}");
    }
}

/// Computes everything; touches nothing.
fn prepare(shared: &Shared, request: CreateRequest) -> Result<Prepared, RuntimeError> {
    let config = &shared.config;
    let dir = Dir::of(&config.exec_root, &request.id);
    let runtimes;
    let foreign = match request.runtime.as_deref() {
        None | Some("" | "gantry") => None,
        Some(name) => {
            runtimes = shared.runtimes.read().clone();
            let named = runtimes.get_key_value(name);
            Some(named.ok_or_else(|| RuntimeError::UnknownRuntime(name.into()))?)
        }
    };
    let mut launch = header(&request, &dir);
    let cgroups = cgroups(&config.host)?;
    match foreign {
        None => {
            let mut own = lower(&request.spec, request.rootfs, &shared.seccomp)?;
            own.plan.files = vec![MARK.into()];
            let group = Group::new(cgroups, &own.cgroup);
            launch.namespaces = own.namespaces.clone();
            if request.netns.is_some() {
                launch.namespaces.net = Namespace::Fd;
                launch.fds = vec![FdRole::Namespace(NamespaceKind::Net)];
            }
            if request.userns.is_some() {
                launch.namespaces.user = Namespace::Fd;
                launch.fds.push(FdRole::Namespace(NamespaceKind::User));
                own.plan.idmapped_root = true;
            }
            (launch.uid_map, launch.gid_map) = (own.userns.uid.clone(), own.userns.gid.clone());
            launch.cgroup = places(&group);
            launch.oom_score_adj = own.oom_score_adj;
            launch.hooks = std::mem::take(&mut own.hooks);
            limits::warn(
                &request.id,
                &own.plan.process,
                own.oom_score_adj,
                &config.host,
            );
            let bundle = match launch.hooks == Hooks::default() {
                true => None,
                false => Some(for_hooks(&request.spec, &dir, &mut launch, &mut own)?),
            };
            let plan = std::mem::take(&mut own.plan);
            Ok(Prepared {
                state: State {
                    cgroup: group.path().to_owned(),
                    foreign: false,
                    tty: request.tty,
                    process: plan.process.clone(),
                    groups: request.spec.user.groups,
                    oom_score_adj: own.oom_score_adj,
                },
                launch,
                plan,
                group,
                dir,
                own: Some(own),
                bundle,
                netns: request.netns,
                userns: request.userns,
            })
        }
        Some((name, runtime)) => prepare_foreign(shared, request, launch, dir, (name, runtime)),
    }
}

/// What hooks look for: a bundle's config.json, and the container's root where that says it is.
fn for_hooks(
    spec: &ContainerSpec,
    dir: &Dir,
    launch: &mut Launch,
    own: &mut Lowered,
) -> Result<Vec<u8>, RuntimeError> {
    let state = serde_json::json!({
        "ociVersion": spec.oci.version(),
        "id": launch.id,
        "bundle": dir.path(),
        "annotations": spec.oci.annotations(),
    });
    launch.hooks.state = state.to_string();
    own.plan.root_at = dir.path().join("rootfs");
    let config = serde_json::to_vec(&spec.oci);
    Ok(config.map_err(|e| SpecError::Invalid(format!("config.json: {e}")))?)
}

/// For another OCI runtime: a bundle of the specification, with names and descriptors replaced by numbers and paths.
fn prepare_foreign(
    shared: &Shared,
    request: CreateRequest,
    mut launch: Launch,
    dir: Dir,
    (name, runtime): (&String, &OciRuntime),
) -> Result<Prepared, RuntimeError> {
    let config = &shared.config;
    let linux = request.spec.oci.linux().clone().unwrap_or_default();
    if request.userns.is_some() {
        return Err(RuntimeError::Unsupported(format!(
            "user namespaces in containers of the runtime {name}"
        )));
    }
    let group = Group::new(cgroups(&config.host)?, &lower::cgroup_path(&linux)?);
    let bundle = foreign::bundle(
        &request.spec,
        &request.rootfs,
        request.netns.as_ref(),
        request.tty,
        request.console_size,
    )?;
    let mut args = runtime.args.clone();
    if !args
        .iter()
        .any(|a| a == "--root" || a.starts_with("--root="))
    {
        let root = config.exec_root.join("runtimes").join(name);
        args.extend(["--root".into(), root.display().to_string()]);
    }
    launch.foreign = Some(Foreign {
        runtime: runtime.path.clone(),
        args,
        bundle: dir.path().to_owned(),
    });
    launch.namespaces = Namespaces::default();
    launch.cgroup = places(&group);
    let process = foreign::process(&bundle)?;
    let bytes =
        serde_json::to_vec(&bundle).map_err(|e| SpecError::Invalid(format!("config.json: {e}")))?;
    Ok(Prepared {
        launch,
        plan: Plan {
            rootfs: Some(request.rootfs),
            files: vec![MARK.into()],
            ..Plan::default()
        },
        state: State {
            cgroup: group.path().to_owned(),
            foreign: true,
            tty: request.tty,
            process,
            groups: request.spec.user.groups,
            oom_score_adj: None,
        },
        group,
        dir,
        own: None,
        bundle: Some(bytes),
        netns: request.netns,
        userns: None,
    })
}

fn cgroups(host: &HostFacts) -> Result<Arc<Cgroups>, RuntimeError> {
    let found = host.cgroups.clone();
    found
        .map(Arc::new)
        .ok_or_else(|| RuntimeError::Cgroup("no control groups are mounted on this host".into()))
}

fn places(group: &Group) -> Cgroup {
    Cgroup {
        v1: group.v1_dirs(),
        v2: group.v2_dir(),
        memory: group.memory_dir(),
    }
}

fn header(request: &CreateRequest, dir: &Dir) -> Launch {
    Launch {
        id: request.id.to_string(),
        socket_dir: dir.path().to_owned(),
        exit_path: dir.exit_path(),
        log: request.log.as_ref().map(|log| LogConfig {
            path: log.path.clone(),
            max_size: log.max_size.unwrap_or(0),
            max_files: log.max_files.max(1),
            compress: log.compress,
            buffer: log.buffer,
            attrs: log.attrs.clone(),
        }),
        stdio: Stdio {
            tty: request.tty,
            open_stdin: request.open_stdin,
            stdin_once: request.stdin_once,
            size: request.console_size.map(|s| (s.height, s.width)),
        },
        ..Launch::default()
    }
}

/// Makes files and cgroups.
fn set_up(shared: &Shared, prepared: &Prepared) -> Result<(), RuntimeError> {
    prepared.dir.make(&prepared.state)?;
    if let Some(bytes) = &prepared.bundle {
        write_bundle(prepared.dir.path(), bytes).map_err(|e| prepared.dir.failed(e))?;
    }
    if let Some(own) = &prepared.own {
        prepared.group.create().map_err(cgroup)?;
        prepared.group.apply(&own.limits).map_err(cgroup)?;
        if !shared.config.host.in_user_namespace {
            prepared
                .group
                .set_devices(&own.device_rules)
                .map_err(cgroup)?;
        }
    }
    Ok(())
}

/// Has the monitor forked.
fn launch(shared: &Shared, prepared: &Prepared) -> Result<Launched, RuntimeError> {
    // A foreign runtime opens the namespaces by our descriptors' paths while it creates the container.
    let given = prepared.netns.iter().chain(&prepared.userns);
    let fds: Vec<_> = match &prepared.own {
        Some(_) => given.map(AsFd::as_fd).collect(),
        None => Vec::new(),
    };
    shared
        .zygotes
        .launch(&prepared.launch, &prepared.plan, &fds)
}

fn write_bundle(dir: &Path, config: &[u8]) -> std::io::Result<()> {
    std::fs::write(dir.join("config.json"), config)?;
    std::fs::create_dir(dir.join("rootfs"))
}

/// The handle of a container that an earlier engine created.
pub(crate) fn found(
    shared: &Shared,
    id: &ContainerId,
    dir: Dir,
    state: &State,
    control: Control,
    pid: i32,
    started_at: i64,
) -> Result<Arc<Process>, RuntimeError> {
    Ok(Arc::new(Process {
        id: id.clone(),
        pid,
        dir,
        group: Group::new(cgroups(&shared.config.host)?, &state.cgroup),
        control,
        all_caps: shared.config.host.bounding_set,
        started_at: AtomicI64::new(started_at),
        ended: Mutex::new(None),
    }))
}
