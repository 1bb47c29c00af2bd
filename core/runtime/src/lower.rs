//! From a specification to the monitor's plan. What Gantry's own runtime cannot honour is refused here.

use std::path::{Path, PathBuf};

use gantry_driver_api::MountPlan;
use gantry_monitor::plan::{
    self, Device, DeviceKind, Mount, Namespace, Namespaces, Plan, Process, Propagation, Rlimit,
    User,
};
use gantry_sys::caps;
use gantry_sys::cgroup::{self, DeviceAccess, DeviceRule};
use oci_spec::runtime as oci;

use crate::seccomp::Seccomp;
use crate::spec::{ContainerSpec, SpecError, UserSpec, resources};

/// Devices every container has: (path, major, minor).
const NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What any container may do with devices, beyond its specification: make nodes, use those above and its terminals.
const RULES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

const SYMLINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// A specification taken apart.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) plan: Plan,
    pub(crate) namespaces: Namespaces,
    pub(crate) limits: cgroup::Limits,
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) cgroup: PathBuf,
    pub(crate) oom_score_adj: Option<i32>,
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
    let own_dev = !mounts.iter().any(|m| {
        m.target == Path::new("/dev") && matches!(m.source, plan::MountSource::Bind { .. })
    });
    let plan = Plan {
        hostname: oci.hostname().clone(),
        domainname: oci.domainname().clone(),
        rootfs: Some(rootfs),
        rootfs_propagation: linux
            .rootfs_propagation()
            .as_deref()
            .map(propagation)
            .transpose()?,
        readonly_root: oci.root().as_ref().and_then(oci::Root::readonly) == Some(true),
        mounts,
        devices: if own_dev {
            devices(&linux)?
        } else {
            Vec::new()
        },
        symlinks: if own_dev { symlinks() } else { Vec::new() },
        masked_paths: paths(linux.masked_paths().as_deref()),
        readonly_paths: paths(linux.readonly_paths().as_deref()),
        sysctls: linux.sysctl().clone().into_iter().flatten().collect(),
        process: process(source, &linux, &spec.user, seccomp)?,
    };
    let resources = linux.resources().clone().unwrap_or_default();
    Ok(Lowered {
        plan,
        namespaces: namespaces(linux.namespaces().as_deref().unwrap_or_default())?,
        limits: resources::from_oci(&resources)?,
        device_rules: device_rules(resources.devices().as_deref().unwrap_or_default())?,
        cgroup: cgroup_path(&linux)?,
        oom_score_adj: source.oom_score_adj(),
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
        ("hooks", spec.hooks().is_some()),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", linux.time_offsets().is_some()),
        ("linux.mountLabel", linux.mount_label().is_some()),
        ("linux.uidMappings", linux.uid_mappings().is_some()),
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

fn paths(list: Option<&[String]>) -> Vec<PathBuf> {
    list.unwrap_or_default().iter().map(PathBuf::from).collect()
}

fn mount(mount: &oci::Mount) -> Result<Mount, SpecError> {
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

fn symlinks() -> Vec<(PathBuf, PathBuf)> {
    SYMLINKS
        .iter()
        .map(|(at, to)| (PathBuf::from(at), PathBuf::from(to)))
        .collect()
}

fn devices(linux: &oci::Linux) -> Result<Vec<Device>, SpecError> {
    let given = linux.devices().iter().flatten();
    let mut all: Vec<Device> = given.map(device).collect::<Result<_, _>>()?;
    for (path, major, minor) in NODES {
        let path = PathBuf::from(path);
        if !all.iter().any(|d| d.path == path) {
            all.push(Device {
                path,
                major,
                minor,
                mode: 0o666,
                ..Device::default()
            });
        }
    }
    Ok(all)
}

fn device(device: &oci::LinuxDevice) -> Result<Device, SpecError> {
    let kind = match device.typ() {
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Char,
        oci::LinuxDeviceType::B => DeviceKind::Block,
        oci::LinuxDeviceType::P => DeviceKind::Fifo,
        oci::LinuxDeviceType::A => {
            return Err(SpecError::Invalid(format!(
                "device {:?} of kind a",
                device.path()
            )));
        }
    };
    Ok(Device {
        path: device.path().clone(),
        host_path: PathBuf::new(),
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn number(n: i64) -> Result<u32, SpecError> {
    u32::try_from(n).map_err(|_| SpecError::Invalid(format!("invalid device number {n}")))
}

/// The specification's rules, then what every container may do.
fn device_rules(rules: &[oci::LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, SpecError> {
    let mut all = Vec::with_capacity(rules.len() + RULES.len());
    for rule in rules {
        // -1 is the old way to say "any".
        let any = |n: Option<i64>| n.filter(|n| *n != -1).map(number).transpose();
        let access = rule.access().as_deref().unwrap_or("rwm");
        all.push(DeviceRule {
            allow: rule.allow(),
            kind: match rule.typ() {
                None | Some(oci::LinuxDeviceType::A) => cgroup::DeviceKind::All,
                Some(oci::LinuxDeviceType::B) => cgroup::DeviceKind::Block,
                Some(_) => cgroup::DeviceKind::Char,
            },
            major: any(rule.major())?,
            minor: any(rule.minor())?,
            access: DeviceAccess::parse(access)
                .ok_or_else(|| SpecError::Invalid(format!("invalid device access: {access}")))?,
        });
    }
    all.extend(RULES.iter().filter_map(|r| DeviceRule::parse(r, true)));
    Ok(all)
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
            T::Mount | T::User | T::Time => {
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

fn process(
    source: &oci::Process,
    linux: &oci::Linux,
    user: &UserSpec,
    seccomp: &Seccomp,
) -> Result<Process, SpecError> {
    let program = linux
        .seccomp()
        .as_ref()
        .map(|filter| seccomp.program(filter))
        .transpose()?;
    Ok(Process {
        user: lower_user(source.user(), user),
        seccomp: program.map(|p| plan::Seccomp {
            program: p.bytes.clone(),
            flags: p.flags,
        }),
        ..bare_process(source)?
    })
}

/// A process without its user and filter.
pub(crate) fn bare_process(source: &oci::Process) -> Result<Process, SpecError> {
    let rlimits = source.rlimits().iter().flatten();
    Ok(Process {
        argv: source.args().clone().unwrap_or_default(),
        env: source.env().clone().unwrap_or_default(),
        cwd: source.cwd().clone(),
        create_cwd: true,
        umask: source.user().umask(),
        capabilities: capabilities(source.capabilities().as_ref())?,
        no_new_privileges: source.no_new_privileges() == Some(true),
        rlimits: rlimits
            .map(|limit| Rlimit {
                resource: resource(limit.typ()),
                soft: limit.soft(),
                hard: limit.hard(),
            })
            .collect(),
        apparmor: source.apparmor_profile().clone(),
        selinux: source.selinux_label().clone(),
        new_keyring: true,
        ..Process::default()
    })
}

/// A specification made by hand may give numbers; Docker's are looked up inside, numbers too (for their groups).
fn lower_user(oci: &oci::User, named: &UserSpec) -> User {
    let groups = oci.additional_gids().clone().unwrap_or_default();
    if named.name.is_empty() && (oci.uid() != 0 || oci.gid() != 0 || !groups.is_empty()) {
        return User::Ids {
            uid: oci.uid(),
            gid: oci.gid(),
            groups,
        };
    }
    User::Name {
        spec: named.name.clone(),
        groups: named.groups.clone(),
    }
}

fn capabilities(sets: Option<&oci::LinuxCapabilities>) -> Result<plan::Capabilities, SpecError> {
    let Some(sets) = sets else {
        return Ok(plan::Capabilities::default());
    };
    let bits = |set: &Option<oci::Capabilities>| -> Result<u64, SpecError> {
        set.iter().flatten().try_fold(0, |bits, cap| {
            let bit = caps::bit(&cap.to_string())
                .ok_or_else(|| SpecError::Unsupported(format!("capability {cap}")))?;
            Ok(bits | 1 << bit)
        })
    };
    Ok(plan::Capabilities {
        bounding: bits(sets.bounding())?,
        effective: bits(sets.effective())?,
        permitted: bits(sets.permitted())?,
        inheritable: bits(sets.inheritable())?,
        ambient: bits(sets.ambient())?,
    })
}

/// `RLIMIT_*` of the generic architectures, x86 and ARM among them.
fn resource(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as T;
    match kind {
        T::RlimitCpu => 0,
        T::RlimitFsize => 1,
        T::RlimitData => 2,
        T::RlimitStack => 3,
        T::RlimitCore => 4,
        T::RlimitRss => 5,
        T::RlimitNproc => 6,
        T::RlimitNofile => 7,
        T::RlimitMemlock => 8,
        T::RlimitAs => 9,
        T::RlimitLocks => 10,
        T::RlimitSigpending => 11,
        T::RlimitMsgqueue => 12,
        T::RlimitNice => 13,
        T::RlimitRtprio => 14,
        T::RlimitRttime => 15,
    }
}
