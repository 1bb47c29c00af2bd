//! From a launch to a container's first process at work, and the monitor around it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use gantry_monitor::client::SOCKET_NAME;
use gantry_monitor::plan::{FdRole, Launch, Namespace, NamespaceKind, Namespaces, VERSION};
use gantry_monitor::protocol::{Failure, Message, Stage, from_bytes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::exec::{open_tasks, set_oom_score};
use crate::fault::{At, Step, failure, plain};
use crate::init::{self, Inherited, PlanBytes, clone_flags};
use crate::monitor::conn::Conn;
use crate::monitor::foreign::Foreign;
use crate::monitor::log::Log;
use crate::monitor::oom::Oom;
use crate::monitor::streams::Streams;
use crate::monitor::{Monitor, Phase};
use crate::sync::{self, Packet};
use crate::sys::{self, Fork};

/// The first connection and the namespaces that came along.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) socket: OwnedFd,
    namespaces: Vec<(NamespaceKind, OwnedFd)>,
}

/// Where the plan is: from this byte of the message on, or in a file.
#[derive(Debug)]
pub(crate) enum PlanAt {
    Offset(usize),
    File(OwnedFd),
}

type Parsed = (Launch, Control, PlanAt);

/// Reads a launch's header and sorts its descriptors. A failure comes with the control connection, if there was one.
pub(crate) fn parse(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Parsed, (Failure, Option<OwnedFd>)> {
    let bad = |why: &str| plain(Stage::Plan, format!("read launch: {why}"));
    let parse_header = || -> Step<(Launch, usize)> {
        let (len, rest) = bytes.split_first_chunk().ok_or_else(|| bad("too short"))?;
        let len = u32::from_le_bytes(*len) as usize;
        let header = rest.get(..len).ok_or_else(|| bad("too short"))?;
        let launch: Launch = from_bytes(header).map_err(|e| bad(&e.to_string()))?;
        if launch.version > VERSION || launch.version + 1 < VERSION {
            return Err(bad(&format!("version {} is not known", launch.version)));
        }
        if launch.fds.len() != fds.len() {
            return Err(bad("descriptors are missing"));
        }
        Ok((launch, 4 + len))
    };
    let (launch, offset) = match parse_header() {
        Ok(parsed) => parsed,
        // The control connection is the first of the descriptors that came; there is no header to tell better.
        Err(failure) => return Err((failure, fds.into_iter().next())),
    };
    let (mut socket, mut namespaces, mut plan) = (None, Vec::new(), PlanAt::Offset(offset));
    for (role, fd) in launch.fds.iter().zip(fds) {
        match role {
            FdRole::Control => socket = Some(fd),
            FdRole::Plan => plan = PlanAt::File(fd),
            FdRole::Namespace(kind) => namespaces.push((*kind, fd)),
        }
    }
    match socket {
        Some(socket) => Ok((launch, Control { socket, namespaces }, plan)),
        None => Err((bad("no control connection"), None)),
    }
}

/// Shows the container's short ID in the process's name (15 bytes at most).
pub(crate) fn set_title(id: &str) {
    let short: String = id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(11)
        .collect();
    if let Ok(name) = CString::new(format!("gmon {short}").trim_end()) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Makes the user and the network namespace that a launch wants alone, answers with them and leaves.
pub(crate) fn only_namespaces(launch: &Launch, control: Control) -> ! {
    let mut conn = Conn::new(0, control.socket);
    let made = match control.namespaces.into_iter().next() {
        Some((_, user)) => network_in(&user).map(|net| (user, Some(net))),
        None => init::make_user_ns(&launch.uid_map, &launch.gid_map, true),
    };
    match made {
        Ok((user, net)) => {
            conn.say(0, Message::UserNs, Some(user));
            conn.say(0, Message::Netns, net);
        }
        Err(failure) => conn.say(0, Message::CreateFailed(failure), None),
    }
    sys::exit(0)
}

/// A network namespace in a user namespace; this process is in both afterwards.
fn network_in(user: &OwnedFd) -> Step<OwnedFd> {
    let what = || "make a network namespace".to_owned();
    sys::setns(user.as_fd(), libc::CLONE_NEWUSER).at(Stage::Namespace, what)?;
    sys::unshare(libc::CLONE_NEWNET).at(Stage::Namespace, what)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/ns/net", flags, Mode::empty()).at(Stage::Namespace, what)
}

/// Makes the container's first process and the monitor. `bytes` is the message; its memory is given back here.
pub(crate) fn create(
    launch: Launch,
    control: Control,
    plan: PlanAt,
    bytes: Vec<u8>,
) -> Step<Monitor> {
    let Control { socket, namespaces } = control;
    let mut conns = vec![Conn::new(1, socket)];
    conns.reserve_exact(2);
    let (streams, stdio) = Streams::open(&launch.stdio)?;
    let plan = match plan {
        PlanAt::Offset(offset) => PlanBytes::Inline(bytes.get(offset..).unwrap_or_default()),
        PlanAt::File(fd) => PlanBytes::File(fd),
    };
    let mut foreign = None;
    let (init, sync) = match launch.foreign.clone() {
        Some(config) => {
            let root = init::mount_apart(&plan.decode()?, &config.bundle.join("rootfs"))?;
            foreign = Some(Foreign::create(config, &launch, root, stdio)?);
            (0, None)
        }
        None => {
            let (init, sync) = first_process(&launch, namespaces, plan, stdio, None)?;
            (init, Some(sync))
        }
    };
    drop(bytes);
    let finish = || -> Step<Monitor> {
        Ok(Monitor {
            oom: Oom::open(launch.cgroup.memory.as_deref()),
            log: Log::open(launch.log.as_ref())?,
            listener: listen(&launch.socket_dir)
                .at(Stage::Monitor, || "listen on monitor.sock".into())?,
            signals: sys::child_signals().at(Stage::Monitor, || "signalfd".into())?,
            id: launch.id,
            phase: Phase::Creating,
            init,
            started_at: 0,
            sync,
            owner: init::user_ns_owner(&launch.uid_map, &launch.gid_map)
                .filter(|_| launch.namespaces.user != Namespace::Host),
            namespaces: launch.namespaces,
            cgroup: launch.cgroup,
            hooks: launch.hooks,
            socket_dir: launch.socket_dir,
            exit_path: launch.exit_path,
            root: None,
            streams,
            conns,
            next_conn: 2,
            execs: Vec::new(),
            strays: Vec::new(),
            foreign,
        })
    };
    finish().inspect_err(|_| sys::kill_and_wait(init))
}

/// Makes the container's first process, which sets itself up from here on; returns it with what it reports on. `gate` is
/// for one whose parent leaves before it is started.
pub(crate) fn first_process(
    launch: &Launch,
    namespaces: Vec<(NamespaceKind, OwnedFd)>,
    plan: PlanBytes<'_>,
    stdio: Option<[OwnedFd; 3]>,
    gate: Option<OwnedFd>,
) -> Step<(i32, OwnedFd)> {
    let (ours, theirs) = sync::pair().at(Stage::Monitor, || "open sync socket".into())?;
    let mut joined = joins(&launch.namespaces, namespaces)?;
    if launch.namespaces.user == Namespace::New {
        let (made, _) = init::make_user_ns(&launch.uid_map, &launch.gid_map, false)?;
        joined.user = Some(made);
    }
    let inherited = Inherited {
        launch,
        plan,
        sync: theirs,
        stdio,
        join: joined.by_init,
        user_ns: joined.user,
        tasks: open_tasks(&launch.cgroup)?,
        gate,
    };
    let init = clone_init(inherited, launch, &ours)?;
    let finish = || {
        if let Some(own) = joined.own_pid {
            sys::setns(own.as_fd(), libc::CLONE_NEWPID)
                .at(Stage::Namespace, || "return to the PID namespace".into())?;
        }
        // What only the parent may do: the score by which the kernel chooses whom to kill.
        match launch.oom_score_adj {
            Some(score) => set_oom_score(&init.to_string(), score),
            None => Ok(()),
        }
    };
    finish().inspect_err(|_| sys::kill_and_wait(init))?;
    Ok((init, ours))
}

/// Namespaces that are joined.
#[derive(Debug, Default)]
struct Joined {
    by_init: Vec<(NamespaceKind, OwnedFd)>,
    /// The user namespace, made or joined.
    user: Option<OwnedFd>,
    /// The monitor's own PID namespace, to return to once the init is born in another.
    own_pid: Option<OwnedFd>,
}

/// Opens what the init joins by itself. A PID namespace is joined here and now: it is for children only.
fn joins(wanted: &Namespaces, mut given: Vec<(NamespaceKind, OwnedFd)>) -> Step<Joined> {
    let mut joined = Joined::default();
    let open =
        |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    for (namespace, kind) in each(wanted) {
        let what = || format!("join {kind:?} namespace");
        let fd = match namespace {
            Namespace::Host | Namespace::New => continue,
            Namespace::Fd => {
                let at = given.iter().position(|(k, _)| *k == kind);
                let at = at.ok_or_else(|| failure(Stage::Plan, Errno::BADF, what()))?;
                given.swap_remove(at).1
            }
            Namespace::Path(path) => {
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .at(Stage::Namespace, || {
                        format!("{} {}", what(), path.display())
                    })?
            }
        };
        match kind {
            NamespaceKind::User => joined.user = Some(fd),
            // Joined by the process that makes the init, which is another one then.
            NamespaceKind::Pid if wanted.user != Namespace::Host => joined.by_init.push((kind, fd)),
            NamespaceKind::Pid => {
                let own = open(Path::new("/proc/self/ns/pid")).at(Stage::Namespace, what)?;
                joined.own_pid = Some(own);
                sys::setns(fd.as_fd(), libc::CLONE_NEWPID).at(Stage::Namespace, what)?;
            }
            _ => joined.by_init.push((kind, fd)),
        }
    }
    Ok(joined)
}

fn each(namespaces: &Namespaces) -> [(&Namespace, NamespaceKind); 6] {
    [
        (&namespaces.pid, NamespaceKind::Pid),
        (&namespaces.net, NamespaceKind::Net),
        (&namespaces.ipc, NamespaceKind::Ipc),
        (&namespaces.uts, NamespaceKind::Uts),
        (&namespaces.cgroup, NamespaceKind::Cgroup),
        (&namespaces.user, NamespaceKind::User),
    ]
}

/// Clones the init with its new namespaces, born in its v2 cgroup. Returns in the parent only.
///
/// With a user namespace the clone is an intermediary, which makes the init as another child of this process.
fn clone_init(inherited: Inherited<'_>, launch: &Launch, ours: &OwnedFd) -> Step<i32> {
    let user_ns = inherited.user_ns.is_some();
    let flags = if user_ns {
        0
    } else {
        clone_flags(&launch.namespaces)
    };
    let cgroup = open_cgroup2(launch.cgroup.v2.as_deref())?;
    let forked = sys::clone3(flags, cgroup.as_ref().map(AsFd::as_fd))
        .at(Stage::Namespace, || "clone the container's process".into())?;
    let pid = match forked {
        Fork::Child => {
            // Or it would not see the end of its parent.
            sys::close_parents(ours.as_fd());
            init::run(&inherited)
        }
        Fork::Parent(pid) => pid,
    };
    if !user_ns {
        return Ok(pid);
    }
    drop(inherited);
    let mut fds = [libc::pollfd {
        fd: ours.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    sys::poll(&mut fds, -1);
    let said = sync::receive(ours.as_fd());
    sys::wait(pid);
    match said {
        Some(Packet::Pid(init)) => Ok(init),
        Some(Packet::Failed(failure)) => Err(failure),
        _ => Err(plain(
            Stage::Gone,
            "the container's process died while it was set up",
        )),
    }
}

/// The v2 cgroup's directory, to be born in.
pub(crate) fn open_cgroup2(dir: Option<&Path>) -> Step<Option<OwnedFd>> {
    dir.map(|dir| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty())
            .at(Stage::Cgroup, || format!("open cgroup {}", dir.display()))
    })
    .transpose()
}

/// Listens on `monitor.sock` in `dir`, for its owner only.
fn listen(dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    match rustix::fs::unlinkat(&dir, SOCKET_NAME, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The path that a socket address can hold is short; that of the directory may not be.
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd());
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(old);
    bound?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}
