//! Containers without a monitor: their parent is the calling process, which leaves them to a subreaper.
//!
//! For a program that is executed anew for each step of a container's life, as OCI runtimes are. The container's first
//! process waits on a socket in a directory of the caller's ([`GATE`]) for the one that starts it. The calling process has
//! one thread, begins with [`become_parent`] and has its standard streams open: they are the container's.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

use crate::fault::{At, Step, plain};
use crate::init::PlanBytes;
use crate::monitor::{first_process, open_cgroup2};
use crate::plan::{Cgroup, ExecPlan, IdMap, Launch, Namespaces, Plan};
use crate::protocol::{Failure, Stage, to_bytes};
use crate::sync::{self, Packet};
use crate::sys::{self, Fork};
use crate::{exec, hooks, zygote};

/// The name of the socket on which a created container waits to be started.
pub const GATE: &str = "start.sock";

/// A process that was made: a child of the caller.
#[derive(Debug)]
pub struct Born {
    /// Its number in the caller's PID namespace.
    pub pid: i32,
    /// The master side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    sync: OwnedFd,
}

impl Born {
    /// Lets a created container outlive the caller. Without it, the container ends as the caller does.
    pub fn release(&self) {
        sync::send(self.sync.as_fd(), &Packet::Go);
    }
    /// Kills and reaps it.
    pub fn kill(self) {
        sys::kill_and_wait(self.pid);
    }
}

/// Resets what a parent of containers must not have inherited: the dispositions of signals, which they would inherit.
pub fn become_parent() {
    for signo in 1..=64 {
        sys::signal_default(signo, false);
    }
    sys::signal_default(libc::SIGPIPE, true);
}

/// Executes this program again from where `/proc/PID/exe` cannot be written, unless it runs from such a place already: a
/// container that gets hold of that link cannot change the file on the host (CVE-2019-5736).
///
/// # Errors
/// When neither a read-only mount of the program nor a sealed copy of it can be had.
pub fn protect() -> io::Result<()> {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let exe = rustix::fs::open("/proc/self/exe", path, Mode::empty())?;
    let of_mount = rustix::fs::fstatvfs(&exe)?.f_flag;
    if of_mount.contains(StatVfsMountFlags::RDONLY) || zygote::is_sealed_copy()? {
        return Ok(());
    }
    let file = match read_only(exe.as_fd()) {
        Ok(file) => file,
        // No new mount API, or no right to mount.
        Err(_) => zygote::sealed_copy()?,
    };
    let args: Vec<CString> = std::env::args_os()
        .map(|a| CString::new(a.as_bytes()))
        .collect::<Result<_, _>>()?;
    let args: Vec<_> = args.iter().map(CString::as_c_str).collect();
    Err(sys::exec_file(file.as_fd(), &args).into())
}

/// The same file on a read-only mount that is attached nowhere.
fn read_only(file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const RDONLY: u64 = crate::options::attr::RDONLY;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(file, "", flags)?;
    let attr = sys::MountAttr {
        set: RDONLY,
        ..sys::MountAttr::default()
    };
    sys::mount_setattr(mount.as_fd(), false, &attr)?;
    Ok(mount)
}

/// Makes a container up to the point before its program: [`start`] lets it go on. `dir` is where its gate is made.
///
/// Its `createRuntime` hooks run in the calling process's place, the container's own in its.
///
/// # Errors
/// Whatever fails; nothing is left of the process then.
pub fn create(launch: &Launch, plan: &Plan, dir: &Path) -> Result<Born, Failure> {
    let bytes = to_bytes(plan).map_err(|e| plain(Stage::Plan, e.to_string()))?;
    let gate = listen(dir).at(Stage::Monitor, || format!("listen on {GATE}"))?;
    let stdio = streams(launch.stdio.tty)?;
    let (pid, sync) = unsignalled(|| {
        let plan = PlanBytes::Inline(&bytes);
        first_process(launch, Vec::new(), plan, stdio, Some(gate))
    })?;
    let mut born = Born {
        pid,
        terminal: None,
        sync,
    };
    match set_up(&mut born, launch) {
        Ok(()) => Ok(born),
        Err(failure) => {
            born.kill();
            Err(failure)
        }
    }
}

