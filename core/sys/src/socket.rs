//! What `rustix` does not tell of a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};

/// Bytes that were written to a connected stream socket and that the other side has not taken yet: not read, for a Unix
/// socket; not acknowledged, for TCP. Source: `unix(7)`, `tcp(7)`, `SIOCOUTQ`.
///
/// # Errors
/// Those of `ioctl`, for descriptors that are not such sockets.
pub fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, and TIOCOUTQ (SIOCOUTQ's other name) writes one int to the pointer,
    // which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// The number that the kernel gave to a socket's network namespace, `SO_NETNS_COOKIE`.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel writes at most `length` bytes to the cookie and a length to
    // `length`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// Lets a socket be given what was sent to other addresses and ports of this host (nftables' `tproxy`). A UDP socket then
/// tells with each datagram where it was sent to, see [`receive_led`].
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the socket's namespace.
pub fn make_transparent(socket: impl AsFd, address: SocketAddr, datagrams: bool) -> io::Result<()> {
    // The option of IPv4 is the same bit for both families.
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    match datagrams {
        true => tell_destinations(socket, address.is_ipv4()),
        false => Ok(()),
    }
}

/// Has a UDP socket tell with each datagram where it was sent to, see [`receive_led`].
///
/// # Errors
/// Those of `setsockopt`, for sockets of another kind or family.
pub fn tell_destinations(socket: impl AsFd, v4: bool) -> io::Result<()> {
    match v4 {
        true => setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?,
        false => setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?,
    }
    Ok(())
}

/// Sends a datagram from one of the host's addresses, which matters for a UDP socket that has all of them.
///
/// # Errors
/// Those of `sendmsg`: `EAGAIN` when there is no room, `EINVAL` when the address is none of the host's.
pub fn send_from(
    socket: impl AsFd,
    datagram: &[u8],
    from: IpAddr,
    to: SocketAddr,
) -> io::Result<usize> {
    let parts = [IoSlice::new(datagram)];
    let (mut v4, mut v6);
    let source = match from {
        IpAddr::V4(ip) => {
            v4 = zeroed_v4();
            v4.ipi_spec_dst.s_addr = u32::from(ip).to_be();
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(ip) => {
            v6 = zeroed_v6();
            v6.ipi6_addr.s6_addr = ip.octets();
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let to = SockaddrStorage::from(to);
    let sent = sendmsg(
        socket.as_fd().as_raw_fd(),
        &parts,
        &[source],
        MsgFlags::MSG_DONTWAIT,
        Some(&to),
    )?;
    Ok(sent)
}

fn zeroed_v4() -> libc::in_pktinfo {
    let none = libc::in_addr { s_addr: 0 };
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: none,
        ipi_addr: none,
    }
}

fn zeroed_v6() -> libc::in6_pktinfo {
    libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: [0; 16] },
        ipi6_ifindex: 0,
    }
}

/// A datagram, and whom it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    /// Its bytes.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
}

/// Receives a datagram at a socket that tells of destinations. None: one without addresses, which is of no use.
///
/// # Errors
/// Those of `recvmsg`; `EAGAIN` when there is none.
pub fn receive_led(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<Led>> {
    let mut space = nix::cmsg_space!(nix::libc::sockaddr_in, nix::libc::sockaddr_in6);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let from = received.address.as_ref().and_then(address_of);
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            Some(SocketAddrV4::from(SockaddrIn::from(to)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            Some(SocketAddrV6::from(SockaddrIn6::from(to)).into())
        }
        _ => None,
    });
    Ok(from.zip(to).map(|(from, to)| Led {
        length: received.bytes,
        from,
        to,
    }))
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|a| SocketAddrV4::from(*a).into());
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|a| SocketAddrV6::from(*a).into())
    };
    v4.or_else(v6)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;

    use crate::netlink::{Change, RouteSocket};
    use crate::nft::{BaseChain, Batch, Expr, Family, Hook, NftSocket, Register};

    use super::*;

    #[test]
    fn counts_what_the_peer_has_not_read() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unsent(&here).unwrap(), 0);
        here.write_all(b"hello").unwrap();
        assert!(unsent(&here).unwrap() > 0);
        there.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unsent(&here).unwrap(), 0);
        assert!(unsent(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        for (any, to) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let socket = UdpSocket::bind(any).unwrap();
            tell_destinations(&socket, !any.starts_with('[')).unwrap();
            let port = socket.local_addr().unwrap().port();
            let to = SocketAddr::new(to.parse().unwrap(), port);
            let client = UdpSocket::bind(any).unwrap();
            // It hears from there alone.
            client.connect(to).unwrap();
            client.send(b"hello").unwrap();
            let led = receive_led(&socket, &mut [0; 16]).unwrap().unwrap();
            assert_eq!((led.length, led.to), (5, to));
            send_from(&socket, b"well", led.to.ip(), led.from).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(client.recv(&mut buffer).unwrap(), 4);
            let foreign = "192.0.2.77".parse().unwrap();
            if any == "0.0.0.0:0" {
                assert!(send_from(&socket, b"no", foreign, led.from).is_err());
            }
        }
    }

    /// Leads what is sent to any UDP port of the host to one port.
    fn lead(port: u16) -> Batch {
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_chain(&BaseChain {
            name: "c",
            kind: "filter",
            hook: Hook::Prerouting,
            priority: -150,
            drop: false,
        });
        let rule = vec![
            Expr::network_protocol(Register::R0),
            Expr::equal(Register::R0, &[Family::Ipv6 as u8]),
            Expr::destination_port(Register::R0),
            Expr::equal(Register::R0, &5000_u16.to_be_bytes()),
            Expr::load(&std::net::Ipv6Addr::LOCALHOST.octets(), Register::R0),
            Expr::load(&port.to_be_bytes(), Register::R4),
            Expr::lead_to(Family::Ipv6, Register::R0, Register::R4),
        ];
        batch.add_rule("c", rule, "");
        batch
    }

    #[test]
    fn datagrams_tell_where_they_were_sent_to() {
        crate::netns::create(|| {
            RouteSocket::open()?.apply(vec![Change::up(1)])?;
            let socket = UdpSocket::bind("[::1]:0")?;
            make_transparent(&socket, socket.local_addr()?, true)?;
            NftSocket::open()?.commit(lead(socket.local_addr()?.port()))?;
            let client = UdpSocket::bind("[::1]:0")?;
            let to = "[::1]:5000".parse().map_err(io::Error::other)?;
            client.send_to(b"hello", to)?;
            let mut buffer = [0; 16];
            let led = receive_led(&socket, &mut buffer)?;
            let from = client.local_addr()?;
            assert_eq!(
                led,
                Some(Led {
                    length: 5,
                    from,
                    to
                })
            );
            let none = receive_led(&socket, &mut buffer).unwrap_err();
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
            Ok(())
        })
        .unwrap();
    }
}
