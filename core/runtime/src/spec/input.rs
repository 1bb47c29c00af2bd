//! The plain description that the engine fills in. [`SpecInput::new`] has Docker's defaults; every field is public.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_model::ContainerId;

use crate::UserNs;

/// A container's process and surroundings, before defaults are added.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecInput {
    /// The container.
    pub id: ContainerId,
    /// Entrypoint and command together; not empty.
    pub argv: Vec<String>,
    /// `NAME=value` of image and container, later ones winning; `NAME` alone unsets. PATH, HOSTNAME, TERM (with a
    /// terminal) and HOME are added where missing.
    pub env: Vec<String>,
    /// Made if missing; empty: `/`.
    pub cwd: String,
    /// `name|uid[:group|gid]`; empty: root.
    pub user: String,
    /// Names or numbers (`--group-add`).
    pub additional_groups: Vec<String>,
    /// Host name inside; empty leaves it (UTS mode host).
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: String,
    /// Which namespaces are new, shared or the host's.
    pub namespaces: Namespaces,
    /// The numbers of its user namespace; `None`: the host's.
    pub userns: Option<UserNs>,
    /// `CAP_NET_ADMIN`, `net_admin` or `ALL`.
    pub cap_add: Vec<String>,
    /// As `cap_add`.
    pub cap_drop: Vec<String>,
    /// All capabilities the engine has, all devices, writable /sys and cgroups, no masks, no seccomp by default.
    pub privileged: bool,
    /// The system call filter.
    pub seccomp: SeccompChoice,
    /// AppArmor profile for the process.
    pub apparmor_profile: Option<String>,
    /// `no_new_privs` for the process.
    pub no_new_privileges: bool,
    /// `None`: Docker's; empty: none.
    pub masked_paths: Option<Vec<String>>,
    /// `None`: Docker's; empty: none.
    pub readonly_paths: Option<Vec<String>>,
    /// Root mounted read-only.
    pub readonly_root: bool,
    /// Binds and volumes (with /etc/hosts and its siblings), already resolved to host paths. Sorted here so that a
    /// mount comes after those it lies under.
    pub mounts: Vec<MountInput>,
    /// tmpfs mounts.
    pub tmpfs: Vec<TmpfsInput>,
    /// /dev/shm.
    pub shm: ShmInput,
    /// `--device`; a host directory stands for every device below it.
    pub devices: Vec<DeviceInput>,
    /// Devices by their CDI names, `vendor.com/class=name`.
    pub cdi_devices: Vec<String>,
    /// Directories of CDI specifications.
    pub cdi_dirs: Vec<PathBuf>,
    /// `c 10:200 rwm` lines.
    pub device_cgroup_rules: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// -1000..=1000.
    pub oom_score_adj: i32,
    /// A static init program on the host, bound to `/sbin/docker-init` and put before `argv`.
    pub init: Option<PathBuf>,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// Replaces the runtime's configured parent.
    pub cgroup_parent: Option<String>,
    /// `writable-cgroups=true`: cgroup mount not read-only.
    pub writable_cgroups: bool,
}

impl SpecInput {
    /// A container that runs `argv` as root with Docker's defaults.
    #[must_use]
    pub fn new(id: ContainerId, argv: Vec<String>) -> Self {
        Self {
            hostname: id.short().to_owned(),
            id,
            argv,
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            additional_groups: Vec::new(),
            domainname: String::new(),
            namespaces: Namespaces::default(),
            userns: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            seccomp: SeccompChoice::Default,
            apparmor_profile: None,
            no_new_privileges: false,
            masked_paths: None,
            readonly_paths: None,
            readonly_root: false,
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            shm: ShmInput::Private {
                size: ShmInput::DEFAULT_SIZE,
            },
            devices: Vec::new(),
            cdi_devices: Vec::new(),
            cdi_dirs: Vec::new(),
            device_cgroup_rules: Vec::new(),
            resources: Resources::default(),
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            oom_score_adj: 0,
            init: None,
            tty: false,
            annotations: BTreeMap::new(),
            cgroup_parent: None,
            writable_cgroups: false,
        }
    }
}

/// One namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another process: `/proc/<pid>/ns/<kind>`.
    Join(PathBuf),
}

