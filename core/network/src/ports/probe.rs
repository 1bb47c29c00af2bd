//! Whether a port of the host can be had, and why not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gantry_driver_api::network::Protocol;
use rustix::net::{AddressFamily, SocketType, ipproto};

use super::table::Table;
use crate::{NetworkError, PortRequest};

/// The kernel's ephemeral ports, unless it says otherwise.
pub(super) const DEFAULT_RANGE: (u16, u16) = (32768, 60999);

/// What refuses a port.
pub(super) enum Refusal {
    Leased(SocketAddr),
    Busy(SocketAddr, io::Error),
}

/// Where a request's traffic is to go, for the message.
fn target_text(addresses: &[IpAddr], host: SocketAddr, request: &PortRequest) -> String {
    let own = addresses.iter().find(|ip| ip.is_ipv4() == host.is_ipv4());
    // What comes by IPv6 to a container without it goes to its other address.
    let target = own.or(addresses.first());
    let target = target.map(|ip| SocketAddr::new(*ip, request.container_port).to_string());
    target.unwrap_or_default()
}

impl Refusal {
    pub(super) fn into_error(self, request: &PortRequest, addresses: &[IpAddr]) -> NetworkError {
        NetworkError::internal(match self {
            Self::Leased(host) => format!("Bind for {host} failed: port is already allocated"),
            Self::Busy(host, error) => format!(
                "failed to bind host port for {host}:{}/{}: {}",
                target_text(addresses, host, request),
                request.protocol.as_str(),
                reason(&error)
            ),
        })
    }
}

const EPROTONOSUPPORT: i32 = rustix::io::Errno::PROTONOSUPPORT.raw_os_error();

/// The kernel's reason in Go's words, which clients match on.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        // The kernel has no SCTP: nobody inside could listen either.
        _ if error.raw_os_error() == Some(EPROTONOSUPPORT) => "protocol not supported".into(),
        _ => error.to_string(),
    }
}

/// Sees whether a port is free on these addresses: of other leases, and of whatever else listens. What the asking container
/// `had` just now, netd may listen on for it.
pub(super) fn probe(
    table: &Table,
    protocol: Protocol,
    ips: &[IpAddr],
    port: u16,
    had: impl Fn(Protocol, SocketAddr) -> bool,
) -> Result<(), Refusal> {
    let hosts = ips.iter().map(|ip| SocketAddr::new(*ip, port));
    if let Some(host) = hosts.clone().find(|host| !table.is_free(protocol, *host)) {
        return Err(Refusal::Leased(host));
    }
    // One socket of IPv6 can stand for every address of both families.
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if ips == any && bind(protocol, SocketAddr::new(any[1], port), false).is_ok() {
        return Ok(());
    }
    let mut others = hosts.filter(|host| !had(protocol, *host));
    others.try_for_each(|host| bind(protocol, host, true).map_err(|e| Refusal::Busy(host, e)))
}

/// The ephemeral ports in order, beginning with `from`.
pub(super) fn ephemeral(from: u16) -> Vec<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let (low, high) = range
        .and_then(|text| {
            let mut words = text.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        })
        .unwrap_or(DEFAULT_RANGE);
    let from = if (low..=high).contains(&from) {
        from
    } else {
        low
    };
    (from..=high).chain(low..from).collect()
}

/// Binds a port as a server would, and lets it go. `only`: of IPv6 nothing but that.
fn bind(protocol: Protocol, host: SocketAddr, only: bool) -> io::Result<()> {
    let family = if host.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let socket =
        match rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, number) {
            Ok(socket) => socket,
            Err(rustix::io::Errno::AFNOSUPPORT) if host.is_ipv6() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
    if host.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, only)?;
    }
    if protocol != Protocol::Udp {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &host)?;
    if protocol != Protocol::Udp {
        rustix::net::listen(&socket, 1)?;
    }
    Ok(())
}
