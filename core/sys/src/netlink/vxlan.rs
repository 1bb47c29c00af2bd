//! Ethernet over UDP (RFC 7348): vxlan links, what they forward where, and the neighbours they answer for. Sources:
//! ip-link(8), bridge(8), `include/uapi/linux/neighbour.h`.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::attribute::attributes;
use super::{Change, Mac, RouteSocket};

/// A vxlan link that learns nothing and floods nothing: it sends where [`Change::forward`] says, and answers for the
/// neighbours that [`Change::neighbour`] names.
#[derive(Debug, Clone, Copy)]
pub struct NewVxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Index of the bridge that it joins.
    pub master: u32,
    /// The network's number, 24 bits.
    pub vni: u32,
    /// The address of this end.
    pub local: IpAddr,
    /// The UDP port of both ends.
    pub port: u16,
    /// MTU.
    pub mtu: u32,
}

/// What a vxlan link does with frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// Where frames to an address are sent.
    pub remote: Vec<(Mac, IpAddr)>,
    /// The addresses that the link's bridge has for it, without having learnt them.
    pub port: Vec<Mac>,
    /// The neighbours that the link answers for.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

fn neighbour(family: AddressFamily, link: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    let address = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    message.attributes.push(address);
    message
}

fn remote(link: u32, mac: Mac) -> NeighbourMessage {
    let mut message = neighbour(AddressFamily::Bridge, link, mac);
    message.header.flags = NeighbourFlags::Own;
    message
}

fn port(link: u32, mac: Mac) -> NeighbourMessage {
    let mut message = neighbour(AddressFamily::Bridge, link, mac);
    message.header.flags = NeighbourFlags::Controller;
    // "Permanent" would make it an address of the bridge's own.
    message.header.state = NeighbourState::Noarp;
    message
}

fn put(message: NeighbourMessage) -> Change {
    Change {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

fn delete(message: NeighbourMessage) -> Change {
    Change {
        message: RouteNetlinkMessage::DelNeighbour(message),
        flags: 0,
    }
}

impl Change {
    /// Makes a vxlan link on a bridge, up.
    #[must_use]
    pub fn vxlan(new: &NewVxlan<'_>) -> Self {
        let data = vec![
            InfoVxlan::Id(new.vni),
            match new.local {
                IpAddr::V4(ip) => InfoVxlan::Local(ip),
                IpAddr::V6(ip) => InfoVxlan::Local6(ip),
            },
            InfoVxlan::Port(new.port),
            InfoVxlan::Learning(false),
            InfoVxlan::Proxy(true),
        ];
        let data = InfoData::Vxlan(data);
        let mut message = super::change::named(new.name, InfoKind::Vxlan, Some(data));
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::Controller(new.master));
        attributes.push(LinkAttribute::Mtu(new.mtu));
        super::change::raise(&mut message);
        Self::make(message)
    }

    /// Keeps a bridge from learning addresses at a port, and from sending it frames to addresses that it does not know.
    #[must_use]
    pub fn told_port(name: &str) -> Self {
        let mut message = LinkMessage::default();
        let modes = vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
        ];
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(modes)),
        ]));
        Self {
            message: RouteNetlinkMessage::NewLink(message),
            flags: 0,
        }
    }

    /// Makes a vxlan link send frames to `mac` to another end.
    #[must_use]
    pub fn forward(link: u32, mac: Mac, to: IpAddr) -> Self {
        let mut message = remote(link, mac);
        message
            .attributes
            .push(NeighbourAttribute::Destination(to.into()));
        put(message)
    }

    /// Takes [`Change::forward`] back; `ENOENT` when there is nothing to take back.
    #[must_use]
    pub fn stop_forwarding(link: u32, mac: Mac) -> Self {
        delete(remote(link, mac))
    }

    /// Tells a bridge that `mac` is behind one of its ports.
    #[must_use]
    pub fn behind_port(link: u32, mac: Mac) -> Self {
        put(port(link, mac))
    }

    /// Takes [`Change::behind_port`] back; `ENOENT` when there is nothing to take back.
    #[must_use]
    pub fn not_behind_port(link: u32, mac: Mac) -> Self {
        delete(port(link, mac))
    }

    /// Gives a neighbour's address for good.
    #[must_use]
    pub fn neighbour(link: u32, ip: IpAddr, mac: Mac) -> Self {
        let mut message = neighbour(super::change::family(ip), link, mac);
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip.into()));
        put(message)
    }

    /// Takes [`Change::neighbour`] back; `ENOENT` when there is nothing to take back.
    #[must_use]
    pub fn forget_neighbour(link: u32, ip: IpAddr) -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = super::change::family(ip);
        message.header.ifindex = link;
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip.into()));
        delete(message)
    }
}

/// One received entry, neighbour or forwarding.
struct Entry {
    family: u8,
    link: u32,
    state: u16,
    flags: NeighbourFlags,
    ip: Option<IpAddr>,
    mac: Mac,
}