/// The namespaces of a container. The mount namespace is always new.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Processes.
    pub pid: NamespaceMode,
    /// System V IPC and POSIX queues.
    pub ipc: NamespaceMode,
    /// Host name.
    pub uts: NamespaceMode,
    /// Network; a descriptor given to `create` goes before this.
    pub network: NamespaceMode,
    /// Cgroup root.
    pub cgroup: NamespaceMode,
}

/// The seccomp filter of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompChoice {
    /// Docker's default profile, or none for a privileged container.
    #[default]
    Default,
    /// Docker's default profile, privileged or not (`seccomp=builtin`).
    Builtin,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// How mounts spread between a mount and its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the words of mount(8)")]
pub enum Propagation {
    Private,
    #[default]
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

/// A bind mount: a volume, a host path or a file the engine wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInput {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container; made if missing.
    pub target: String,
    /// No writes.
    pub read_only: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Show owners as the container's user namespace maps them (root's as root's); without one, as they are.
    pub idmapped: bool,
    /// Leave out mounts below the source.
    pub non_recursive: bool,
    /// Read-only covers only the top mount (`ReadOnlyNonRecursive`).
    pub read_only_non_recursive: bool,
    /// Fail where the kernel cannot make it recursively read-only (`ReadOnlyForceRecursive`).
    pub read_only_force_recursive: bool,
}

impl MountInput {
    /// A private, writable, recursive bind.
    #[must_use]
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            read_only: false,
            propagation: Propagation::default(),
            idmapped: false,
            non_recursive: false,
            read_only_non_recursive: false,
            read_only_force_recursive: false,
        }
    }
}

/// A tmpfs inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsInput {
    /// Absolute path in the container.
    pub target: String,
    /// Options as `--tmpfs` takes them (`size=64m`, `mode=1777`, `exec`), added to `noexec,nosuid,nodev`.
    pub options: Vec<String>,
}

/// What /dev/shm is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShmInput {
    /// A tmpfs of its own, with its size in bytes.
    Private {
        /// Bytes.
        size: u64,
    },
    /// None (IPC mode `none`).
    None,
    /// Bind of a host path: the host's own (`ipc=host`) or another container's.
    Bind(PathBuf),
}

impl ShmInput {
    /// 64 MiB.
    pub const DEFAULT_SIZE: u64 = 64 << 20;
}

/// A device of the host given to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInput {
    /// Device node, or a directory of such.
    pub path_on_host: PathBuf,
    /// Where it appears.
    pub path_in_container: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// A `setrlimit` of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `core`, ...
    pub name: String,
    /// -1: unlimited.
    pub soft: i64,
    /// -1: unlimited.
    pub hard: i64,
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkioDevice {
    /// Device node on the host.
    pub path: PathBuf,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// Limits in Docker's terms; `None` leaves what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Bytes; -1 unlimited.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 unlimited. `None` with `memory` set: twice the memory.
    pub memory_swap: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation: Option<i64>,
    /// 0..=100, v1 only.
    pub memory_swappiness: Option<u64>,
    /// Bytes of buffers of TCP sockets (cgroup v1).
    pub kernel_memory_tcp: Option<i64>,
    /// v1 only.
    pub oom_kill_disable: Option<bool>,
    /// Relative weight, 2..=262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period; -1 unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds, v1 only.
    pub cpu_realtime_runtime: Option<i64>,
    /// Microseconds, v1 only.
    pub cpu_realtime_period: Option<u64>,
    /// `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// As `cpuset_cpus`.
    pub cpuset_mems: Option<String>,
    /// -1 (or 0) unlimited.
    pub pids_limit: Option<i64>,
    /// 10..=1000.
    pub blkio_weight: Option<u16>,
    /// Weight per device.
    pub blkio_weight_device: Vec<BlkioDevice>,
    /// Bytes a second.
    pub blkio_read_bps: Vec<BlkioDevice>,
    /// Bytes a second.
    pub blkio_write_bps: Vec<BlkioDevice>,
    /// Operations a second.
    pub blkio_read_iops: Vec<BlkioDevice>,
    /// Operations a second.
    pub blkio_write_iops: Vec<BlkioDevice>,
}
