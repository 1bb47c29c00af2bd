//! Connections that the kernel tracks (ctnetlink).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{
    DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};

use super::Channel;
use super::attribute::{attributes, nested};

/// A tracked flow. Its addresses are those of the packets before any translation by this host, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol number.
    pub protocol: u8,
    /// Source and destination of the first packet.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of the answers to it.
    pub reply: (SocketAddr, SocketAddr),
}

/// A socket of ctnetlink, bound to the namespace of the thread that opened it.
#[derive(Debug)]
pub struct FlowSocket {
    channel: Channel,
}

const GET: u8 = 1;
const DELETE: u8 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

fn message(family: u8, kind: u8, attributes: Vec<DefaultNla>) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, 0);
    NetlinkMessage::from(NetfilterMessage::new(
        header,
        NetfilterMessageInner::Other {
            subsys: NetfilterSubsystem::Conntrack,
            message_type: kind,
            attributes,
        },
    ))
}

/// Protocol, source and destination of one direction.
fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (addresses, ports) = (nested(bytes, 1)?, nested(bytes, 2)?);
    let ip = |v4: u16, v6: u16| {
        let four = nested(addresses, v4).and_then(|b| Some(Ipv4Addr::from(*b.first_chunk::<4>()?)));
        let six = nested(addresses, v6).and_then(|b| Some(Ipv6Addr::from(*b.first_chunk::<16>()?)));
        four.map(IpAddr::V4).or(six.map(IpAddr::V6))
    };
    let port =
        |kind| nested(ports, kind).and_then(|b| Some(u16::from_be_bytes(*b.first_chunk::<2>()?)));
    let protocol = *nested(ports, 1)?.first()?;
    let source = SocketAddr::new(ip(1, 3)?, port(2)?);
    Some((protocol, source, SocketAddr::new(ip(2, 4)?, port(3)?)))
}

fn flow(bytes: &[u8]) -> Option<Flow> {
    let (protocol, from, to) = tuple(nested(bytes, ORIGINAL)?)?;
    let (_, back_from, back_to) = tuple(nested(bytes, REPLY)?)?;
    Some(Flow {
        protocol,
        original: (from, to),
        reply: (back_from, back_to),
    })
}

impl FlowSocket {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's; `EPROTONOSUPPORT` without connection tracking.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
        })
    }

    /// Forgets every flow with ports that `select` is true for; its next packet begins a new one. Returns how many.
    ///
    /// # Errors
    /// The kernel's. A flow that ended by itself meanwhile is none.
    pub fn forget(&mut self, select: impl Fn(&Flow) -> bool) -> io::Result<usize> {
        const HEADER: usize = 4;
        let mut request = message(0, GET, Vec::new());
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut found = Vec::new();
        self.channel.query(request, &mut |_, payload| {
            let Some((head, rest)) = payload.split_at_checked(HEADER) else {
                return;
            };
            if flow(rest).is_some_and(|flow| select(&flow)) {
                let original = attributes(rest).find(|(kind, _)| *kind == ORIGINAL);
                found.extend(original.map(|(_, value)| (head[0], value.to_vec())));
            }
        })?;
        let count = found.len();
        for (family, original) in found {
            let tuple = DefaultNla::new(ORIGINAL | NLA_F_NESTED, original);
            self.delete(message(family, DELETE, vec![tuple]))?;
        }
        Ok(count)
    }

    fn delete(&mut self, mut message: NetlinkMessage<NetfilterMessage>) -> io::Result<()> {
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        match self.channel.query(message, &mut |_, _| {}) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::netlink::{Change, RouteSocket};
    use crate::nft::{BaseChain, Batch, Expr, Family, Hook, NftSocket, Register};

    #[test]
    fn the_selected_flows_are_forgotten() {
        crate::netns::create(|| {
            RouteSocket::open()?.apply(vec![Change::up(1)])?;
            // Tracking begins with a rule that asks for it.
            let mut batch = Batch::new(Family::Inet, "t");
            batch.add_table();
            batch.add_chain(&BaseChain {
                name: "c",
                kind: "filter",
                hook: Hook::Input,
                priority: 0,
                drop: false,
            });
            batch.add_rule("c", vec![Expr::connection_state(Register::R0)], "");
            NftSocket::open()?.commit(batch)?;
            let server = UdpSocket::bind("127.0.0.1:4000")?;
            let client = UdpSocket::bind("127.0.0.1:5000")?;
            client.send_to(b"x", server.local_addr()?)?;
            server.recv_from(&mut [0; 8])?;
            let mut flows = FlowSocket::open()?;
            assert_eq!(flows.forget(|flow| flow.original.1.port() == 1)?, 0);
            let ours = |flow: &Flow| {
                flow.protocol == 17
                    && flow.original
                        == (([127, 0, 0, 1], 5000).into(), ([127, 0, 0, 1], 4000).into())
            };
            assert_eq!(flows.forget(ours)?, 1);
            assert_eq!(flows.forget(ours)?, 0);
            Ok(())
        })
        .unwrap();
    }
}