/// Reads `struct ndmsg` and what follows. The address of a forwarding entry is of whatever family its length says.
fn entry(payload: &[u8]) -> Option<Entry> {
    const HEADER: usize = 12;
    const DESTINATION: u16 = 1;
    const LINK_ADDRESS: u16 = 2;
    const VLAN: u16 = 5;
    let (head, rest) = payload.split_first_chunk::<HEADER>()?;
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(rest) {
        match (kind, value.len()) {
            (DESTINATION, 4) => ip = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            (DESTINATION, 16) => ip = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            (LINK_ADDRESS, _) => mac = value.try_into().ok().map(Mac),
            // A bridge with VLANs has each entry once more for each of them.
            (VLAN, _) => return None,
            _ => {}
        }
    }
    Some(Entry {
        family: head[0],
        link: u32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
        state: u16::from_ne_bytes([head[8], head[9]]),
        flags: NeighbourFlags::from_bits_retain(head[10]),
        ip,
        mac: mac?,
    })
}

impl RouteSocket {
    /// What a vxlan link on a bridge was told by [`Change::forward`], [`Change::behind_port`] and [`Change::neighbour`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn forwarded(&mut self, link: u32) -> io::Result<Forwarded> {
        let mut found = Forwarded::default();
        let (permanent, fixed) = (
            u16::from(NeighbourState::Permanent),
            u16::from(NeighbourState::Noarp),
        );
        for family in [
            AddressFamily::Bridge,
            AddressFamily::Inet,
            AddressFamily::Inet6,
        ] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            let mut message = NetlinkMessage::from(request);
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            self.channel.query(message, &mut |_, payload| {
                let Some(entry) = entry(payload).filter(|entry| entry.link == link) else {
                    return;
                };
                let bridge = entry.family == u8::from(AddressFamily::Bridge);
                match entry.ip {
                    Some(ip) if bridge => found.remote.push((entry.mac, ip)),
                    Some(ip) if entry.state == permanent => {
                        found.neighbours.push((ip, entry.mac));
                    }
                    None if entry.state & fixed != 0
                        && !entry.flags.contains(NeighbourFlags::Own) =>
                    {
                        found.port.push(entry.mac);
                    }
                    _ => {}
                }
            })?;
        }
        Ok(found)
    }

    /// The link that has an address, and the address with its prefix length.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link_of(&mut self, ip: IpAddr) -> io::Result<Option<(super::LinkFacts, IpNet)>> {
        let addresses = self.addresses()?;
        let Some((index, net)) = addresses.into_iter().find(|(_, net)| net.addr() == ip) else {
            return Ok(None);
        };
        let links = self.links()?;
        let link = links.into_iter().find(|link| link.index == index);
        Ok(link.map(|link| (link, net)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    #[test]
    fn what_a_link_was_told_is_read_back_and_taken_back() {
        netns::create(|| {
            let mut socket = RouteSocket::open()?;
            socket.apply(vec![Change::up(1), Change::bridge("br0", None)])?;
            let bridge = socket.link("br0")?.expect("it was made").index;
            let new = NewVxlan {
                name: "vx0",
                master: bridge,
                vni: 0x00ab_cdef,
                local: "127.0.0.1".parse().unwrap(),
                port: 4789,
                mtu: 1450,
            };
            socket.apply(vec![
                Change::up(bridge),
                Change::vxlan(&new),
                Change::told_port("vx0"),
            ])?;
            let link = socket.link("vx0")?.expect("it was made");
            assert_eq!((link.kind.as_str(), link.mtu), ("vxlan", 1450));
            assert_eq!((link.master, link.up), (bridge, true));
            let index = link.index;
            let (mac, other) = (Mac([2, 0x42, 10, 64, 0, 2]), Mac([2, 0x42, 10, 64, 0, 3]));
            let (v4, v6): (IpAddr, IpAddr) =
                ("10.64.0.2".parse().unwrap(), "fd00::2".parse().unwrap());
            let (near, far): (IpAddr, IpAddr) =
                ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap());
            socket.apply(vec![
                Change::forward(index, mac, near),
                Change::forward(index, mac, far),
                Change::behind_port(index, mac),
                Change::neighbour(index, v4, other),
                Change::neighbour(index, v4, mac),
                Change::neighbour(index, v6, mac),
            ])?;
            let told = Forwarded {
                remote: vec![(mac, far)],
                port: vec![mac],
                neighbours: vec![(v4, mac), (v6, mac)],
            };
            assert_eq!(socket.forwarded(index)?, told);
            assert_eq!(socket.forwarded(bridge)?, Forwarded::default());
            socket.apply(vec![
                Change::stop_forwarding(index, mac),
                Change::not_behind_port(index, mac),
                Change::forget_neighbour(index, v4),
                Change::forget_neighbour(index, v6),
            ])?;
            assert_eq!(socket.forwarded(index)?, Forwarded::default());
            let gone = socket.apply(vec![Change::stop_forwarding(index, mac)]);
            assert_eq!(gone.unwrap_err().error.raw_os_error(), Some(libc::ENOENT));
            let (holder, net) = socket.link_of("127.0.0.1".parse().unwrap())?.unwrap();
            assert_eq!((holder.name.as_str(), net.prefix_len()), ("lo", 8));
            assert!(socket.link_of(far)?.is_none());
            Ok(())
        })
        .unwrap();
    }
}
