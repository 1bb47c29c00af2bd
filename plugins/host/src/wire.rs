//! Packets between the engine and a driver's process: a SEQPACKET socket, descriptors by SCM_RIGHTS.
//!
//! A request is `id, timeout, flags, method length, operation length`, the two names and the body; a reply is
//! `id, status, flags` and the body. Numbers are little-endian. A body that would not fit a packet travels as a memory
//! file, the last of the packet's descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The version of this format, said first by both sides.
pub(crate) const WIRE: u32 = 1;
/// Bodies up to this many bytes travel in the packet. Well below what a socket's send buffer takes by default.
const INLINE: usize = 48 * 1024;
/// Larger bodies are refused.
const MAX_BODY: u64 = 64 * 1024 * 1024;
/// Descriptors in one packet, a memory file included.
const MAX_FDS: usize = 33;
/// A receive buffer of this size holds every packet.
pub(crate) const PACKET: usize = INLINE + 1024;
/// The body is in the last descriptor.
const BODY_IN_FILE: u8 = 1;

const REQUEST_HEAD: usize = 8 + 8 + 1 + 1 + 2;
const REPLY_HEAD: usize = 8 + 1 + 1;

/// How a reply is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ReplyStatus {
    Ok = 0,
    /// The body is an encoded fault.
    Fault = 1,
    /// The body is the text of a panic.
    Panicked = 2,
}

/// A received packet: its bytes are in the receiver's buffer.
pub(crate) struct Packet {
    pub(crate) length: usize,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A request as the driver's process sees it.
pub(crate) struct Request<'a> {
    pub(crate) id: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) method: &'a str,
    pub(crate) operation: &'a str,
    pub(crate) body: Body<'a>,
}

/// A reply as the engine sees it.
pub(crate) struct Reply<'a> {
    pub(crate) id: u64,
    pub(crate) status: ReplyStatus,
    pub(crate) body: Body<'a>,
}

/// A body, wherever it is.
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    File(OwnedFd),
}

impl Body<'_> {
    /// Copies the body to `out`, replacing what it held.
    pub(crate) fn read_into(self, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        match self {
            Body::Inline(bytes) => out.extend_from_slice(bytes),
            Body::File(fd) => {
                let mut file = File::from(fd);
                file.rewind()?;
                if file.take(MAX_BODY + 1).read_to_end(out)? as u64 > MAX_BODY {
                    return Err(io::Error::other("message too large"));
                }
            }
        }
        Ok(())
    }
}

/// Sends a request. Waits for room until `end`.
pub(crate) fn send_request(
    socket: BorrowedFd<'_>,
    id: u64,
    timeout: Option<Duration>,
    names: (&str, &str),
    body: &[u8],
    fds: &[BorrowedFd<'_>],
    end: Option<Instant>,
) -> io::Result<()> {
    let (method, operation) = names;
    let (Ok(method_length), true) = (u8::try_from(method.len()), operation.len() <= 512) else {
        return Err(io::Error::other("name too long"));
    };
    let timeout = timeout.map_or(u64::MAX, |t| {
        u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)
    });
    let mut head = Vec::with_capacity(REQUEST_HEAD + method.len() + operation.len());
    head.extend_from_slice(&id.to_le_bytes());
    head.extend_from_slice(&timeout.to_le_bytes());
    head.push(flags(body));
    head.push(method_length);
    head.extend_from_slice(&(operation.len() as u16).to_le_bytes());
    head.extend_from_slice(method.as_bytes());
    head.extend_from_slice(operation.as_bytes());
    send(socket, &head, body, fds, end)
}

/// Sends a reply.
pub(crate) fn send_reply(
    socket: BorrowedFd<'_>,
    id: u64,
    status: ReplyStatus,
    body: &[u8],
) -> io::Result<()> {
    let mut head = [0; REPLY_HEAD];
    head[..8].copy_from_slice(&id.to_le_bytes());
    head[8] = status as u8;
    head[9] = flags(body);
    send(socket, &head, body, &[], None)
}

fn flags(body: &[u8]) -> u8 {
    if body.len() > INLINE { BODY_IN_FILE } else { 0 }
}

