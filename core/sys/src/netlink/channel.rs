//! Framing of netlink messages, shared by rtnetlink and nftables.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkSerializable};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::RecvFlags;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RECEIVE: usize = 32 * 1024;

/// A buffer that holds the largest datagram the kernel sends for our requests.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; RECEIVE]
}

/// Appends a message in wire form.
pub(crate) fn append<T: NetlinkSerializable>(bytes: &mut Vec<u8>, mut message: NetlinkMessage<T>) {
    message.finalize();
    let at = bytes.len();
    bytes.resize(at + message.header.length.next_multiple_of(4) as usize, 0);
    message.serialize(&mut bytes[at..]);
}

/// One received message.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// The number of the socket whose request it is about.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// The result, when it is an acknowledgement.
    pub(crate) fn ack(&self) -> Option<io::Result<()>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = self
            .payload
            .first_chunk::<4>()
            .map_or(0, |c| i32::from_ne_bytes(*c));
        Some(match code {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        })
    }
}

/// Splits a datagram into its messages; what is malformed ends the iteration.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        let payload = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: word(8),
            port: word(12),
            payload,
        })
    }
}

/// A netlink socket connected to the kernel, with sequence numbers.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    port: u32,
}

impl Channel {
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // Acknowledgements then do not repeat the request.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            port,
        })
    }

    /// Receives what the kernel tells all members of a multicast group.
    pub(crate) fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// The number by which the kernel knows the socket.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Lets one send be as large as `bytes`.
    pub(crate) fn allow_send(&self, bytes: usize) {
        // Without CAP_NET_ADMIN it stays as it is, and too large a send fails with EMSGSIZE.
        let _ = nix::sys::socket::setsockopt(
            &self.socket,
            nix::sys::socket::sockopt::SndBufForce,
            &bytes,
        );
    }

    /// Lets about so many bytes wait to be received.
    pub(crate) fn allow_waiting(&self, bytes: usize) {
        // Without CAP_NET_ADMIN it stays as it is, and changes are missed sooner.
        let _ = nix::sys::socket::setsockopt(
            &self.socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &bytes,
        );
    }

    /// Whether the kernel is to send of what it is asked to dump only what the request describes. One that cannot sends all.
    pub(crate) fn strict(&self, strict: bool) {
        let _ = self.socket.set_netlink_get_strict_chk(strict);
    }

    /// Takes `count` sequence numbers in a row and returns the first.
    pub(crate) fn reserve(&mut self, count: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count as u32);
        first
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes, 0).map(drop)
    }

    /// Waits for one datagram.
    pub(crate) fn receive<'a>(
        &self,
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<impl Iterator<Item = Frame<'a>>> {
        let (length, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
        })?;
        Ok(Frames(&buffer[..length.min(buffer.len())]))
    }

    /// Sends a request and calls `each` with type and payload of every reply to it: of a dump until the kernel says that
    /// it was the last, of any other request once.
    pub(crate) fn query<T: NetlinkSerializable>(
        &mut self,
        mut message: NetlinkMessage<T>,
        each: &mut dyn FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let sequence = self.reserve(1);
        let many = message.header.flags & NLM_F_DUMP == NLM_F_DUMP;
        message.header.sequence_number = sequence;
        let mut bytes = Vec::new();
        append(&mut bytes, message);
        self.send(&bytes)?;
        let mut buffer = buffer();
        loop {
            for frame in self.receive(&mut buffer)? {
                if frame.sequence != sequence {
                    continue;
                }
                if let Some(result) = frame.ack() {
                    return result;
                }
                if frame.kind == NLMSG_DONE {
                    return Ok(());
                }
                each(frame.kind, frame.payload);
                if !many {
                    return Ok(());
                }
            }
        }
    }
}
