//! Leases of host ports.
//!
//! The kernel translates; nothing listens. A lease is therefore checked against the other leases, and by binding the
//! port for a moment against whatever else listens on the host.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gantry_driver_api::network::Protocol;
use gantry_model::ContainerId;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::rows::InRow;
use crate::{NetworkError, PortBinding, PortRequest, Result};

/// The kernel's ephemeral ports, unless it says otherwise.
const DEFAULT_RANGE: (u16, u16) = (32768, 60999);

impl InRow for PortRequest {
    fn after(&self, by: u16) -> Option<Self> {
        let exact = self.host_port != 0 && self.host_port == self.host_port_end;
        let host_port = match exact {
            true => self.host_port.checked_add(by)?,
            false => self.host_port,
        };
        Some(Self {
            container_port: self.container_port.checked_add(by)?,
            host_port,
            host_port_end: if exact { host_port } else { self.host_port_end },
            ..self.clone()
        })
    }
}

impl InRow for PortBinding {
    fn after(&self, by: u16) -> Option<Self> {
        // Without a port of the host, none follows.
        let host_port = match self.host_port {
            0 => 0,
            port => port.checked_add(by)?,
        };
        Some(Self {
            container_port: self.container_port.checked_add(by)?,
            host_port,
            ..self.clone()
        })
    }
}

/// Rows of ports that containers hold on one address: by the first port, the last one and the holder.
type Rows = BTreeMap<u16, (u16, ContainerId)>;

#[derive(Debug, Default)]
struct Table {
    leases: HashMap<(Protocol, IpAddr), Rows>,
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

/// The row that a port is in: its first and last port, and the holder.
fn row_of(rows: &Rows, port: u16) -> Option<(u16, u16, &ContainerId)> {
    let (first, (last, holder)) = rows.range(..=port).next_back()?;
    (port <= *last).then_some((*first, *last, holder))
}

impl Table {
    fn is_free(&self, protocol: Protocol, host: SocketAddr) -> bool {
        let mut others = self
            .leases
            .iter()
            .filter(|((of, ip), _)| *of == protocol && collide(*ip, host.ip()));
        others.all(|(_, rows)| row_of(rows, host.port()).is_none())
    }

    fn insert(&mut self, owner: &ContainerId, protocol: Protocol, host: SocketAddr) {
        let rows = self.leases.entry((protocol, host.ip())).or_default();
        let port = host.port();
        let before = port.checked_sub(1).and_then(|before| row_of(rows, before));
        match before.filter(|(_, _, holder)| *holder == owner) {
            Some((first, ..)) => drop(rows.insert(first, (port, owner.clone()))),
            None => drop(rows.insert(port, (port, owner.clone()))),
        }
    }

    fn remove(&mut self, owner: &ContainerId, protocol: Protocol, host: SocketAddr) {
        let key = (protocol, host.ip());
        let Some(rows) = self.leases.get_mut(&key) else {
            return;
        };
        let port = host.port();
        let Some((first, last, _)) = row_of(rows, port).filter(|(_, _, holder)| *holder == owner)
        else {
            return;
        };
        rows.remove(&first);
        if first < port {
            rows.insert(first, (port - 1, owner.clone()));
        }
        if port < last {
            rows.insert(port + 1, (last, owner.clone()));
        }
        if rows.is_empty() {
            self.leases.remove(&key);
        }
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
    /// of a request; `addresses` are the container's.
    pub(crate) fn exchange(
        &self,
        owner: &ContainerId,
        gone: &[PortBinding],
        requests: impl IntoIterator<Item = PortRequest>,
        hosts: impl Fn(&PortRequest) -> Vec<IpAddr>,
        addresses: &[IpAddr],
    ) -> Result<Vec<PortBinding>> {
        let mut table = self.table.lock();
        release(&mut table, owner, gone.iter().cloned());
        let mut bindings = Vec::new();
        for request in requests {
            match lease_one(&mut table, owner, &request, &hosts(&request)) {
                Ok(made) => bindings.extend(made),
                Err(refusal) => {
                    release(&mut table, owner, bindings);
                    keep(&mut table, owner, gone.iter().cloned());
                    return Err(refusal.into_error(&request, addresses));
                }
            }
        }
        Ok(bindings)
    }

    /// Notes the leases of a container that outlived the daemon.
    pub(crate) fn keep(&self, owner: &ContainerId, bindings: impl Iterator<Item = PortBinding>) {
        keep(&mut self.table.lock(), owner, bindings);
    }

    /// Gives leases back.
    pub(crate) fn release(&self, owner: &ContainerId, bindings: impl Iterator<Item = PortBinding>) {
        release(&mut self.table.lock(), owner, bindings);
    }
}

pub(crate) fn host_of(binding: &PortBinding) -> SocketAddr {
    SocketAddr::new(binding.host_ip, binding.host_port)
}

fn keep(table: &mut Table, owner: &ContainerId, bindings: impl IntoIterator<Item = PortBinding>) {
    // Those without a port of the host hold none.
    for binding in bindings.into_iter().filter(|b| b.host_port != 0) {
        table.insert(owner, binding.protocol, host_of(&binding));
    }
}

fn release(
    table: &mut Table,
    owner: &ContainerId,
    bindings: impl IntoIterator<Item = PortBinding>,
) {
    for binding in bindings {
        table.remove(owner, binding.protocol, host_of(&binding));
    }
}

/// Leases one request's port on every address, the same number on each.
fn lease_one(
    table: &mut Table,
    owner: &ContainerId,
    request: &PortRequest,
    ips: &[IpAddr],
) -> std::result::Result<Vec<PortBinding>, Refusal> {
    if ips.is_empty() {
        return Ok(Vec::new());
    }
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
    let mut hosts = ips.iter().map(|ip| SocketAddr::new(*ip, port));
    if let Some(host) = hosts.clone().find(|host| !table.is_free(protocol, *host)) {
        return Err(Refusal::Leased(host));
    }
    // One socket of IPv6 can stand for every address of both families.
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if ips == any && bind(protocol, SocketAddr::new(any[1], port), false).is_ok() {
        return Ok(());
    }
    hosts.try_for_each(|host| bind(protocol, host, true).map_err(|e| Refusal::Busy(host, e)))
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
            self.exchange_at(owner, &[], requests, hosts, addresses)
        }