/// Follows the first process until it is ready.
fn set_up(born: &mut Born, launch: &Launch) -> Step<()> {
    loop {
        match next(&born.sync) {
            Packet::Terminal(master) => born.terminal = Some(master),
            Packet::Hooks => {
                let hooks = &launch.hooks;
                let (list, state) = (&hooks.create_runtime, &hooks.state);
                hooks::run(list, "createRuntime", state, "creating", born.pid)
                    .map_err(|e| plain(Stage::Setup, e.to_string()))?;
                sync::send(born.sync.as_fd(), &Packet::Go);
            }
            Packet::Ready => return Ok(()),
            Packet::Failed(failure) => return Err(failure),
            Packet::Root(_) | Packet::Pid(_) | Packet::Go => {}
            Packet::End => {
                let why = "the container's process died while it was set up";
                return Err(plain(Stage::Gone, why));
            }
        }
    }
}

/// Lets the container whose gate is in `dir` execute its program.
///
/// # Errors
/// When nobody waits at the gate, or the program cannot be executed.
pub fn start(dir: &Path) -> Result<(), Failure> {
    let what = || "connect to the container's process".to_owned();
    let socket = connect(dir).at(Stage::Gone, what)?;
    sync::send(socket.as_fd(), &Packet::Go);
    match next(&socket) {
        Packet::Failed(failure) => Err(failure),
        _ => Ok(()),
    }
}

/// Where an exec goes.
#[derive(Debug)]
pub struct Target<'a> {
    /// The container's first process.
    pub pid: i32,
    /// The container's namespaces.
    pub namespaces: &'a Namespaces,
    /// Mapping of user IDs of its own user namespace.
    pub uid_map: &'a [IdMap],
    /// Mapping of group IDs of its own user namespace.
    pub gid_map: &'a [IdMap],
    /// Its cgroups.
    pub cgroup: &'a Cgroup,
    /// It has a time namespace of its own.
    pub time: bool,
}

/// Runs a process in a container, with the caller's standard streams or, with `tty`, a terminal of its own.
///
/// # Errors
/// Whatever fails until the program runs; nothing is left of the process then.
pub fn exec(
    target: &Target<'_>,
    plan: &ExecPlan,
    tty: bool,
    keep_fds: u32,
) -> Result<Born, Failure> {
    let what = || "make the exec's process".to_owned();
    let bytes = to_bytes(plan).map_err(|e| plain(Stage::Plan, e.to_string()))?;
    let pid = Pid::from_raw(target.pid).ok_or_else(|| plain(Stage::Gone, what()))?;
    let init = rustix::process::pidfd_open(pid, PidfdFlags::empty()).at(Stage::Gone, what)?;
    let (ours, theirs) = sync::pair().at(Stage::Monitor, what)?;
    let cgroup = open_cgroup2(target.cgroup.v2.as_deref())?;
    let inherited = exec::Inherited {
        init,
        namespaces: target.namespaces,
        owner: crate::init::user_ns_owner(target.uid_map, target.gid_map),
        cgroup: target.cgroup,
        plan: &bytes,
        sync: theirs,
        stdio: streams(tty)?,
        keep_fds,
        time: target.time,
    };
    let first = unsignalled(|| {
        match sys::clone3(0, cgroup.as_ref().map(AsFd::as_fd)).at(Stage::Namespace, what)? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => exec::run(&inherited),
        }
    })?;
    drop(inherited);
    let mut born = Born {
        pid: 0,
        terminal: None,
        sync: ours,
    };
    let done = executed(&mut born);
    sys::wait(first);
    match done {
        Ok(()) if born.pid > 0 => Ok(born),
        Ok(()) => Err(plain(
            Stage::Gone,
            "the exec's process died while it was set up",
        )),
        Err(failure) => {
            born.kill();
            Err(failure)
        }
    }
}

