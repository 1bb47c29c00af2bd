use std::net::{Ipv6Addr, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, SocketType, ipproto};

use super::*;

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
        let leased = Ports::default().lease(&ContainerId::generate(), &wanted, &[ANY], &container);
        match there {
            Ok(_) => assert_eq!(leased.unwrap()[0].host_port, 3868),
            Err(_) => assert_eq!(
                leased.unwrap_err().message,
                "failed to bind host port for 0.0.0.0:3868:172.17.0.2:80/sctp: protocol not supported"
            ),
        }
    });
}
