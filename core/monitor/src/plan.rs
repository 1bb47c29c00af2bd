//! What to start: the launch header, which the monitor reads, and the plan, which only the container's init reads.
//!
//! Both travel as MessagePack with named fields; every field has a default, so that either side may be one version older.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_driver_api::MountPlan;
use serde::{Deserialize, Serialize};

/// The version of [`Launch`], [`Plan`] and the control protocol. A peer accepts this one and the one before.
pub const VERSION: u32 = 1;

/// The header of a launch: all that the monitor itself has to know. Kept small, since it stays in the monitor's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The container's ID; shown in the monitor's process title and handed to foreign runtimes.
    pub id: String,
    /// What the descriptors sent along are, in their order. [`FdRole::Control`] must be among them.
    pub fds: Vec<FdRole>,
    /// Set to run the container by another OCI runtime; the plan's mounts and process are then taken from its bundle.
    pub foreign: Option<Foreign>,
    /// An existing directory for `monitor.sock` (mode 0600), where later connections are made; see `client::connect`.
    pub socket_dir: PathBuf,
    /// Where the exit record is written (to a temporary name beside it, then renamed).
    pub exit_path: PathBuf,
    /// The container's log; `None` writes none.
    pub log: Option<LogConfig>,
    /// Standard streams.
    pub stdio: Stdio,
    /// The namespaces of the container.
    pub namespaces: Namespaces,
    /// Mapping of user IDs of the container's user namespace: it is made of them when it is new, and has them already
    /// when it is joined.
    pub uid_map: Vec<IdMap>,
    /// Mapping of group IDs, as `uid_map`.
    pub gid_map: Vec<IdMap>,
    /// The cgroups, already made and limited.
    pub cgroup: Cgroup,
    /// `oom_score_adj` of the container's init; execs have their own.
    pub oom_score_adj: Option<i32>,
    /// No container: make a user namespace with these maps (or take the one that came along) and a network namespace
    /// that belongs to it, answer
    /// [`Message::UserNs`](crate::protocol::Message::UserNs) and [`Message::Netns`](crate::protocol::Message::Netns) with
    /// their descriptors, and leave.
    pub only_namespaces: bool,
    /// Programs to run at points of the container's life.
    pub hooks: Hooks,
    /// How many descriptors from 3 on its first process keeps; only without a monitor.
    pub keep_fds: u32,
}

/// The hooks of the OCI runtime specification, by when they run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// The container's state as a JSON object; `status` and `pid` are added.
    pub state: String,
    /// On the host, once the container's mounts are there and before its root is changed (`prestart`, `createRuntime`).
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces at that same point; programs are the host's still.
    pub create_container: Vec<Hook>,
    /// In the container, as its user, before its program.
    pub start_container: Vec<Hook>,
    /// On the host, after the program was started.
    pub poststart: Vec<Hook>,
    /// On the host, after the container is gone.
    pub poststop: Vec<Hook>,
}

/// A program that is told the container's state on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Arguments, its name the first of them.
    pub args: Vec<String>,
    /// Environment, `NAME=value`; nothing is inherited.
    pub env: Vec<String>,
    /// Seconds after which it is killed and has failed.
    pub timeout: Option<u32>,
}

/// What a descriptor sent with a launch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FdRole {
    /// The monitor's end of a `SOCK_STREAM` pair: the first control connection.
    Control,
    /// A memfd that holds the encoded plan, when it does not fit into the message.
    Plan,
    /// The namespace to join for [`Namespace::Fd`] of that kind.
    Namespace(NamespaceKind),
}

/// The kinds of namespace a container may have for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceKind {
    /// `CLONE_NEWPID`
    Pid,
    /// `CLONE_NEWNET`
    Net,
    /// `CLONE_NEWIPC`
    Ipc,
    /// `CLONE_NEWUTS`
    Uts,
    /// `CLONE_NEWCGROUP`
    Cgroup,
    /// `CLONE_NEWUSER`
    User,
}

/// Where one namespace of a container comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// The one the zygote runs in.
    #[default]
    Host,
    /// A new one.
    New,
    /// The one whose descriptor was sent along as [`FdRole::Namespace`].
    Fd,
    /// The one at this path (`/proc/123/ns/ipc`), opened by the monitor.
    Path(PathBuf),
}

