//! Between a monitor and the process it made, until that one execs: one byte says what, the rest is the content.
//!
//! The socket is `SOCK_SEQPACKET` and close-on-exec: its end tells the monitor that the exec went well (or that the
//! process died, which the monitor learns by reaping it).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_monitor::client::receive_bytes;
use gantry_monitor::protocol::{Failure, Stage, from_bytes, to_bytes};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::fault::plain;

/// The longest packet; longer messages of failures are cut.
const MAX_PACKET: usize = 4096;

/// One packet.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The child: the master side of its terminal.
    Terminal(OwnedFd),
    /// The child: the root of the container's mount tree.
    Root(OwnedFd),
    /// The child: the container's first process is this one (made by the child, as a child of the monitor).
    Pid(i32),
    /// The child: the mounts are there, it is time for the hooks; it waits for `Go`.
    Hooks,
    /// The child: everything is set up.
    Ready,
    /// The child: it could not, and exits.
    Failed(Failure),
    /// The parent: go on.
    Go,
    /// The other side is gone, or execed.
    End,
}

/// A connected pair: the monitor's end (non-blocking) and the child's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends a packet; a peer that is gone is no error, it is noticed elsewhere.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &Packet) {
    let mut bytes = Vec::with_capacity(1);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    match packet {
        Packet::Terminal(fd) | Packet::Root(fd) => {
            let is_root = matches!(packet, Packet::Root(_));
            bytes.push(if is_root { b'M' } else { b'T' });
            fds = [fd.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        Packet::Pid(pid) => {
            bytes.push(b'P');
            bytes.extend(pid.to_ne_bytes());
        }
        Packet::Hooks => bytes.push(b'H'),
        Packet::Ready => bytes.push(b'R'),
        Packet::Go => bytes.push(b'G'),
        Packet::End => return,
        Packet::Failed(failure) => {
            let mut failure = failure.clone();
            if failure.message.len() > MAX_PACKET - 512 {
                let cut = failure.message.floor_char_boundary(MAX_PACKET - 512);
                failure.message.truncate(cut);
            }
            bytes.push(b'F');
            bytes.extend(to_bytes(&failure).unwrap_or_default());
        }
    }
    if matches!(packet, Packet::Failed(_)) {
        // write(2), since a seccomp filter that is on already may not know sendmsg. SIGPIPE is ignored until the exec.
        let _ = rustix::io::write(socket, &bytes);
    } else {
        let _ = rustix::net::sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
    }
}

/// The next packet; `None` when there is none yet (on the monitor's end).
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Option<Packet> {
    let mut buffer = [0; MAX_PACKET];
    let mut fds = Vec::new();
    let n = match receive_bytes(socket, &mut buffer, &mut fds) {
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return None,
        Err(_) => 0,
    };
    let Some((tag, content)) = buffer[..n].split_first() else {
        return Some(Packet::End);
    };
    Some(match tag {
        b'T' => fds.pop().map_or(Packet::End, Packet::Terminal),
        b'M' => fds.pop().map_or(Packet::End, Packet::Root),
        b'P' => content
            .first_chunk()
            .map_or(Packet::End, |pid| Packet::Pid(i32::from_ne_bytes(*pid))),
        b'H' => Packet::Hooks,
        b'R' => Packet::Ready,
        b'G' => Packet::Go,
        b'F' => Packet::Failed(
            from_bytes(content).unwrap_or_else(|e| plain(Stage::Monitor, e.to_string())),
        ),
        _ => Packet::End,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_whole_and_long_messages_are_cut() {
        let (monitor, child) = pair().unwrap();
        assert!(receive(monitor.as_fd()).is_none());
        send(child.as_fd(), &Packet::Ready);
        send(child.as_fd(), &Packet::Pid(77));
        send(
            child.as_fd(),
            &Packet::Failed(plain(Stage::Mount, "ä".repeat(10_000))),
        );
        let fd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        send(child.as_fd(), &Packet::Terminal(fd));
        drop(child);
        assert!(matches!(receive(monitor.as_fd()), Some(Packet::Ready)));
        assert!(matches!(receive(monitor.as_fd()), Some(Packet::Pid(77))));
        let Some(Packet::Failed(f)) = receive(monitor.as_fd()) else {
            panic!("no failure")
        };
        assert!(f.message.starts_with("ää") && f.message.len() < MAX_PACKET);
        assert!(matches!(
            receive(monitor.as_fd()),
            Some(Packet::Terminal(_))
        ));
        assert!(matches!(receive(monitor.as_fd()), Some(Packet::End)));
    }
}
