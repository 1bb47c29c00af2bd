//! What the container's first process does between clone and exec: its root, its mounts, its devices, itself.

mod bench;
mod copy_up;
mod devices;
mod mounts;
mod overlay;
mod root;

mod terminal;
mod tree;
mod userns;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_monitor::hooks;
use gantry_monitor::plan::{Launch, Namespace, NamespaceKind, Namespaces, Plan, Propagation};
use gantry_monitor::protocol::{Failure, MAX_MESSAGE, ProtocolError, Stage, from_bytes};
use rustix::fs::OFlags;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::fault::{At, Step, plain};
use crate::process::{self, Labels, Prepared};
use crate::sync::{self, Packet};
use crate::sys;
use mounts::Context;
pub(crate) use terminal::{
    control as control_terminal, open as open_terminal, set_size as set_terminal_size,
};

pub(crate) use userns::{make as make_user_ns, own as own_streams, owner as user_ns_owner};

/// An encoded plan, as it came.
#[derive(Debug)]
pub(crate) enum PlanBytes<'a> {
    /// In the message.
    Inline(&'a [u8]),
    /// In a memfd.
    File(OwnedFd),
}

impl PlanBytes<'_> {
    /// Reads it.
    pub(crate) fn decode(&self) -> Step<Plan> {
        let bad = |e: ProtocolError| plain(Stage::Plan, format!("read plan: {e}"));
        match self {
            Self::Inline(bytes) => from_bytes(bytes).map_err(bad),
            Self::File(fd) => {
                let size = rustix::fs::fstat(fd).map_or(0, |s| s.st_size as usize);
                if size > MAX_MESSAGE {
                    return Err(bad(ProtocolError::TooLong(size)));
                }
                let mut bytes = vec![0; size];
                let n = rustix::io::pread(fd, &mut bytes[..], 0)
                    .at(Stage::Plan, || "read plan".into())?;
                from_bytes(&bytes[..n]).map_err(bad)
            }
        }
    }
}

/// What the monitor made for the init before it cloned it.
#[derive(Debug)]
pub(crate) struct Inherited<'a> {
    /// The launch header.
    pub(crate) launch: &'a Launch,
    /// The encoded plan.
    pub(crate) plan: PlanBytes<'a>,
    /// The child's end.
    pub(crate) sync: OwnedFd,
    /// Standard input, output and error; none with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// Namespaces to join by `setns`.
    pub(crate) join: Vec<(NamespaceKind, OwnedFd)>,
    /// The user namespace to run in.
    pub(crate) user_ns: Option<OwnedFd>,
    /// The `tasks` files of the container's v1 cgroups.
    pub(crate) tasks: Vec<OwnedFd>,
    /// Where the word to go on comes from when the parent has left by then: a listening socket.
    pub(crate) gate: Option<OwnedFd>,
}

/// Mounts a foreign runtime's root at `at`, in a mount namespace that the calling process gets for it.
pub(crate) fn mount_apart(plan: &Plan, at: &Path) -> Step<OwnedFd> {
    sys::unshare(libc::CLONE_NEWNS).at(Stage::Namespace, || "unshare mount namespace".into())?;
    isolate(plan)?;
    let root = tree::mount_root(plan, at, at)?;
    make_files(&root, plan)?;
    Ok(root.into_fd())
}

/// Makes the plan's empty files.
fn make_files(root: &root::Root, plan: &Plan) -> Step<()> {
    for path in &plan.files {
        root.ensure(path, root::Kind::File)
            .at(Stage::Mount, || format!("make {}", path.display()))?;
    }
    Ok(())
}

/// Runs as the container's first process; ends with its program, or with an exit after the failure was reported.
pub(crate) fn run(inherited: &Inherited<'_>) -> ! {
    let sync = inherited.sync.as_fd();
    let prepared = match set_up(inherited) {
        Ok(prepared) => prepared,
        Err(failure) => report(sync, failure),
    };
    sync::send(sync, &Packet::Ready);
    let hooks = &inherited.launch.hooks;
    let Some(gate) = &inherited.gate else {
        match sync::receive(sync) {
            Some(Packet::Go) => report(sync, prepared.exec(hooks)),
            // The monitor is gone.
            _ => sys::exit(1),
        }
    };
    // The parent has noted down whom it made, and leaves.
    if !matches!(sync::receive(sync), Some(Packet::Go)) {
        sys::exit(1)
    }
    loop {
        let Ok(starter) = rustix::net::accept_with(gate, rustix::net::SocketFlags::CLOEXEC) else {
            sys::exit(1)
        };
        // One that leaves without a word changes nothing.
        if let Some(Packet::Go) = sync::receive(starter.as_fd()) {
            report(starter.as_fd(), prepared.exec(hooks))
        }
    }
}

/// Tells the monitor why and exits.
pub(crate) fn report(sync: BorrowedFd<'_>, failure: Failure) -> ! {
    sync::send(sync, &Packet::Failed(failure));
    sys::exit(1)
}