/// All namespaces of a container. The mount namespace is always new.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Process IDs. When it is not new, every process of the container's cgroup is killed as its first one ends.
    pub pid: Namespace,
    /// Network.
    pub net: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// cgroup; a new one is rooted in the container's own cgroups.
    pub cgroup: Namespace,
    /// Users.
    pub user: Namespace,
}

/// A line of `uid_map` or `gid_map`; see `user_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMap {
    /// First ID inside.
    pub inside: u32,
    /// First ID outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The container's cgroups. They exist and carry their limits and device rules already; removing them is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// One directory per v1 hierarchy.
    pub v1: Vec<PathBuf>,
    /// The directory in the v2 (or hybrid "unified") hierarchy.
    pub v2: Option<PathBuf>,
    /// The directory whose memory controller counts OOM kills (`memory.oom_control` of v1, `memory.events` of v2).
    pub memory: Option<PathBuf>,
}

/// A json-file log, byte for byte as Docker writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// The current file; rotated ones are `path.1` (newest), `path.2`, ...
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0 for never.
    pub max_size: u64,
    /// How many files are kept, the current one included; 0 counts as 1.
    pub max_files: u32,
    /// Compress rotated files; they have `.gz` at the end then.
    pub compress: bool,
    /// Bytes of entries that may wait for the disk before some are dropped. `None`: the container waits for it.
    pub buffer: Option<u64>,
    /// The JSON object of `attrs`, encoded (`{"tag":"x"}`); empty for none.
    pub attrs: String,
}

/// The container's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    /// A pseudo-terminal of the container's own devpts instead of pipes.
    pub tty: bool,
    /// Keep standard input open though nobody is attached. Otherwise it is `/dev/null` (without a terminal).
    pub open_stdin: bool,
    /// The first attached client that ends its input ends the container's.
    pub stdin_once: bool,
    /// Rows and columns at the start.
    pub size: Option<(u16, u16)>,
}

/// Another OCI runtime that makes the container from a bundle.
///
/// The monitor mounts [`Plan::rootfs`] at `bundle/rootfs` in a mount namespace of its own, then calls
/// `runtime args... create --bundle B --pid-file P [--console-socket S] ID`, later `start` and `delete --force`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Foreign {
    /// The runtime's executable.
    pub runtime: PathBuf,
    /// Arguments before the command (`--root DIR`, `--systemd-cgroup`).
    pub args: Vec<String>,
    /// The bundle: a directory with a `config.json` whose root path is `rootfs`.
    pub bundle: PathBuf,
}

/// What the container's init does: read by it alone, gone with its exec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Set in a UTS namespace that is new.
    pub hostname: Option<String>,
    /// Set in a UTS namespace that is new.
    pub domainname: Option<String>,
    /// The root file system, mounted in the container's mount namespace only.
    pub rootfs: Option<MountPlan>,
    /// Where it is mounted until it becomes the root; empty is over `/`.
    pub root_at: PathBuf,
    /// How the container's mount tree takes part in the host's mount events. `None` is `Slave`.
    pub rootfs_propagation: Option<Propagation>,
    /// Show the owners of the root's files as the container's user namespace maps them: root's on the disk as root's
    /// inside. Needs a kernel of 5.19 and a file system that can (`mount_setattr(2)`, ID-mapped mounts).
    pub idmapped_root: bool,
    /// Make the root read-only once everything is in place.
    pub readonly_root: bool,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes, made after the mounts; in a user namespace made outside and bound.
    pub devices: Vec<Device>,
    /// Symbolic links to make unless something is there: (path, what it points to).
    pub symlinks: Vec<(PathBuf, PathBuf)>,
    /// Empty files to make in the root file system unless something is there; also for a foreign runtime.
    pub files: Vec<PathBuf>,
    /// Paths hidden under `/dev/null` or an empty read-only tmpfs; those that do not exist are skipped.
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only; those that do not exist are skipped.
    pub readonly_paths: Vec<PathBuf>,
    /// Kernel parameters (`net.ipv4.ip_forward` or with slashes), set after the mounts.
    pub sysctls: BTreeMap<String, String>,
    /// The first process.
    pub process: Process,
}

