//! Network namespaces, made and entered by throwaway threads.
//!
//! A thread that has changed its namespace is never used for anything else, so that no other code of the process
//! finds itself in the wrong one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| {
                Err(io::Error::other(
                    "a thread inside a network namespace panicked",
                ))
            })
    })
}

/// The network namespace of the calling thread.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// The network namespace of a socket, whoever holds it. Source: `SIOCGSKNS`, linux/sockios.h.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in that namespace; those of ioctl(2) for what is no socket.
pub fn of_socket(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: the descriptor is borrowed for the call, which takes no argument and writes to no memory of ours.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS as _) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this call (close-on-exec), and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a network namespace and runs `work` in it, for example to open sockets that stay there. The namespace lives
/// as long as something refers to it: the descriptor returned, a socket made inside, a process.
///
/// # Errors
/// Those of unshare(2), and of `work`.
pub fn create<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(OwnedFd, T)> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok((current()?, work()?))
    })
}

/// Runs `work` in a network namespace.
///
/// # Errors
/// Those of setns(2), and of `work`.
pub fn inside<T: Send>(
    netns: impl AsFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let netns = netns.as_fd();
    on_own_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;

    #[test]
    fn the_caller_stays_where_it_is() {
        let before = fstat(current().unwrap()).unwrap().st_ino;
        let (made, inner) = create(|| Ok(fstat(current()?)?.st_ino)).unwrap();
        assert_ne!(before, inner);
        let entered = inside(&made, || Ok(fstat(current()?)?.st_ino)).unwrap();
        assert_eq!(entered, inner);
        assert_eq!(fstat(current().unwrap()).unwrap().st_ino, before);
    }

    #[test]
    fn a_socket_tells_where_it_is() {
        let (made, socket) = create(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
        let inode = |netns: &OwnedFd| fstat(netns).unwrap().st_ino;
        assert_eq!(inode(&of_socket(&socket).unwrap()), inode(&made));
        assert!(of_socket(std::fs::File::open("/proc").unwrap()).is_err());
    }
}