fn set_up(inherited: &Inherited<'_>) -> Step<Prepared> {
    let launch = inherited.launch;
    if !matches!(launch.namespaces.pid, Namespace::New | Namespace::Host) {
        // Others in the PID namespace may not look into a process that has yet to leave the host.
        sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Stage::Setup, || "become undumpable".into())?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    join(inherited)?;
    let plan = inherited.plan.decode()?;
    let sources = match &inherited.user_ns {
        Some(user_ns) => Some(userns::enter(inherited, &plan, user_ns.as_fd())?),
        None => None,
    };
    // Rooted where this process is, so it comes after the cgroups.
    if launch.namespaces.cgroup == Namespace::New {
        sys::unshare(libc::CLONE_NEWCGROUP)
            .at(Stage::Namespace, || "unshare cgroup namespace".into())?;
    }
    let labels = Labels::open(&plan.process)?;
    rustix::process::setsid().at(Stage::Setup, || "setsid".into())?;
    set_names(&plan)?;
    let (root, slave) = mount_all(inherited, &plan, sources)?;

    let stdio = match (&slave, &inherited.stdio) {
        (Some(slave), _) => [slave.as_fd(), slave.as_fd(), slave.as_fd()],
        (None, Some([i, o, e])) => [i.as_fd(), o.as_fd(), e.as_fd()],
        (None, None) => return Err(plain(Stage::Plan, "no standard streams")),
    };
    process::set_stdio(stdio).at(Stage::Setup, || "set up standard streams".into())?;
    if slave.is_some() {
        terminal::control()?;
    }
    // For the monitor to let go of: see its `root`.
    sync::send(inherited.sync.as_fd(), &Packet::Root(root.into_fd()));
    drop(slave);
    // What the monitor had open could lead a path of the plan's (/proc/self/fd/7) out of the container.
    let own = inherited.gate.iter().chain([&inherited.sync]);
    let kept = 3..3 + i32::try_from(launch.keep_fds).unwrap_or(0);
    sys::close_all_but(labels.fds().chain(own.map(AsRawFd::as_raw_fd)).chain(kept))
        .at(Stage::Setup, || "close descriptors".into())?;
    let prepared = process::prepare(plan.process, labels)?;
    process::own_stdio(prepared.uid());
    Ok(prepared)
}

/// The container's mount tree, of which this process has the root afterwards; and the slave side of its terminal.
fn mount_all(
    inherited: &Inherited<'_>,
    plan: &Plan,
    sources: Option<userns::Sources>,
) -> Step<(root::Root, Option<OwnedFd>)> {
    let launch = inherited.launch;
    isolate(plan)?;
    let user_ns = sources.is_some();
    let (root, mut given, made) = match sources {
        Some(sources) => sources.attach()?,
        None => (
            tree::mount_root(plan, root_at(plan), &launch.socket_dir)?,
            Vec::new(),
            Vec::new(),
        ),
    };
    make_files(&root, plan)?;
    if plan.rootfs_propagation == Some(Propagation::Shared) {
        // A peer of one of the host's could not become the root.
        mounts::make_private(root.as_fd())
            .at(Stage::Mount, || "set the propagation of the root".into())?;
    }
    let context = Context {
        root: &root,
        cgroup: &launch.cgroup,
        user_ns,
    };
    for (n, mount) in plan.mounts.iter().enumerate() {
        mounts::mount(&context, mount, given.get_mut(n).and_then(Option::take))?;
    }
    devices::make(&context, plan, made)?;
    let slave = if launch.stdio.tty {
        let (master, slave) = terminal::open_in(&root, launch.stdio.size)?;
        sync::send(inherited.sync.as_fd(), &Packet::Terminal(master));
        terminal::bind_console(&root, &slave)?;
        Some(slave)
    } else {
        None
    };
    run_hooks(inherited)?;
    sysctls(&root, plan)?;
    mounts::hide(&root, plan)?;
    if plan.readonly_root {
        mounts::make_read_only(root.as_fd(), false)
            .at(Stage::Mount, || "make the root read-only".into())?;
    }
    pivot(&root, plan)?;
    Ok((root, slave))
}

/// Where the root is mounted before it is the root.
fn root_at(plan: &Plan) -> &Path {
    if plan.root_at.as_os_str().is_empty() {
        return Path::new("/");
    }
    &plan.root_at
}

/// Has the parent run its hooks, then runs those that belong into the container's namespaces.
fn run_hooks(inherited: &Inherited<'_>) -> Step<()> {
    let hooks = &inherited.launch.hooks;
    if !hooks.create_runtime.is_empty() {
        sync::send(inherited.sync.as_fd(), &Packet::Hooks);
        match sync::receive(inherited.sync.as_fd()) {
            Some(Packet::Go) => {}
            // One of them failed, or the parent is gone.
            _ => sys::exit(1),
        }
    }
    let (list, pid) = (&hooks.create_container, std::process::id().cast_signed());
    hooks::run(list, "createContainer", &hooks.state, "creating", pid)
        .map_err(|e| plain(Stage::Setup, e.to_string()))
}

