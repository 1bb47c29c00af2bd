//! The zygote: waits for launches and forks a monitor for each. It does nothing else, so that what it has in memory is
//! little and stays shared with every monitor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gantry_monitor::client::{MAX_INLINE, receive_bytes};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;

use crate::monitor;
use crate::sys::{self, Fork};

/// The descriptor that launches come on.
const SOCKET: i32 = 3;

/// Serves launches as the zygote, until the daemon closes the socket (descriptor 3). For a process of one thread, which
/// is executed anew from a sealed copy first.
///
/// # Errors
/// Where descriptor 3 is not open, or no copy can be made.
pub fn run() -> io::Result<()> {
    rustix::fs::fcntl_getfl(borrowed())
        .map_err(|_| io::Error::other("descriptor 3 is not open"))?;
    seal_self()?;
    // SAFETY: the descriptor is open (above) and, by the contract with the caller of this program, ours.
    let socket = unsafe { sys::own(SOCKET) };
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    for signo in 1..=64 {
        sys::signal_default(signo, false);
    }
    sys::signal_default(libc::SIGPIPE, true);
    // Dead monitors are reaped by the kernel.
    sys::signal_default(libc::SIGCHLD, true);
    // Large enough for the allocator to map it apart: a monitor gives it back whole.
    let mut buffer = vec![0; 4 * MAX_INLINE];
    loop {
        let mut fds = Vec::new();
        let n = receive_bytes(socket.as_fd(), &mut buffer, &mut fds)?;
        if n == 0 && fds.is_empty() {
            return Ok(());
        }
        sys::block_signals(true);
        match sys::fork() {
            Ok(Fork::Child) => {
                drop(socket);
                buffer.truncate(n);
                monitor::run(buffer, fds)
            }
            Ok(Fork::Parent(_)) => {}
            Err(errno) => monitor::refuse(&buffer[..n], fds, errno),
        }
        sys::block_signals(false);
    }
}

fn borrowed() -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: only asked about; whether it is open is the question.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(SOCKET) }
}

/// Executes this program again from a sealed copy in memory, so that a container that gets hold of `/proc/PID/exe`
/// cannot write to the file on the host (CVE-2019-5736).
fn seal_self() -> io::Result<()> {
    if is_sealed_copy()? {
        return Ok(());
    }
    let copy = sealed_copy()?;
    let name = c"gantry-monitor";
    debug_assert_ne!(copy.as_raw_fd(), SOCKET);
    Err(sys::exec_file(copy.as_fd(), &[name, c"zygote"]).into())
}

/// Whether this program runs from a [`sealed_copy`].
pub(crate) fn is_sealed_copy() -> io::Result<bool> {
    let exe = std::fs::read_link("/proc/self/exe")?;
    Ok(exe.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}

/// This program in memory, where nobody can change it.
pub(crate) fn sealed_copy() -> io::Result<OwnedFd> {
    let file = std::fs::File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("gantry-monitor", flags)?;
    while rustix::fs::sendfile(&copy, &file, None, 1 << 30)? > 0 {}
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}