        fn exchange_at(
            &self,
            owner: &ContainerId,
            gone: &[PortBinding],
            requests: &[PortRequest],
            hosts: &[IpAddr],
            addresses: &[IpAddr],
        ) -> Result<Vec<PortBinding>> {
            let hosts = |r: &PortRequest| r.host_ip.map_or(hosts.to_vec(), |ip| vec![ip]);
            self.exchange(owner, gone, requests.to_vec(), hosts, addresses)
        }

        fn give_back(&self, owner: &ContainerId, bindings: &[PortBinding]) {
            self.release(owner, bindings.iter().cloned());
        }

        fn rows(&self) -> Vec<(u16, u16)> {
            let table = self.table.lock();
            let rows = table.leases.values().flatten();
            rows.map(|(first, (last, _))| (*first, *last)).collect()
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
            ports.give_back(&b, &held);
            assert!(
                ports.lease(&b, &tcp, &[ANY], &container).is_err(),
                "not the holder's to release"
            );
            ports.give_back(&a, &held);
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
            ports
                .exchange_at(&a, &held, &wanted, &[ANY], &[])
                .unwrap_err();
            assert!(ports.lease(&b, &tcp(8080), &[ANY], &[]).is_err());
            let new = ports
                .exchange_at(&a, &held, &tcp(8082), &[ANY], &[])
                .unwrap();
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
            let both = [ANY, IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            assert!(ports.lease(&owner, &udp, &both, &container).is_err());
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
            ports.give_back(&owner, &[first]);
            assert_eq!(lease().unwrap().host_port, 40000);
        });
    }

    #[test]
    fn many_ports_are_a_row_that_may_be_broken() {
        alone(|| {
            let ports = Ports::default();
            let (a, b) = (ContainerId::generate(), ContainerId::generate());
            let row = request(Protocol::Udp, 20000, 20000);
            let all: Vec<_> = (0..1000).filter_map(|by| row.after(by)).collect();
            let held = ports.lease(&a, &all, &[ANY], &[]).unwrap();
            assert_eq!((held.len(), held[999].host_port), (1000, 20999));
            assert_eq!(held[999].container_port, 1079);
            assert_eq!(ports.rows(), [(20000, 20999)]);
            ports.give_back(&a, &held[500..501]);
            assert_eq!(ports.rows(), [(20000, 20499), (20501, 20999)]);
            ports.lease(&b, &all[500..501], &[ANY], &[]).unwrap();
            assert!(ports.lease(&b, &all[..1], &[LOCAL], &[]).is_err());
            ports.give_back(&a, &held);
            assert_eq!(ports.rows(), [(20500, 20500)]);
        });
    }

    #[test]
    fn sctp_is_refused_where_nobody_could_listen() {
        alone(|| {
            let there =
                rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP));
            let wanted = [request(Protocol::Sctp, 3868, 3868)];
            let container = ["172.17.0.2".parse().unwrap()];
            let leased =
                Ports::default().lease(&ContainerId::generate(), &wanted, &[ANY], &container);
            match there {
                Ok(_) => assert_eq!(leased.unwrap()[0].host_port, 3868),
                Err(_) => assert_eq!(
                    leased.unwrap_err().message,
                    "failed to bind host port for 0.0.0.0:3868:172.17.0.2:80/sctp: protocol not supported"
                ),
            }
        });
    }
}
