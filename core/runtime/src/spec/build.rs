//! The specification as a whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gantry_sys::caps::{self, CapSet};
use gantry_sys::host::HostFacts;
use oci_spec::runtime as oci;

use super::{
    ContainerSpec, NamespaceMode, SeccompChoice, SpecError, SpecInput, UserSpec, devices, mounts,
    process, resources, sysctl,
};
use crate::IdMap;
use crate::cdi::Devices;
use crate::seccomp::Seccomp;

/// Paths that Docker hides in containers, beside the CPUs' thermal counters.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that Docker makes read-only in containers.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a specification depends on beside the container.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) host: &'a HostFacts,
    pub(crate) seccomp: &'a Seccomp,
    /// The engine's parent cgroup.
    pub(crate) cgroup_parent: &'a str,
    /// `/sys`, for the CPUs' thermal counters.
    pub(crate) sys: &'a Path,
}

pub(crate) fn build(input: &SpecInput, to: &Context<'_>) -> Result<ContainerSpec, SpecError> {
    if input.argv.is_empty() {
        return Err(SpecError::Invalid("no command specified".into()));
    }
    let caps = capabilities(input, to.host)?;
    let mut spec = oci::Spec::default();
    spec.set_version("1.0.2".into());
    let mut root = oci::Root::default();
    root.set_path("rootfs".into());
    root.set_readonly(Some(input.readonly_root));
    spec.set_root(Some(root));
    spec.set_process(Some(process::build(input, caps)?));
    spec.set_mounts(Some(mounts::build(input)?));
    let uts = input.namespaces.uts == NamespaceMode::Private;
    spec.set_hostname((uts && !input.hostname.is_empty()).then(|| input.hostname.clone()));
    let annotations: HashMap<_, _> = input.annotations.clone().into_iter().collect();
    spec.set_annotations((!annotations.is_empty()).then_some(annotations));
    spec.set_linux(Some(linux(input, to, caps)?));
    let mut made = ContainerSpec {
        oci: spec,
        user: UserSpec {
            name: input.user.clone(),
            groups: input.additional_groups.clone(),
        },
    };
    if !input.cdi_devices.is_empty() {
        let devices = Devices::discover(&input.cdi_dirs);
        for (path, reason) in &devices.errors {
            tracing::warn!("CDI specification {}: {reason}", path.display());
        }
        devices.inject(&mut made, &input.cdi_devices)?;
    }
    Ok(made)
}

fn capabilities(input: &SpecInput, host: &HostFacts) -> Result<CapSet, SpecError> {
    if input.privileged {
        return Ok(host.bounding_set);
    }
    caps::tweak(
        CapSet::docker_default(),
        &input.cap_add,
        &input.cap_drop,
        host.bounding_set,
    )
    .map_err(|e| SpecError::Invalid(e.to_string()))
}

fn linux(input: &SpecInput, to: &Context<'_>, caps: CapSet) -> Result<oci::Linux, SpecError> {
    let mut linux = oci::Linux::default();
    let devices = devices::collect(input)?;
    let mut resources = resources::to_oci(&input.resources)?;
    resources.set_devices(Some(devices.rules));
    linux.set_resources(Some(resources));
    linux.set_devices((!devices.nodes.is_empty()).then_some(devices.nodes));
    linux.set_namespaces(Some(namespaces(input)));
    if let Some(maps) = &input.userns {
        linux.set_uid_mappings(Some(id_mappings(&maps.uid)?));
        linux.set_gid_mappings(Some(id_mappings(&maps.gid)?));
    }
    linux.set_cgroups_path(Some(cgroups_path(input, to.cgroup_parent)));
    linux.set_sysctl(sysctls(input, to.host)?);
    linux.set_rootfs_propagation(mounts::root_propagation(&input.mounts).map(str::to_owned));
    let (masked, readonly) = protected_paths(input, to.sys);
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(readonly));
    let profile = match &input.seccomp {
        SeccompChoice::Unconfined => None,
        SeccompChoice::Default if input.privileged => None,
        SeccompChoice::Default | SeccompChoice::Builtin => Some(None),
        SeccompChoice::Profile(json) => Some(Some(json.as_str())),
    };
    let filter = profile
        .map(|p| to.seccomp.filter(p, caps))
        .transpose()?
        .flatten();
    linux.set_seccomp(filter.map(|f| (*f).clone()));
    Ok(linux)
}

