//! Messages with descriptors over SEQPACKET sockets.
//!
//! A message is one packet, or, where it is longer, several: each begins with a byte that no message begins with and one that
//! says whether more follow. Descriptors come with the first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest packet: more does not fit into a socket's buffer everywhere.
pub(crate) const LONGEST: usize = 128 * 1024;
/// The longest message: a sandbox with a hundred thousand names.
const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;
const MOST_FDS: usize = 2;
/// What MessagePack never uses.
const PART: u8 = 0xc1;

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The address of a socket file, however long its directory's path: it is reached by a descriptor of the directory.
fn with_address<T>(
    path: &Path,
    work: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid("a socket needs a directory and a name"));
    };
    let dir = std::fs::File::open(dir)?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    work(&SocketAddrUnix::new(&short)?)
}

pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    with_address(path, |address| {
        rustix::net::bind(&socket, address)?;
        rustix::net::listen(&socket, 8)?;
        Ok(())
    })?;
    Ok(socket)
}

pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    with_address(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    Ok(socket)
}

/// Sends one message. On a socket that does not block, short ones only.
///
/// # Errors
/// `FileTooLarge`, with nothing sent, for one that is too long.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = rmp_serde::to_vec_named(message).map_err(invalid)?;
    if bytes.len() > LONGEST_MESSAGE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    if bytes.len() <= LONGEST {
        return send_packet(&socket, &[], &bytes, fds);
    }
    let parts = bytes.chunks(LONGEST - 2);
    let last = parts.len() - 1;
    for (at, part) in parts.enumerate() {
        let fds = if at == 0 { fds } else { &[] };
        send_packet(&socket, &[PART, u8::from(at < last)], part, fds)?;
    }
    Ok(())
}

fn send_packet(
    socket: &impl AsFd,
    head: &[u8],
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("too many descriptors"));
    }
    let bytes = [IoSlice::new(head), IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// What has come of the next message.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    parts: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Receiver {
    /// Receives one message; none at the end of the connection. Where the socket does not block, what has come of one that is
    /// not whole is kept for the next call.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut packet = vec![0; LONGEST];
        loop {
            let length = self.receive_packet(&socket, &mut packet)?;
            let whole = match &packet[..length] {
                [] if self.parts.is_empty() => return Ok(None),
                [] => return Err(io::ErrorKind::UnexpectedEof.into()),
                [PART, more, part @ ..] => {
                    if self.parts.len() + part.len() > LONGEST_MESSAGE {
                        return Err(invalid("the message is too long"));
                    }
                    self.parts.extend_from_slice(part);
                    if *more != 0 {
                        continue;
                    }
                    rmp_serde::from_slice(&std::mem::take(&mut self.parts))
                }
                _ if !self.parts.is_empty() => return Err(invalid("a message within another")),
                whole => rmp_serde::from_slice(whole),
            };
            let fds = std::mem::take(&mut self.fds);
            return Ok(Some((whole.map_err(invalid)?, fds)));
        }
    }

    fn receive_packet(&mut self, socket: &impl AsFd, packet: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                socket,
                &mut [IoSliceMut::new(packet)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) || self.fds.len() > MOST_FDS {
            return Err(invalid("the message is too long"));
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn long_messages_come_in_parts_and_arrive_whole() {
        let (sender, receiver) = pair();
        let long: Vec<String> = (0..200_000).map(|n| format!("name-{n}")).collect();
        let (file, messages) = (std::fs::File::open("/dev/null").unwrap(), [long, vec![]]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for message in &messages {
                    send(&sender, message, &[file.as_fd()]).unwrap();
                }
                let too_long = "x".repeat(LONGEST_MESSAGE);
                let error = send(&sender, &too_long, &[]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
                rustix::net::shutdown(&sender, rustix::net::Shutdown::Both).unwrap();
            });
            let mut of = Receiver::default();
            for message in &messages {
                let (got, fds): (Vec<String>, _) = of.receive(&receiver).unwrap().unwrap();
                assert_eq!((&got, fds.len()), (message, 1));
            }
            assert!(of.receive::<Vec<String>>(&receiver).unwrap().is_none());
        });
    }

    #[test]
    fn what_is_cut_off_is_not_a_message() {
        let (sender, receiver) = pair();
        send_packet(&sender, &[PART, 1], b"\x93\x01", &[]).unwrap();
        drop(sender);
        let cut = Receiver::default().receive::<Vec<u8>>(&receiver);
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (sender, receiver) = pair();
        send_packet(&sender, &[PART, 1], b"\x93\x01", &[]).unwrap();
        send(&sender, &[1, 2, 3], &[]).unwrap();
        let mixed = Receiver::default().receive::<Vec<u8>>(&receiver);
        assert_eq!(mixed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
