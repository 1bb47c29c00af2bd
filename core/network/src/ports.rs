//! Leases of host ports.
//!
//! The kernel translates; nothing listens. A lease is therefore checked against the other leases, and by binding the
//! port for a moment against whatever else listens on the host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use gantry_driver_api::network::Protocol;
use gantry_model::ContainerId;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::{NetworkError, PortBinding, PortRequest, Result};

/// The kernel's ephemeral ports, unless it says otherwise.
const DEFAULT_RANGE: (u16, u16) = (32768, 60999);

#[derive(Debug, Default)]
struct Table {
    leases: HashMap<(Protocol, u16), Vec<(IpAddr, ContainerId)>>,
    /// Where the search for an ephemeral port goes on.
    next: u16,
}

/// Every leased port of the engine.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    table: Mutex<Table>,
}

fn collide(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Table {
    fn is_free(&self, protocol: Protocol, host: SocketAddr) -> bool {
        let held = self.leases.get(&(protocol, host.port()));
        !held.is_some_and(|held| held.iter().any(|(ip, _)| collide(*ip, host.ip())))
    }

    fn insert(&mut self, owner: &ContainerId, protocol: Protocol, host: SocketAddr) {
        let held = self.leases.entry((protocol, host.port())).or_default();
        held.push((host.ip(), owner.clone()));
    }
}

/// What refuses a port.
enum Refusal {
    Leased(SocketAddr),
    Busy(SocketAddr, io::Error),
}

/// Where a request's traffic is to go, for the message.
fn target_text(addresses: &[IpAddr], host: SocketAddr, request: &PortRequest) -> String {
    let target = addresses.iter().find(|ip| ip.is_ipv4() == host.is_ipv4());
    let target = target.map(|ip| SocketAddr::new(*ip, request.container_port).to_string());
    target.unwrap_or_default()
}

impl Refusal {
    fn into_error(self, request: &PortRequest, addresses: &[IpAddr]) -> NetworkError {
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

/// The kernel's reason in Go's words, which clients match on.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

impl Ports {
    /// No leases. Engines on one host do not know of each other's ports, which nothing listens on: they begin to search for
    /// ephemeral ones at different places.
    pub(crate) fn of_engine(tag: &str) -> Self {
        let hash = tag.bytes().fold(0_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let (low, high) = DEFAULT_RANGE;
        let next = u32::from(low) + hash % (u32::from(high - low) + 1);
        Self {
            table: Mutex::new(Table {
                next: u16::try_from(next).unwrap_or(low),
                ..Table::default()
            }),
        }
    }

    /// Leases all of the wished ports, or none, in exchange for others: on failure all is as it was, and nobody else can
    /// get what was given back before it is known whether the new ones are to be had. `hosts` gives the host addresses
    /// of a request without one; `addresses` are the container's.
    pub(crate) fn exchange(
        &self,
        owner: &ContainerId,
        gone: &[PortBinding],
        requests: &[PortRequest],
        hosts: &[IpAddr],
        addresses: &[IpAddr],
    ) -> Result<Vec<PortBinding>> {
        let mut table = self.table.lock();
        release(&mut table, owner, gone);
        let mut bindings = Vec::with_capacity(requests.len());
        for request in requests {
            let one;
            let ips = match request.host_ip {
                Some(ip) => {
                    one = [ip];
                    &one[..]
                }
                None => hosts,
            };
            match lease_one(&mut table, owner, request, ips) {
                Ok(made) => bindings.extend(made),
                Err(refusal) => {
                    release(&mut table, owner, &bindings);
                    keep(&mut table, owner, gone);
                    return Err(refusal.into_error(request, addresses));
                }
            }
        }
        Ok(bindings)
    }

    /// Notes the leases of a container that outlived the daemon.
    pub(crate) fn keep(&self, owner: &ContainerId, bindings: &[PortBinding]) {
        keep(&mut self.table.lock(), owner, bindings);
    }

    /// Gives leases back.
    pub(crate) fn release(&self, owner: &ContainerId, bindings: &[PortBinding]) {
        release(&mut self.table.lock(), owner, bindings);
    }
}

pub(crate) fn host_of(binding: &PortBinding) -> SocketAddr {
    SocketAddr::new(binding.host_ip, binding.host_port)
}

fn keep(table: &mut Table, owner: &ContainerId, bindings: &[PortBinding]) {
    for binding in bindings {
        table.insert(owner, binding.protocol, host_of(binding));
    }
}

fn release(table: &mut Table, owner: &ContainerId, bindings: &[PortBinding]) {
    for binding in bindings {
        let key = (binding.protocol, binding.host_port);
        if let Some(held) = table.leases.get_mut(&key) {
            held.retain(|(ip, holder)| *ip != binding.host_ip || holder != owner);
            if held.is_empty() {
                table.leases.remove(&key);
            }
        }
    }
}

/// Leases one request's port on every address, the same number on each.
fn lease_one(
    table: &mut Table,
    owner: &ContainerId,
    request: &PortRequest,
    ips: &[IpAddr],
) -> std::result::Result<Vec<PortBinding>, Refusal> {
    let candidates: Vec<u16> = match request.host_port {
        0 => ephemeral(table.next),
        first => (first..=request.host_port_end.max(first)).collect(),
    };
    let mut refusal = None;
    for port in candidates {
        match probe(table, request.protocol, ips, port) {
            Ok(()) => {
                if request.host_port == 0 {
                    table.next = port.wrapping_add(1);
                }
                let bindings = ips.iter().map(|ip| PortBinding {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: *ip,
                    host_port: port,
                });
                let bindings: Vec<_> = bindings.collect();
                for binding in &bindings {
                    table.insert(owner, binding.protocol, host_of(binding));
                }
                return Ok(bindings);
            }
            Err(e) => {
                refusal.get_or_insert(e);
            }
        }
    }
    Err(refusal.unwrap_or(Refusal::Leased(SocketAddr::new(
        ips.first().copied().unwrap_or(IpAddr::V4(0.into())),
        request.host_port,
    ))))
}

fn probe(
    table: &Table,
    protocol: Protocol,
    ips: &[IpAddr],
    port: u16,
) -> std::result::Result<(), Refusal> {
    for ip in ips {
        let host = SocketAddr::new(*ip, port);
        if !table.is_free(protocol, host) {
            return Err(Refusal::Leased(host));
        }
        bind(protocol, host).map_err(|e| Refusal::Busy(host, e))?;
    }
    Ok(())
}

/// The ephemeral ports in order, beginning with `from`.
fn ephemeral(from: u16) -> Vec<u16> {
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

/// Binds a port as a server would, and lets it go.
fn bind(protocol: Protocol, host: SocketAddr) -> io::Result<()> {
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
            // Without SCTP in the kernel nobody can hold such a port.
            Err(rustix::io::Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp => return Ok(()),
            Err(rustix::io::Errno::AFNOSUPPORT) if host.is_ipv6() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
    if host.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn request(protocol: Protocol, first: u16, last: u16) -> PortRequest {
        PortRequest {
            protocol,
            container_port: 80,
            host_ip: None,
            host_port: first,
            host_port_end: last,
        }
    }

    impl Ports {
        fn lease(
            &self,
            owner: &ContainerId,
            requests: &[PortRequest],
            hosts: &[IpAddr],
            addresses: &[IpAddr],
        ) -> Result<Vec<PortBinding>> {
            self.exchange(owner, &[], requests, hosts, addresses)
        }
    }

    /// A namespace of its own, in which every port is free.
    fn alone(work: impl FnOnce() + Send) {
        gantry_sys::netns::create(|| {
            let mut socket = gantry_sys::netlink::RouteSocket::open()?;
            socket.apply(vec![gantry_sys::netlink::Change::up(1)])?;
            work();
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_port_is_leased_once() {
        alone(|| {
            let ports = Ports::default();
            let (a, b) = (ContainerId::generate(), ContainerId::generate());
            let container = ["172.17.0.2".parse().unwrap()];
            let tcp = [request(Protocol::Tcp, 8080, 8080)];
            let held = ports.lease(&a, &tcp, &[ANY], &container).unwrap();
            ports
                .lease(
                    &a,
                    &[request(Protocol::Udp, 8080, 8080)],
                    &[ANY],
                    &container,
                )
                .unwrap();
            let error = ports.lease(&b, &tcp, &[LOCAL], &container).unwrap_err();
            assert_eq!(
                error.message,
                "Bind for 127.0.0.1:8080 failed: port is already allocated"
            );
            let next = ports
                .lease(
                    &b,
                    &[request(Protocol::Tcp, 8080, 8082)],
                    &[ANY],
                    &container,
                )
                .unwrap();
            assert_eq!(next[0].host_port, 8081);
            ports.release(&b, &held);
            assert!(
                ports.lease(&b, &tcp, &[ANY], &container).is_err(),
                "not the holder's to release"
            );
            ports.release(&a, &held);
            ports.lease(&b, &tcp, &[ANY], &container).unwrap();
        });
    }

    #[test]
    fn an_exchange_that_fails_changes_nothing() {
        alone(|| {
            let ports = Ports::default();
            let (a, b) = (ContainerId::generate(), ContainerId::generate());
            let tcp = |port| [request(Protocol::Tcp, port, port)];
            let held = ports.lease(&a, &tcp(8080), &[ANY], &[]).unwrap();
            ports.lease(&b, &tcp(8081), &[ANY], &[]).unwrap();
            let wanted = [tcp(8080), tcp(8081)].concat();
            ports.exchange(&a, &held, &wanted, &[ANY], &[]).unwrap_err();
            assert!(ports.lease(&b, &tcp(8080), &[ANY], &[]).is_err());
            let new = ports.exchange(&a, &held, &tcp(8082), &[ANY], &[]).unwrap();
            assert_eq!(new[0].host_port, 8082);
            ports.lease(&b, &tcp(8080), &[ANY], &[]).unwrap();
        });
    }

    #[test]
    fn foreign_listeners_are_seen_and_all_or_none_is_leased() {
        alone(|| {
            let ports = Ports::default();
            let owner = ContainerId::generate();
            let container = ["172.17.0.2".parse().unwrap()];
            let _tcp = TcpListener::bind("127.0.0.1:8081").unwrap();
            let _udp = UdpSocket::bind("127.0.0.1:8082").unwrap();
            let both = [
                request(Protocol::Tcp, 8080, 8080),
                request(Protocol::Tcp, 8081, 8081),
            ];
            let error = ports.lease(&owner, &both, &[ANY], &container).unwrap_err();
            assert_eq!(
                error.message,
                "failed to bind host port for 0.0.0.0:8081:172.17.0.2:80/tcp: address already in use"
            );
            ports.lease(&owner, &both[..1], &[ANY], &container).unwrap();
            let udp = [request(Protocol::Udp, 8082, 8082)];
            assert!(ports.lease(&owner, &udp, &[ANY], &container).is_err());
            let foreign = [request(Protocol::Udp, 8083, 8083)];
            let error = ports
                .lease(
                    &owner,
                    &foreign,
                    &["192.0.2.1".parse().unwrap()],
                    &container,
                )
                .unwrap_err();
            assert!(
                error.message.ends_with("cannot assign requested address"),
                "{error}"
            );
        });
    }

    #[test]
    fn ephemeral_ports_skip_busy_ones_and_go_round() {
        alone(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40002").unwrap();
            let _busy = TcpListener::bind("0.0.0.0:40001").unwrap();
            let ports = Ports::default();
            let owner = ContainerId::generate();
            let any = [request(Protocol::Tcp, 0, 0)];
            let lease = || ports.lease(&owner, &any, &[ANY], &[]).map(|b| b[0].clone());
            let first = lease().unwrap();
            assert_eq!(
                (first.host_port, lease().unwrap().host_port),
                (40000, 40002)
            );
            assert!(lease().is_err());
            ports.release(&owner, &[first]);
            assert_eq!(lease().unwrap().host_port, 40000);
        });
    }
}
