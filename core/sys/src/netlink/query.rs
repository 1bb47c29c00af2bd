//! What the kernel knows of links, addresses and routes.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use super::{Mac, RouteSocket};

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkFacts {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for physical ones.
    pub kind: String,
    /// Index of the bridge it belongs to, 0 for none.
    pub master: u32,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFacts {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Index of the link, 0 for none (multipath, blackhole).
    pub link: u32,
}

impl RouteSocket {
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        dump: bool,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { 0 };
        self.channel.query(message, &mut |kind, payload| {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            // What this version cannot read is of no interest to it.
            if let Ok(reply) = RouteNetlinkMessage::deserialize(&header, payload) {
                each(reply);
            }
        })
    }

    /// Every link of the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> io::Result<Vec<LinkFacts>> {
        let mut links = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.ask(request, true, &mut |reply| {
            if let RouteNetlinkMessage::NewLink(link) = reply {
                links.push(link_facts(link));
            }
        })?;
        Ok(links)
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&mut self, name: &str) -> io::Result<Option<LinkFacts>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.into()));
        let mut found = None;
        let result = self.ask(RouteNetlinkMessage::GetLink(request), false, &mut |reply| {
            if let RouteNetlinkMessage::NewLink(link) = reply {
                found = Some(link_facts(link));
            }
        });
        match result {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(found),
        }
    }

    /// Every address with the index of its link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        let mut addresses = Vec::new();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.ask(request, true, &mut |reply| {
            if let RouteNetlinkMessage::NewAddress(address) = reply {
                addresses.extend(address_of(&address).map(|net| (address.header.index, net)));
            }
        })?;
        Ok(addresses)
    }

    /// The addresses of one link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses_of(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        let mut addresses = Vec::new();
        let mut request = AddressMessage::default();
        request.header.index = index;
        self.channel.strict(true);
        let asked = self.ask(
            RouteNetlinkMessage::GetAddress(request),
            true,
            &mut |reply| {
                if let RouteNetlinkMessage::NewAddress(address) = reply
                    && address.header.index == index
                {
                    addresses.extend(address_of(&address));
                }
            },
        );
        self.channel.strict(false);
        match asked {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            asked => asked.map(|()| addresses),
        }
    }

    /// Every unicast route of the main table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> io::Result<Vec<RouteFacts>> {
        let mut routes = self.routes_of(false)?;
        routes.extend(self.routes_of(true)?);
        Ok(routes)
    }

    /// Every unicast route of the main table of IPv6 or of IPv4.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes_of(&mut self, v6: bool) -> io::Result<Vec<RouteFacts>> {
        let any = match v6 {
            false => IpAddr::V4(0.into()),
            true => IpAddr::V6(0.into()),
        };
        let mut routes = Vec::new();
        let mut request = RouteMessage::default();
        request.header.address_family = super::change::family(any);
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        self.channel.strict(true);
        let asked = self.ask(RouteNetlinkMessage::GetRoute(request), true, &mut |reply| {
            if let RouteNetlinkMessage::NewRoute(route) = reply {
                routes.extend(route_facts(&route, any));
            }
        });
        self.channel.strict(false);
        match asked {
            // A namespace without a route has no table either.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(routes),
            asked => asked.map(|()| routes),
        }
    }
}

fn link_facts(link: LinkMessage) -> LinkFacts {
    let mut facts = LinkFacts {
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        ..LinkFacts::default()
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name = name,
            LinkAttribute::Controller(index) => facts.master = index,
            LinkAttribute::Mtu(mtu) => facts.mtu = mtu,
            LinkAttribute::Address(bytes) => facts.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        facts.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    facts
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    // For point-to-point links IFA_ADDRESS is the other side's; IFA_LOCAL, when there, is this one's.
    let pick = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip = pick(true).or_else(|| pick(false))?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn route_facts(route: &RouteMessage, any: IpAddr) -> Option<RouteFacts> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN || route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut facts = RouteFacts {
        to: IpNet::new(any, route.header.destination_prefix_length).ok()?,
        via: None,
        link: 0,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                facts.to = IpNet::new(ip_of(to)?, route.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(via) => facts.via = ip_of(via),
            RouteAttribute::Oif(link) => facts.link = *link,
            _ => {}
        }
    }
    Some(facts)
}