/// Joins cgroups and namespaces.
fn join(inherited: &Inherited<'_>) -> Step<()> {
    for tasks in &inherited.tasks {
        // Not cgroup.procs: moving only oneself needs no global lock (which costs a grace period, ~10 ms).
        rustix::io::write(tasks, b"0").at(Stage::Cgroup, || "join cgroup".into())?;
    }
    for (kind, fd) in &inherited.join {
        sys::setns(fd.as_fd(), clone_flag(*kind))
            .at(Stage::Namespace, || format!("join {kind:?} namespace"))?;
    }
    Ok(())
}

/// The namespaces that are made together with a process. A new cgroup namespace is not: see [`set_up`]; a user namespace
/// is there before, so that these belong to it.
pub(crate) fn clone_flags(namespaces: &Namespaces) -> u64 {
    let n = namespaces;
    let mut flags = libc::CLONE_NEWNS;
    for (namespace, flag) in [
        (&n.pid, libc::CLONE_NEWPID),
        (&n.net, libc::CLONE_NEWNET),
        (&n.ipc, libc::CLONE_NEWIPC),
        (&n.uts, libc::CLONE_NEWUTS),
    ] {
        if *namespace == Namespace::New {
            flags |= flag;
        }
    }
    flags as u64
}

/// The `CLONE_NEW*` bit of a kind of namespace.
fn clone_flag(kind: NamespaceKind) -> i32 {
    match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Net => libc::CLONE_NEWNET,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::User => libc::CLONE_NEWUSER,
    }
}

fn set_names(plan: &Plan) -> Step<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .at(Stage::Setup, || format!("sethostname {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .at(Stage::Setup, || format!("setdomainname {name}"))?;
    }
    Ok(())
}

/// Keeps what is mounted from here on out of the host's mount tree.
fn isolate(plan: &Plan) -> Step<()> {
    let change = match plan.rootfs_propagation {
        None | Some(Propagation::Slave) => {
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        }
        Some(Propagation::Private | Propagation::Unbindable) => {
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC
        }
        // The mounts below stay peers of the host's until the root is changed; only what is attached to is cut off.
        Some(Propagation::Shared) => MountPropagationFlags::PRIVATE,
    };
    rustix::mount::mount_change("/", change).at(Stage::Mount, || "set the propagation of /".into())
}

/// Makes the container's root the root and lets go of the host's.
fn pivot(root: &root::Root, plan: &Plan) -> Step<()> {
    let what = |step: &'static str| move || step.to_owned();
    let shared = plan.rootfs_propagation == Some(Propagation::Shared);
    let old = shared
        .then(|| rustix::fs::open("/", root::DIRECTORY, rustix::fs::Mode::empty()))
        .transpose()
        .at(Stage::Mount, what("open /"))?;
    rustix::process::fchdir(root.as_fd()).at(Stage::Mount, what("chdir to the root"))?;
    rustix::process::pivot_root(".", ".").at(Stage::Mount, what("pivot_root"))?;
    if let Some(old) = old {
        // Or the unmount would reach the host.
        rustix::process::fchdir(&old).at(Stage::Mount, what("chdir to the old root"))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change(".", slave).at(Stage::Mount, what("cut off the old root"))?;
    }
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .at(Stage::Mount, what("unmount the old root"))?;
    rustix::process::chdir("/").at(Stage::Mount, what("chdir /"))?;
    // Private or slave it is already.
    let kind = match plan.rootfs_propagation {
        Some(Propagation::Shared) => MountPropagationFlags::SHARED,
        Some(Propagation::Unbindable) => MountPropagationFlags::UNBINDABLE,
        None | Some(Propagation::Private | Propagation::Slave) => return Ok(()),
    };
    rustix::mount::mount_change("/", kind).at(Stage::Mount, what("set the propagation of /"))
}

/// The path of a kernel parameter below `/proc/sys`: whichever of `.` and `/` comes first separates, the other is part of a
/// word (an interface's name).
fn sysctl_path(name: &str) -> String {
    let first = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    if first == Some(b'/') {
        return name.to_owned();
    }
    let swapped = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    });
    swapped.collect()
}

/// Sets kernel parameters through the container's own `/proc`.
fn sysctls(root: &root::Root, plan: &Plan) -> Step<()> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    for (name, value) in &plan.sysctls {
        let what = || format!("write sysctl key {name}");
        let path = sysctl_path(name);
        let fd = root
            .open(&Path::new("/proc/sys").join(path), OFlags::WRONLY)
            .at(Stage::Setup, what)?;
        let magic = rustix::fs::fstatfs(&fd).at(Stage::Setup, what)?.f_type;
        if magic as i64 != PROC_SUPER_MAGIC {
            return Err(plain(
                Stage::Setup,
                format!("{}: /proc is not mounted", what()),
            ));
        }
        rustix::io::write(&fd, value.as_bytes()).at(Stage::Setup, what)?;
    }
    Ok(())
}
