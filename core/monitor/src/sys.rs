//! The few system calls that no library wraps, and those whose wrappers would assume threads.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Turns the result of a raw call into a `Result`.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        let errno = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(result)
}

/// Who comes back from [`fork`] and [`clone3`].
#[derive(Debug)]
pub(crate) enum Fork {
    /// The parent, with the child's process ID.
    Parent(i32),
    /// The child.
    Child,
}

/// `fork(2)`.
pub(crate) fn fork() -> Result<Fork, Errno> {
    // SAFETY: the process has one thread, so the child's copy of all state (locks, allocator) is consistent.
    match check(libc::c_long::from(unsafe { libc::fork() }))? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32)),
    }
}

/// `clone3(2)` as a fork: with `flags` (`CLONE_NEW*`, `CLONE_PARENT`), into the v2 cgroup whose directory is given.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    #[repr(C)]
    #[derive(Default)]
    struct Args {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    debug_assert_eq!(flags & (libc::CLONE_VM | libc::CLONE_THREAD) as u64, 0);
    let mut args = Args {
        flags,
        ..Args::default()
    };
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given. Without CLONE_VM the child has its own memory and goes on
    // with a copy of this stack, as after fork; the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<Args>()) };
    match check(pid)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32)),
    }
}

/// `setns(2)`.
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: i32) -> Result<(), Errno> {
    // SAFETY: plain integers; the descriptor is open.
    check(libc::c_long::from(unsafe {
        libc::setns(fd.as_raw_fd(), kinds)
    }))
    .map(drop)
}

/// `unshare(2)` of namespaces.
pub(crate) fn unshare(kinds: i32) -> Result<(), Errno> {
    // SAFETY: plain integers; the process has one thread and shares no descriptor table.
    check(libc::c_long::from(unsafe { libc::unshare(kinds) })).map(drop)
}

/// What [`mount_setattr`] changes.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// `mount_setattr(2)` on the mount that `fd` is the root of; Linux 5.12.
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    below: bool,
    attr: &MountAttr,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attr` a valid mount_attr of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(done).map(drop)
}

/// `prctl(2)` with integers only.
pub(crate) fn prctl(option: i32, a: u64, b: u64) -> Result<i32, Errno> {
    // SAFETY: only options that take integers are used; the unused arguments are 0 as some options demand.
    check(libc::c_long::from(unsafe {
        libc::prctl(option, a, b, 0u64, 0u64)
    }))
    .map(|n| n as i32)
}

/// `seccomp(2)`: installs a filter.
pub(crate) fn seccomp(program: &[u8], flags: u32) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    if !program.len().is_multiple_of(size_of::<libc::sock_filter>()) {
        return Err(Errno::INVAL);
    }
    let filter: Vec<libc::sock_filter> = program
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let fprog = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` describes `filter`, which outlives the call; the kernel only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    };
    check(done).map(drop)
}

/// `setresuid(2)` and `setresgid(2)` with all three the same, for this thread, which is the only one.
pub(crate) fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// `setfsuid(2)` and `setfsgid(2)`: whom the file system takes this thread, the only one, for. Capabilities over files
/// leave the effective set with root and come back with it.
pub(crate) fn set_fs_ids(uid: u32, gid: u32) {
    // SAFETY: plain integers; neither call fails, by its man page.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// `setgroups(2)`.
pub(crate) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: pointer and length describe the slice, which is only read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// `prlimit(2)` of the calling process: sets and returns the old (soft, hard).
pub(crate) fn rlimit(resource: u32, new: Option<(u64, u64)>) -> Result<(u64, u64), Errno> {
    let new = new.map(|(soft, hard)| libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    });
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pointer = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or to valid rlimit64 structures.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, pointer, &raw mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Joins a new anonymous session keyring.
pub(crate) fn new_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) }).map(drop)
}

/// `sched_setattr(2)` of the calling process.
pub(crate) fn set_schedule(s: &gantry_monitor::direct::Schedule) -> Result<(), Errno> {
    #[repr(C)]
    struct Attr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attr = Attr {
        size: size_of::<Attr>() as u32,
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    };
    // SAFETY: a valid sched_attr of the size it names, which is only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signo: i32) -> Result<(), Errno> {
    let (fd, none) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: without information of the caller's own, plain integers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signo, none, 0) }).map(drop)
}