fn send(
    socket: BorrowedFd<'_>,
    head: &[u8],
    body: &[u8],
    fds: &[BorrowedFd<'_>],
    end: Option<Instant>,
) -> io::Result<()> {
    if fds.len() >= MAX_FDS || body.len() as u64 > MAX_BODY {
        return Err(io::Error::other("message too large"));
    }
    let file;
    let mut all;
    let (body, fds) = if body.len() > INLINE {
        file = memory_file(body)?;
        all = fds.to_vec();
        all.push(file.as_fd());
        (&[][..], all.as_slice())
    } else {
        (body, fds)
    };
    let parts = [IoSlice::new(head), IoSlice::new(body)];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(socket, &parts, &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait(socket, PollFlags::OUT, end)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn memory_file(body: &[u8]) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("gantry-message", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(body)?;
    Ok(file)
}

/// Receives one packet into `buffer`, which has [`PACKET`] bytes. `TimedOut` at `end`; none when the other side is
/// gone.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    end: Option<Instant>,
) -> io::Result<Option<Packet>> {
    let flags = match end {
        Some(_) => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        None => RecvFlags::CMSG_CLOEXEC,
    };
    loop {
        if end.is_some() {
            wait(socket, PollFlags::IN, end)?;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags);
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other("truncated packet"));
        }
        return Ok(Some(Packet {
            length: received.bytes,
            fds,
        }));
    }
}

fn wait(socket: BorrowedFd<'_>, events: PollFlags, end: Option<Instant>) -> io::Result<()> {
    loop {
        let left = match end {
            None => None,
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Timespec::try_from(left).ok()
            }
        };
        let mut fds = [PollFd::from_borrowed_fd(socket, events)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed packet")
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> io::Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(malformed)?;
    *bytes = rest;
    Ok(*head)
}

fn text<'a>(bytes: &mut &'a [u8], length: usize) -> io::Result<&'a str> {
    let (head, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
    *bytes = rest;
    std::str::from_utf8(head).map_err(|_| malformed())
}

fn body<'a>(bytes: &'a [u8], flags: u8, fds: &mut Vec<OwnedFd>) -> io::Result<Body<'a>> {
    if flags & BODY_IN_FILE == 0 {
        return Ok(Body::Inline(bytes));
    }
    fds.pop().map(Body::File).ok_or_else(malformed)
}

/// Reads a request; a memory file is taken from `fds`.
pub(crate) fn parse_request<'a>(
    mut bytes: &'a [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Request<'a>> {
    let bytes = &mut bytes;
    let id = u64::from_le_bytes(take(bytes)?);
    let timeout = u64::from_le_bytes(take(bytes)?);
    let [flags, method] = take(bytes)?;
    let operation = u16::from_le_bytes(take(bytes)?);
    let method = text(bytes, usize::from(method))?;
    let operation = text(bytes, usize::from(operation))?;
    Ok(Request {
        id,
        timeout: (timeout != u64::MAX).then(|| Duration::from_nanos(timeout)),
        method,
        operation,
        body: body(bytes, flags, fds)?,
    })
}

/// Reads a reply; a memory file is taken from `fds`.
pub(crate) fn parse_reply<'a>(
    mut bytes: &'a [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Reply<'a>> {
    let bytes = &mut bytes;
    let id = u64::from_le_bytes(take(bytes)?);
    let [status, flags] = take(bytes)?;
    let status = match status {
        0 => ReplyStatus::Ok,
        1 => ReplyStatus::Fault,
        2 => ReplyStatus::Panicked,
        _ => return Err(malformed()),
    };
    Ok(Reply {
        id,
        status,
        body: body(bytes, flags, fds)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn requests_of_every_size_arrive() {
        let (a, b) = pair();
        let mut buffer = vec![0; PACKET];
        for size in [0, 1, INLINE, INLINE + 1, 3_000_000] {
            let sent: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let timeout = Some(Duration::from_millis(5));
            let fds = [a.as_fd()];
            send_request(a.as_fd(), 7, timeout, ("join", "op"), &sent, &fds, None).unwrap();
            let mut packet = receive(b.as_fd(), &mut buffer, None).unwrap().unwrap();
            let request = parse_request(&buffer[..packet.length], &mut packet.fds).unwrap();
            assert_eq!((request.id, request.timeout), (7, timeout));
            assert_eq!((request.method, request.operation), ("join", "op"));
            let mut body = Vec::new();
            request.body.read_into(&mut body).unwrap();
            assert_eq!(body, sent);
            assert_eq!(packet.fds.len(), 1);
        }
    }

    #[test]
    fn malformed_packets_are_errors() {
        for bytes in [&[][..], &[0; 10], &[0xff; 40]] {
            assert!(parse_request(bytes, &mut Vec::new()).is_err());
        }
        assert!(parse_reply(&[0; 9], &mut Vec::new()).is_err());
        assert!(parse_reply(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 0], &mut Vec::new()).is_err());
        assert!(parse_reply(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn waits_end() {
        let (a, b) = pair();
        let mut buffer = vec![0; PACKET];
        let end = Some(Instant::now() + Duration::from_millis(1));
        let error = receive(a.as_fd(), &mut buffer, end).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(b);
        assert!(receive(a.as_fd(), &mut buffer, None).unwrap().is_none());
    }
}