/// Mount propagation; see `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Nothing in, nothing out.
    Private,
    /// In, not out.
    Slave,
    /// Both ways.
    Shared,
    /// As private, and cannot be bound.
    Unbindable,
}

/// One mount inside the container. [`Mount::parse`] makes one from the words of `mount -o` and the OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// The absolute path inside the container, resolved there and made when missing.
    pub target: PathBuf,
    /// `MOUNT_ATTR_*` bits to set; see `mount_setattr(2)`.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` bits to clear on a bind mount (`rw`, `dev`, `exec`, `suid`); elsewhere cleared is the default.
    pub attr_clear: u64,
    /// Apply `attr_set` and `attr_clear` to every mount below too (`rro`). Refused where the kernel cannot.
    pub attr_recursive: bool,
    /// Options of the file system (`size=64m`, `mode=755`); none for binds.
    pub data: Vec<String>,
    /// Propagation, and whether it is for the mounts below too.
    pub propagation: Option<(Propagation, bool)>,
    /// As [`Plan::idmapped_root`], of a bind or tree in a container with a user namespace (`idmap`).
    pub idmapped: bool,
    /// Fill an empty new mount with what the root file system has at the target (tmpfs, volume).
    pub copy_up: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// With the mounts below it (`rbind`).
        recursive: bool,
    },
    /// A new instance of a file system.
    Filesystem {
        /// The kernel's name of the type.
        fstype: String,
        /// The source, shown in `/proc/mounts`.
        source: String,
    },
    /// The container's cgroups: the unified tree on v2; a tmpfs with one mount per v1 hierarchy otherwise.
    Cgroup,
    /// A tree that a storage or volume driver describes.
    Tree(MountPlan),
}

impl Default for MountSource {
    fn default() -> Self {
        Self::Filesystem {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
        }
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// The node on the host, bound where nodes cannot be made. Empty: the same path.
    pub host_path: PathBuf,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, inside the container.
    pub uid: u32,
    /// Group, inside the container.
    pub gid: u32,
    /// Refuse what is at its path already and is another thing; otherwise that stays.
    pub exact: bool,
}

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character device.
    #[default]
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A process of a container: its first one, or an exec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Arguments; the first is the program, looked up in the container's `PATH` when it has no slash.
    pub argv: Vec<String>,
    /// Environment, `NAME=value`. `HOME` is added from the container's user database when missing.
    pub env: Vec<String>,
    /// Working directory; empty is `/`.
    pub cwd: PathBuf,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// Who it runs as.
    pub user: User,
    /// File mode creation mask; `None` is 022.
    pub umask: Option<u32>,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Filter of system calls; `None` is unconfined.
    pub seccomp: Option<Seccomp>,
    /// Resource limits. One that cannot be raised for want of `CAP_SYS_RESOURCE` is left at the hard limit.
    pub rlimits: Vec<Rlimit>,
    /// AppArmor profile for the exec.
    pub apparmor: Option<String>,
    /// SELinux label for the exec.
    pub selinux: Option<String>,
    /// Give it a session keyring of its own.
    pub new_keyring: bool,
    /// I/O priority: class (1 realtime, 2 best effort, 3 idle) and level.
    pub io_priority: Option<(u8, u8)>,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// By number, nothing looked up (but `HOME`).
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// By Docker's `USER[:GROUP]`, each a name or a number, looked up in `/etc/passwd` and `/etc/group` of the container.
    /// An empty user is root. Groups that name the user are supplementary ones unless a group is given.
    Name {
        /// `USER[:GROUP]`.
        spec: String,
        /// More supplementary groups (`--group-add`), names or numbers.
        groups: Vec<String>,
    },
}

impl Default for User {
    fn default() -> Self {
        Self::Ids {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }
}

/// The five capability sets; bit n is capability n of `capabilities(7)`. What the monitor lacks itself is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// A compiled seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seccomp {
    /// `struct sock_filter[]`, in host byte order.
    #[serde(with = "serde_bytes")]
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// A process to run in a container that runs already, in the container's namespaces and cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecPlan {
    /// The process.
    pub process: Process,
    /// `oom_score_adj` of it.
    pub oom_score_adj: Option<i32>,
    /// Rows and columns of its terminal.
    pub size: Option<(u16, u16)>,
}
