//! Changes that can be asked of the kernel.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::stacked::NewStacked;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = ();
    /// Six pairs of hexadecimal digits with colons or dashes, or three groups of four with dots.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (separator, width) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ => ('.', 4),
        };
        let is_group = |group: &str| {
            group.len() == width && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let groups: Vec<&str> = text.split(separator).collect();
        let digits = groups.concat();
        if digits.len() != 12 || !groups.into_iter().all(is_group) {
            return Err(());
        }
        let mut mac = [0; 6];
        for (byte, at) in mac.iter_mut().zip((0..12).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(mac))
    }
}

/// A veth pair whose inner end is born in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct NewVeth<'a> {
    /// Name of the outer end.
    pub name: &'a str,
    /// Index of the bridge that the outer end joins; 0 for none.
    pub master: u32,
    /// MTU of both ends; 0 for the kernel's.
    pub mtu: u32,
    /// Name of the inner end.
    pub peer: &'a str,
    /// Its address.
    pub peer_mac: Option<Mac>,
    /// Its namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// Whether the outer end is set up at once.
    pub up: bool,
}

/// One change, made by [`super::RouteSocket::apply`].
#[derive(Debug, Clone)]
pub struct Change {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
}

const MAKE: u16 = NLM_F_CREATE | NLM_F_EXCL;

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// A link to be made, of some kind.
pub(super) fn named(name: &str, kind: InfoKind, data: Option<InfoData>) -> LinkMessage {
    let mut message = LinkMessage::default();
    let info = [LinkInfo::Kind(kind)].into_iter();
    let info = info.chain(data.map(LinkInfo::Data)).collect();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

pub(super) fn raise(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Change {
    pub(super) fn into_message(self) -> (RouteNetlinkMessage, u16) {
        (self.message, self.flags)
    }

    pub(super) fn make(message: LinkMessage) -> Self {
        Self {
            message: RouteNetlinkMessage::NewLink(message),
            flags: MAKE,
        }
    }

    fn set(message: LinkMessage) -> Self {
        Self {
            message: RouteNetlinkMessage::SetLink(message),
            flags: 0,
        }
    }

    /// Makes a bridge, down, with the kernel's defaults (no spanning tree). A given address keeps it from changing
    /// with the members.
    #[must_use]
    pub fn bridge(name: &str, mac: Option<Mac>) -> Self {
        let data = InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)]);
        let mut message = named(name, InfoKind::Bridge, Some(data));
        if let Some(mac) = mac {
            message
                .attributes
                .push(LinkAttribute::Address(mac.0.to_vec()));
        }
        Self::make(message)
    }

    /// Makes a veth pair.
    #[must_use]
    pub fn veth(new: &NewVeth<'_>) -> Self {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(new.peer.into()));
        peer.attributes
            .push(LinkAttribute::NetNsFd(new.peer_netns.as_raw_fd()));
        if let Some(mac) = new.peer_mac {
            peer.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        let mut outer = LinkMessage::default();
        outer
            .attributes
            .push(LinkAttribute::IfName(new.name.into()));
        outer.attributes.push(LinkAttribute::Controller(new.master));
        if new.mtu != 0 {
            peer.attributes.push(LinkAttribute::Mtu(new.mtu));
            outer.attributes.push(LinkAttribute::Mtu(new.mtu));
        }
        if new.up {
            raise(&mut outer);
        }
        outer.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        Self {
            message: RouteNetlinkMessage::NewLink(outer),
            flags: MAKE,
        }
    }

    /// Makes a link on top of another.
    #[must_use]
    pub fn stacked(new: &NewStacked<'_>) -> Self {
        let (kind, data) = new.kind.info();
        let mut message = named(new.name, kind, Some(data));
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::Link(new.parent));
        attributes.push(LinkAttribute::NetNsFd(new.netns.as_raw_fd()));
        if let Some(mac) = new.mac {
            attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        if new.mtu != 0 {
            attributes.push(LinkAttribute::Mtu(new.mtu));
        }
        Self::make(message)
    }

    /// Makes a link for one VLAN (IEEE 802.1Q) of another, up.
    #[must_use]
    pub fn vlan(name: &str, parent: u32, id: u16) -> Self {
        let data = InfoData::Vlan(vec![InfoVlan::Id(id)]);
        let mut message = named(name, InfoKind::Vlan, Some(data));
        message.attributes.push(LinkAttribute::Link(parent));
        raise(&mut message);
        Self::make(message)
    }

    /// Makes a link that leads nowhere, up.
    #[must_use]
    pub fn dummy(name: &str) -> Self {
        let mut message = named(name, InfoKind::Dummy, None);
        raise(&mut message);
        Self::make(message)
    }

    /// Removes a link (and with it the other end of a veth pair).
    #[must_use]
    pub fn delete(index: u32) -> Self {
        Self {
            message: RouteNetlinkMessage::DelLink(link(index)),
            flags: 0,
        }
    }

    /// Puts a link into a group; all are in group 0 at first.
    #[must_use]
    pub fn group(index: u32, group: u32) -> Self {
        let mut message = link(index);
        message.attributes.push(LinkAttribute::Group(group));
        Self::set(message)
    }

    /// Removes every link of a group, in the time of one. `ENODEV` when there is none.
    #[must_use]
    pub fn delete_group(group: u32) -> Self {
        let mut message = link(0);
        message.attributes.push(LinkAttribute::Group(group));
        Self {
            message: RouteNetlinkMessage::DelLink(message),
            flags: 0,
        }
    }

    /// Sets a link up.
    #[must_use]
    pub fn up(index: u32) -> Self {
        let mut message = link(index);
        raise(&mut message);
        Self::set(message)
    }

    /// Sets a link down.
    #[must_use]
    pub fn down(index: u32) -> Self {
        let mut message = link(index);
        message.header.change_mask |= LinkFlags::Up;
        Self::set(message)
    }

    /// Sets a link's MTU.
    #[must_use]
    pub fn mtu(index: u32, mtu: u32) -> Self {
        let mut message = link(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        Self::set(message)
    }

    /// Sets a bridge port's modes: `hairpin` lets it send frames back out of the port they came in by, `isolated` keeps
    /// it from exchanging frames with other isolated ports.
    #[must_use]
    pub fn port_modes(name: &str, hairpin: bool, isolated: bool) -> Self {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(hairpin),
                InfoBridgePort::Isolated(isolated),
            ])),
        ]));
        // RTM_SETLINK would ignore what is said of the port.
        Self {
            message: RouteNetlinkMessage::NewLink(message),
            flags: 0,
        }
    }

    /// Puts an address on a link, or finds it there. IPv6 addresses are usable at once, without duplicate detection.
    #[must_use]
    pub fn address(index: u32, net: IpNet) -> Self {
        Self {
            message: RouteNetlinkMessage::NewAddress(address_message(index, net)),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// Takes an address off a link.
    #[must_use]
    pub fn delete_address(index: u32, net: IpNet) -> Self {
        Self {
            message: RouteNetlinkMessage::DelAddress(address_message(index, net)),
            flags: 0,
        }
    }

    /// Sets the default route of the gateway's family, replacing an earlier one.
    #[must_use]
    pub fn default_route(gateway: IpAddr, link: u32) -> Self {
        let any = match gateway {
            IpAddr::V4(_) => IpNet::V4(Default::default()),
            IpAddr::V6(_) => IpNet::V6(Default::default()),
        };
        Self::route(any, Some(gateway), link)
    }

    /// Sets a route, replacing an earlier one to the same destination.
    #[must_use]
    pub fn route(to: IpNet, via: Option<IpAddr>, link: u32) -> Self {
        Self {
            message: RouteNetlinkMessage::NewRoute(route_message(to, via, Some(link))),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// Removes the route to a destination by a link.
    #[must_use]
    pub fn delete_route(to: IpNet, link: u32) -> Self {
        let mut message = route_message(to, None, Some(link));
        message.header.scope = RouteScope::NoWhere;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = RouteType::Unspec;
        Self {
            message: RouteNetlinkMessage::DelRoute(message),
            flags: 0,
        }
    }
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(net.addr()));
    match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            message
                .attributes
                .push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.header.flags |= AddressHeaderFlags::Nodad,
    }
    message
}

fn route_message(to: IpNet, via: Option<IpAddr>, link: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if via.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    if to.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(
                to.network(),
            )));
    }
    if let Some(via) = via {
        message
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    if let Some(link) = link {
        message.attributes.push(RouteAttribute::Oif(link));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_links_are_read_and_shown() {
        for good in ["02:42:AC:11:00:02", "02-42-ac-11-00-02", "0242.ac11.0002"] {
            let mac: Mac = good.parse().unwrap();
            assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        }
        for bad in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
            "02:42-ac:11:00:02",
            "0242ac110002",
            "0242.ac11.00:2",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
