//! What a sandbox has of the name service: the sockets that netd answers on, and the way there.

use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use gantry_netd::ADDRESS;
use gantry_sys::netns;
use gantry_sys::nft::{BaseChain, Batch, Expr, Family, Hook, NftSocket, Register};

const PORT: u16 = 53;
/// Bytes of queries that may wait, of which the kernel counts 768 and more for each: netd has 1,024 of one container under
/// way, and a burst of so many is not lost because netd has just no processor. The usual buffer ends at 277.
const WAITING: usize = 1 << 20;
/// The table inside a sandbox that leads port 53 to netd's sockets.
const TABLE: &str = "gantry-names";

/// Makes the sockets that netd answers on, inside a sandbox. They are on ports of the kernel's choice, so that port 53
/// stays the container's own; what it sends to port 53 of the internal address is led to them.
pub(super) fn sockets(netns: &OwnedFd) -> io::Result<[OwnedFd; 2]> {
    netns::inside(netns, || {
        let udp = UdpSocket::bind(SocketAddrV4::new(ADDRESS, 0))?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, WAITING)?;
        let tcp = TcpListener::bind(SocketAddrV4::new(ADDRESS, 0))?;
        let ports = [
            (17, udp.local_addr()?.port()),
            (6, tcp.local_addr()?.port()),
        ];
        let mut nft = NftSocket::open()?;
        nft.commit(redirect(ports))?;
        nft.close_behind();
        Ok([udp.into(), tcp.into()])
    })
}

/// Changes port 53 to the sockets' ports, and back in what they answer, as the packets arrive at the loopback link. A
/// translation (`nat`) would have the kernel track every connection of the sandbox, which costs it 6 % of its throughput.
fn redirect(ports: [(u8, u16); 2]) -> Batch {
    use Register::R0;
    const CHAIN: &str = "loopback";
    let mut batch = Batch::new(Family::Netdev, TABLE);
    batch.remove_table();
    batch.add_table();
    batch.add_chain(&BaseChain {
        name: CHAIN,
        kind: "filter",
        hook: Hook::Ingress("lo"),
        priority: 0,
        drop: false,
    });
    let rule = |address, protocol: u8, port, is: u16, becomes: u16, set| {
        vec![
            Expr::frame_protocol(R0),
            Expr::equal(R0, &Expr::IPV4),
            address,
            Expr::equal(R0, &ADDRESS.octets()),
            Expr::transport_protocol(R0),
            Expr::equal(R0, &[protocol]),
            port,
            Expr::equal(R0, &is.to_be_bytes()),
            Expr::load(&becomes.to_be_bytes(), R0),
            set,
        ]
    };
    for (protocol, own) in ports {
        let (to, port) = (
            Expr::destination(Family::Ipv4, R0),
            Expr::destination_port(R0),
        );
        let set = Expr::set_destination_port(protocol, R0);
        batch.add_rule(CHAIN, rule(to, protocol, port, PORT, own, set), "");
        let (from, port) = (Expr::source(Family::Ipv4, R0), Expr::source_port(R0));
        let set = Expr::set_source_port(protocol, R0);
        batch.add_rule(CHAIN, rule(from, protocol, port, own, PORT, set), "");
    }
    batch
}
