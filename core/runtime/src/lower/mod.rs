//! From a specification to the monitor's plan. What Gantry's own runtime cannot honour is refused here.

mod devices;
mod hooks;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_driver_api::MountPlan;
use gantry_monitor::plan::{
    Hooks, IdMap, Mount, MountSource, Namespace, Namespaces, Plan, Propagation,
};
use gantry_sys::cgroup::{self, DeviceRule};
use oci_spec::runtime as oci;

use crate::UserNs;
use crate::seccomp::Seccomp;
use crate::spec::{ContainerSpec, SpecError, resources};
pub(crate) use process::bare_process;

/// A specification taken apart.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) plan: Plan,
    pub(crate) namespaces: Namespaces,
    pub(crate) limits: cgroup::Limits,
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) cgroup: PathBuf,
    pub(crate) oom_score_adj: Option<i32>,
    /// Programs to run at points of its life; their state is the caller's to fill in.
    pub(crate) hooks: Hooks,
    /// The numbers of its user namespace, when it has one.
    pub(crate) userns: UserNs,
}

pub(crate) fn lower(
    spec: &ContainerSpec,
    rootfs: MountPlan,
    seccomp: &Seccomp,
) -> Result<Lowered, SpecError> {
    let oci = &spec.oci;
    let linux = oci.linux().clone().unwrap_or_default();
    refuse(oci, &linux)?;
    let source = oci
        .process()
        .as_ref()
        .ok_or_else(|| SpecError::Invalid("no process in the specification".into()))?;
    let mounts: Vec<Mount> = oci
        .mounts()
        .iter()
        .flatten()
        .map(mount)
        .collect::<Result<_, _>>()?;
    // A /dev of the host's is not to be changed.
    let own_dev = !mounts
        .iter()
        .any(|m| m.target == Path::new("/dev") && matches!(m.source, MountSource::Bind { .. }));
    let mut sysctls: BTreeMap<_, _> = linux.sysctl().clone().into_iter().flatten().collect();
    // Root of a user namespace may not write the setting, but make the call that it stands for.
    let domainname = sysctls.remove("kernel.domainname");
    let domainname = oci.domainname().clone().or(domainname);
    let plan = Plan {
        hostname: oci.hostname().clone(),
        domainname,
        rootfs: Some(rootfs),
        rootfs_propagation: linux
            .rootfs_propagation()
            .as_deref()
            .map(propagation)
            .transpose()?,
        readonly_root: oci.root().as_ref().and_then(oci::Root::readonly) == Some(true),
        mounts,
        devices: if own_dev {
            devices::devices(&linux)?
        } else {
            Vec::new()
        },
        symlinks: if own_dev {
            devices::symlinks()
        } else {
            Vec::new()
        },
        masked_paths: paths(linux.masked_paths().as_deref()),
        readonly_paths: paths(linux.readonly_paths().as_deref()),
        sysctls,
        process: process::process(source, &linux, &spec.user, seccomp)?,
        ..Plan::default()
    };
    let resources = linux.resources().clone().unwrap_or_default();
    Ok(Lowered {
        plan,
        namespaces: namespaces(linux.namespaces().as_deref().unwrap_or_default())?,
        limits: resources::from_oci(&resources)?,
        device_rules: devices::device_rules(resources.devices().as_deref().unwrap_or_default())?,
        cgroup: cgroup_path(&linux)?,
        oom_score_adj: source.oom_score_adj(),
        hooks: hooks::hooks(oci.hooks().as_ref())?,
        userns: UserNs {
            uid: id_maps(linux.uid_mappings().as_deref()),
            gid: id_maps(linux.gid_mappings().as_deref()),
        },
    })
}

/// The container's cgroup, relative to the hierarchies' roots.
pub(crate) fn cgroup_path(linux: &oci::Linux) -> Result<PathBuf, SpecError> {
    let path = linux.cgroups_path().clone().unwrap_or_default();
    if path.components().count() < 2 || path.to_string_lossy().contains(':') {
        return Err(SpecError::Invalid(format!(
            "cgroupsPath {path:?}: want an absolute path"
        )));
    }
    Ok(path)
}

/// Parts of the format that would be ignored below.
fn refuse(spec: &oci::Spec, linux: &oci::Linux) -> Result<(), SpecError> {
    let process = spec.process().as_ref();
    let there = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", linux.time_offsets().is_some()),
        ("linux.mountLabel", linux.mount_label().is_some()),
        (
            "process.scheduler",
            process.is_some_and(|p| p.scheduler().is_some()),
        ),
        (
            "process.ioPriority",
            process.is_some_and(|p| p.io_priority().is_some()),
        ),
    ];
    match there.iter().find(|(_, there)| *there) {
        Some((name, _)) => Err(SpecError::Unsupported((*name).into())),
        None => Ok(()),
    }
}

fn id_maps(list: Option<&[oci::LinuxIdMapping]>) -> Vec<IdMap> {
    let one = |m: &oci::LinuxIdMapping| IdMap {
        inside: m.container_id(),
        outside: m.host_id(),
        count: m.size(),
    };
    list.unwrap_or_default().iter().map(one).collect()
}

fn paths(list: Option<&[String]>) -> Vec<PathBuf> {
    list.unwrap_or_default().iter().map(PathBuf::from).collect()
}

fn mount(mount: &oci::Mount) -> Result<Mount, SpecError> {
    // The option `idmap` means the container's own maps.
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(SpecError::Unsupported("mounts with ID mappings".into()));
    }
    let source = mount.source().clone().unwrap_or_default();
    Ok(Mount::parse(
        mount.typ().as_deref().unwrap_or("bind"),
        &source.to_string_lossy(),
        mount.destination(),
        mount.options().iter().flatten(),
    ))
}

fn propagation(word: &str) -> Result<Propagation, SpecError> {
    Ok(match word {
        "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::Slave,
        "shared" | "rshared" => Propagation::Shared,
        "unbindable" | "runbindable" => Propagation::Unbindable,
        _ => return Err(SpecError::Invalid(format!("rootfsPropagation {word}"))),
    })
}

fn namespaces(list: &[oci::LinuxNamespace]) -> Result<Namespaces, SpecError> {
    use oci::LinuxNamespaceType as T;
    let mut all = Namespaces::default();
    let mut mount = false;
    for namespace in list {
        let from = match namespace.path() {
            Some(path) => Namespace::Path(path.clone()),
            None => Namespace::New,
        };
        match namespace.typ() {
            T::Mount if from == Namespace::New => mount = true,
            T::Pid => all.pid = from,
            T::Network => all.net = from,
            T::Ipc => all.ipc = from,
            T::Uts => all.uts = from,
            T::Cgroup => all.cgroup = from,
            T::User => all.user = from,
            T::Mount | T::Time => {
                return Err(SpecError::Unsupported(format!(
                    "joining or making a {} namespace",
                    namespace.typ()
                )));
            }
        }
    }
    if !mount {
        return Err(SpecError::Unsupported(
            "a container without a mount namespace".into(),
        ));
    }
    Ok(all)
}