/// The paths that Docker hides in a container that is not privileged; `sys` is `/sys`.
#[must_use]
pub fn default_masked_paths(sys: &Path) -> Vec<String> {
    let thermal = HostFacts::thermal_throttle_paths(sys);
    let thermal = thermal.iter().map(|p| p.display().to_string());
    MASKED
        .iter()
        .map(|&p| p.to_owned())
        .chain(thermal)
        .collect()
}

/// The paths that Docker makes read-only in a container that is not privileged.
#[must_use]
pub fn default_readonly_paths() -> Vec<String> {
    READONLY.iter().map(|&p| p.to_owned()).collect()
}

/// Masked and read-only paths; a privileged container has none but those it asks for.
fn protected_paths(input: &SpecInput, sys: &Path) -> (Vec<String>, Vec<String>) {
    let choose = |asked: &Option<Vec<String>>, default: &dyn Fn() -> Vec<String>| match asked {
        Some(paths) => paths.clone(),
        None if input.privileged => Vec::new(),
        None => default(),
    };
    (
        choose(&input.masked_paths, &|| default_masked_paths(sys)),
        choose(&input.readonly_paths, &default_readonly_paths),
    )
}

fn namespaces(input: &SpecInput) -> Vec<oci::LinuxNamespace> {
    use oci::LinuxNamespaceType as T;
    let modes = &input.namespaces;
    let mount = (T::Mount, &NamespaceMode::Private);
    let user = match input.userns {
        Some(_) => &NamespaceMode::Private,
        None => &NamespaceMode::Host,
    };
    [
        mount,
        (T::User, user),
        (T::Network, &modes.network),
        (T::Uts, &modes.uts),
        (T::Pid, &modes.pid),
        (T::Ipc, &modes.ipc),
        (T::Cgroup, &modes.cgroup),
    ]
    .into_iter()
    .filter_map(|(kind, mode)| {
        let mut namespace = oci::LinuxNamespace::default();
        namespace.set_typ(kind);
        match mode {
            NamespaceMode::Host => return None,
            NamespaceMode::Private => {}
            NamespaceMode::Join(path) => {
                namespace.set_path(Some(path.clone()));
            }
        }
        Some(namespace)
    })
    .collect()
}

fn id_mappings(maps: &[IdMap]) -> Result<Vec<oci::LinuxIdMapping>, SpecError> {
    let one = |m: &IdMap| {
        oci::LinuxIdMappingBuilder::default()
            .container_id(m.inside)
            .host_id(m.outside)
            .size(m.count)
            .build()
    };
    Ok(maps.iter().map(one).collect::<Result<_, _>>()?)
}

fn cgroups_path(input: &SpecInput, parent: &str) -> PathBuf {
    let parent = input.cgroup_parent.as_deref().unwrap_or(parent);
    let mut path = PathBuf::from("/");
    path.extend(Path::new(parent).components().filter(|c| {
        // A parent that climbs would leave the engine's own tree.
        matches!(c, std::path::Component::Normal(_))
    }));
    path.join(input.id.as_str())
}

/// The container's settings over those Docker makes in a network namespace of the container's own: ports below 1024
/// and ping sockets for everyone.
fn sysctls(
    input: &SpecInput,
    host: &HostFacts,
) -> Result<Option<HashMap<String, String>>, SpecError> {
    for name in input.sysctls.keys() {
        sysctl::check(name, &input.namespaces)?;
    }
    let mut all = HashMap::new();
    if input.namespaces.network == NamespaceMode::Private {
        all.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        // Root of a user namespace can only name groups that it has.
        if !host.in_user_namespace && input.userns.is_none() {
            all.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
        }
    }
    if input.namespaces.uts == NamespaceMode::Private && !input.domainname.is_empty() {
        all.insert("kernel.domainname".into(), input.domainname.clone());
    }
    all.extend(input.sysctls.clone());
    Ok((!all.is_empty()).then_some(all))
}