/// Follows an exec until its program runs.
fn executed(born: &mut Born) -> Step<()> {
    loop {
        match next(&born.sync) {
            Packet::Terminal(master) => born.terminal = Some(master),
            Packet::Pid(pid) => born.pid = pid,
            Packet::Failed(failure) => return Err(failure),
            Packet::End => return Ok(()),
            Packet::Root(_) | Packet::Hooks | Packet::Ready | Packet::Go => {}
        }
    }
}

/// Waits for a child's end: its exit code, 128 and the signal when it was killed.
#[must_use]
pub fn wait(pid: i32) -> i32 {
    let status = sys::wait(pid);
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

/// The execution domain of the calling process and its children; see `personality(2)`.
///
/// # Errors
/// One that the kernel does not know.
pub fn set_personality(domain: u32) -> io::Result<()> {
    Ok(sys::personality(domain)?)
}

/// The I/O priority of the calling process and its children: class and level of `ioprio_set(2)`.
///
/// # Errors
/// When it may not be had.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    Ok(sys::io_priority(class, level)?)
}

/// How the kernel schedules a process; see `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the policies without real time.
    pub nice: i32,
    /// For the policies with real time.
    pub priority: u32,
    /// Nanoseconds; for deadlines.
    pub runtime: u64,
    /// Nanoseconds; for deadlines.
    pub deadline: u64,
    /// Nanoseconds; for deadlines.
    pub period: u64,
}

/// The scheduling of the calling process and its children.
///
/// # Errors
/// When it may not be had.
pub fn set_schedule(schedule: &Schedule) -> io::Result<()> {
    Ok(sys::set_schedule(schedule)?)
}

/// Sends a signal, any number of one, to the process of a pidfd.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn signal(process: BorrowedFd<'_>, signo: i32) -> io::Result<()> {
    Ok(sys::pidfd_send_signal(process, signo)?)
}

/// As [`signal`], by the process's number.
///
/// # Errors
/// Those of `kill(2)`.
pub fn signal_number(pid: i32, signo: i32) -> io::Result<()> {
    Ok(sys::kill(pid, signo)?)
}

/// What children of the calling process run as from now on: a time namespace of their own, or one that is there.
///
/// # Errors
/// When the kernel has none, or it may not be joined.
pub fn time_namespace(path: Option<&PathBuf>, offsets: &str) -> io::Result<()> {
    match path {
        Some(path) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open(path, flags, Mode::empty())?;
            sys::setns(namespace.as_fd(), libc::CLONE_NEWTIME)?;
        }
        None => {
            sys::unshare(libc::CLONE_NEWTIME)?;
            if !offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", offsets)?;
            }
        }
    }
    Ok(())
}

/// The next packet, waited for.
fn next(socket: &OwnedFd) -> Packet {
    loop {
        if let Some(packet) = sync::receive(socket.as_fd()) {
            return packet;
        }
        let mut fds = [libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        sys::poll(&mut fds, -1);
    }
}

/// Makes a process with every signal blocked, as it takes none before its program runs.
fn unsignalled<T>(make: impl FnOnce() -> Step<T>) -> Step<T> {
    sys::block_signals(true);
    let made = make();
    sys::block_signals(false);
    made
}

/// Copies of the calling process's standard streams; none where there is to be a terminal.
fn streams(tty: bool) -> Step<Option<[OwnedFd; 3]>> {
    if tty {
        return Ok(None);
    }
    let copy = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .at(Stage::Monitor, || "copy a standard stream".into())
    };
    Ok(Some([
        copy(io::stdin().as_fd())?,
        copy(io::stdout().as_fd())?,
        copy(io::stderr().as_fd())?,
    ]))
}

/// Listens at the gate in `dir`, for its owner only.
fn listen(dir: &Path) -> Result<OwnedFd, Errno> {
    let (socket, address, _dir) = gate(dir)?;
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(old);
    bound?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

fn connect(dir: &Path) -> Result<OwnedFd, Errno> {
    let (socket, address, _dir) = gate(dir)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// A socket, and the gate's address by way of the directory's descriptor: its path may be longer than an address.
fn gate(dir: &Path) -> Result<(OwnedFd, SocketAddrUnix, OwnedFd), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty())?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{GATE}", dir.as_raw_fd()))?;
    Ok((socket, address, dir))
}