/// `personality(2)`.
pub(crate) fn personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: a plain integer.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// `ioprio_set(2)` of the calling process.
pub(crate) fn io_priority(class: u8, level: u8) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let value = (u32::from(class) << 13) | u32::from(level);
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Closes every descriptor from 3 on but these. Nothing else that the process still holds may be used afterwards.
pub(crate) fn close_all_but(keep: impl Iterator<Item = RawFd>) -> Result<(), Errno> {
    let mut keep: Vec<RawFd> = keep.filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if fd > first {
            // SAFETY: the callers use no descriptor again that is not kept; closing is the purpose.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// Closes what a child has of its parent's. Its owner is on the parent's stack, to which the child does not return.
pub(crate) fn close_parents(fd: BorrowedFd<'_>) {
    // SAFETY: the caller ends or execs without using the descriptor again, as the name demands.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Makes `to` a copy of `fd` that survives an exec.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == to {
        // SAFETY: an open descriptor and a plain integer.
        return check(libc::c_long::from(unsafe {
            libc::fcntl(to, libc::F_SETFD, 0)
        }))
        .map(drop);
    }
    // SAFETY: `to` is one of the standard streams or owned by nobody.
    check(libc::c_long::from(unsafe {
        libc::dup2(fd.as_raw_fd(), to)
    }))
    .map(drop)
}

/// The descriptor with this number, for which the caller vouches.
///
/// # Safety
/// It is open and owned by nobody else.
pub(crate) unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: passed on to the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A `signalfd(2)` for SIGCHLD.
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised by sigemptyset before it is used; the new descriptor is ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(libc::c_long::from(fd)).map(|fd| own(fd as RawFd))
    }
}

/// Blocks every signal, or none.
pub(crate) fn block_signals(block: bool) {
    // SAFETY: the set is initialised before it is used; sigprocmask cannot fail with valid arguments.
    unsafe {
        let mut set = std::mem::zeroed();
        if block {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Sets a signal to its default or to be ignored; the C library's own signals (32, 33) too, which its functions refuse.
pub(crate) fn signal_default(signo: i32, ignore: bool) {
    // struct sigaction of the kernel: handler, flags, restorer, mask.
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    let action = [handler as u64, 0, 0, 0];
    // SAFETY: at least as large as the kernel's structure on every 64-bit machine; neither action runs code of ours.
    // Numbers that are no signals or cannot be changed are refused harmlessly.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signo,
            action.as_ptr(),
            std::ptr::null::<u64>(),
            8,
        )
    };
}

/// `execve(2)`; returns only when it failed.
pub(crate) fn execve(path: &CStr, argv: &[&CStr], env: &[&CStr]) -> Errno {
    let pointers = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: null-terminated arrays of C strings that outlive the call.
    let done = unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    check(libc::c_long::from(done)).err().unwrap_or(Errno::IO)
}

/// `execveat(2)` of an open file.
pub(crate) fn exec_file(fd: BorrowedFd<'_>, argv: &[&CStr]) -> Errno {
    let argv: Vec<_> = argv
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    // SAFETY: null-terminated arrays of C strings that outlive the call; `environ` is the C library's own.
    let done = unsafe {
        unsafe extern "C" {
            static environ: *const *const libc::c_char;
        }
        let path = c"".as_ptr();
        let flags = libc::AT_EMPTY_PATH;
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            path,
            argv.as_ptr(),
            environ,
            flags,
        )
    };
    check(done).err().unwrap_or(Errno::IO)
}

/// Ends the process at once: no destructors, no exit handlers of the parent whose copy this is.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: takes an integer, does not return.
    unsafe { libc::_exit(code) }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as i64)
}

/// Reaps one dead child, if there is any: its process ID and wait status.
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// As [`reap`], of this child only.
pub(crate) fn reap_one(pid: i32) -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Kills a child and reaps it; 0 is none.
pub(crate) fn kill_and_wait(pid: i32) {
    if pid > 0 {
        let _ = kill(pid, libc::SIGKILL);
        wait(pid);
    }
}

/// Waits for this child to die.
pub(crate) fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    status
}

/// `kill(2)`.
pub(crate) fn kill(pid: i32, signo: i32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe { libc::kill(pid, signo) })).map(drop)
}

/// `poll(2)` for so many milliseconds, -1 for ever; `false` when it was interrupted.
pub(crate) fn poll(fds: &mut [libc::pollfd], wait: i32) -> bool {
    // SAFETY: pointer and length describe the slice.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait) >= 0 }
}
