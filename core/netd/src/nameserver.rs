//! A name server's address.

use std::fmt;
use std::io;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name server. In messages it looks as an `IpAddr` does, but for one with a zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NameServer {
    /// At an IPv4 address.
    V4(Ipv4Addr),
    /// At an IPv6 address.
    V6(Ipv6Addr),
    /// At a link-local address, behind this link of the host.
    Zone(Ipv6Addr, String),
}

impl NameServer {
    /// Its address, without a zone.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::V4(ip) => IpAddr::V4(*ip),
            Self::V6(ip) | Self::Zone(ip, _) => IpAddr::V6(*ip),
        }
    }

    /// Whether it is reached from the host's own links alone.
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        match self {
            Self::V4(_) => false,
            Self::V6(ip) | Self::Zone(ip, _) => ip.is_unicast_link_local(),
        }
    }

    /// Where it is asked by a socket.
    ///
    /// # Errors
    /// `ENODEV` when there is no such link.
    pub(crate) fn at(&self, port: u16, socket: impl AsFd) -> io::Result<SocketAddr> {
        let Self::Zone(ip, zone) = self else {
            return Ok(SocketAddr::new(self.ip(), port));
        };
        let named = rustix::net::netdevice::name_to_index(socket, zone);
        let index = named.or_else(|error| zone.parse().map_err(|_| error))?;
        Ok(SocketAddrV6::new(*ip, port, 0, index).into())
    }
}

impl From<IpAddr> for NameServer {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

impl FromStr for NameServer {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        let Some((address, zone)) = text.split_once('%') else {
            return Ok(text.parse::<IpAddr>()?.into());
        };
        let ip: Ipv6Addr = address.parse()?;
        // Of another address it means nothing.
        Ok(match ip.is_unicast_link_local() && !zone.is_empty() {
            true => Self::Zone(ip, zone.to_owned()),
            false => Self::V6(ip),
        })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(ip, zone) => write!(f, "{ip}%{zone}"),
            server => server.ip().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_link_local_addresses_are_kept() {
        let parsed = |text: &str| text.parse::<NameServer>().map(|s| s.to_string()).ok();
        for (text, said) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("fe80::1%eth0", Some("fe80::1%eth0")),
            ("fe80::1", Some("fe80::1")),
            ("fe80::1%", Some("fe80::1")),
            ("2001:db8::1%eth0", Some("2001:db8::1")),
            ("192.0.2.1%eth0", None),
            ("eth0", None),
        ] {
            assert_eq!(parsed(text).as_deref(), said, "{text}");
        }
    }

    #[test]
    fn a_zone_is_a_link_by_name_or_number() {
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let at = |text: &str| {
            let server: NameServer = text.parse().unwrap();
            server.at(53, &socket).map(|at| at.to_string())
        };
        assert_eq!(at("fe80::1%lo").unwrap(), "[fe80::1%1]:53");
        assert_eq!(at("fe80::1%7").unwrap(), "[fe80::1%7]:53");
        assert_eq!(at("fe80::1").unwrap(), "[fe80::1]:53");
        assert!(at("fe80::1%nowhere").is_err());
    }

    #[test]
    fn messages_have_it_as_an_address() {
        let read = |bytes: &[u8]| rmp_serde::from_slice::<NameServer>(bytes).unwrap();
        for ip in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([1_u16; 8])] {
            let server = NameServer::from(ip);
            let address = rmp_serde::to_vec_named(&ip).unwrap();
            assert_eq!(rmp_serde::to_vec_named(&server).unwrap(), address);
            assert_eq!(read(&address), server);
        }
        let zone: NameServer = "fe80::1%eth0".parse().unwrap();
        assert_eq!(read(&rmp_serde::to_vec_named(&zone).unwrap()), zone);
    }
}
