//! Names and addresses of links, and the options that every driver of networks takes.

use std::net::IpAddr;

use gantry_driver_api::network::EndpointSpec;
use gantry_driver_api::{DriverError, DriverResult};
use gantry_sys::netlink::Mac;

/// The option of a network that sets the MTU of its links.
pub const MTU: &str = "com.docker.network.driver.mtu";
/// The option of an endpoint that names its link inside the sandbox.
pub const INNER_NAME: &str = "com.docker.network.endpoint.ifname";

/// Link names that follow from identifiers: one letter, the engine's tag, six characters of the object's ID (the kernel
/// allows 15).
#[derive(Debug)]
pub struct Names {
    tag: String,
}

const DIGITS: usize = 6;

/// Six base-36 characters of an identifier: two thousand million values, where six hexadecimal digits have 17 million.
fn digest(id: &str) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // FNV-1a spreads whatever the identifier is.
    let mut value = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..DIGITS)
        .map(|_| {
            let digit = ALPHABET[(value % 36) as usize];
            value /= 36;
            char::from(digit)
        })
        .collect()
}

impl Names {
    /// Names of the engine with this tag.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        Self {
            tag: tag.chars().take(8).collect(),
        }
    }

    /// The link of an object; `kind` is a letter of the driver's.
    #[must_use]
    pub fn name(&self, kind: char, id: &str) -> String {
        format!("{kind}{}{}", self.tag, digest(id))
    }

    /// Whether a link may have been named here.
    #[must_use]
    pub fn is(&self, kind: char, link: &str) -> bool {
        link.strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix(&self.tag))
            .is_some_and(|rest| rest.len() == DIGITS)
    }
}

/// The Ethernet address that an endpoint wants, else 02:42 and its IPv4 address, as Docker's; from its ID where it has
/// none.
///
/// # Errors
/// `InvalidArgument` for a wish that is none.
pub fn mac(endpoint: &EndpointSpec) -> DriverResult<Mac> {
    if let Some(wish) = &endpoint.mac {
        let text = || DriverError::invalid(format!("invalid MAC address: {wish}"));
        return wish.parse().map_err(|()| text());
    }
    let v4 = endpoint.addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    });
    Ok(v4.map_or_else(|| mac_of(&endpoint.id), local))
}

/// An Ethernet address that follows from an identifier.
#[must_use]
pub fn mac_of(id: &str) -> Mac {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    local(hash.to_be_bytes())
}

fn local([a, b, c, d]: [u8; 4]) -> Mac {
    Mac([0x02, 0x42, a, b, c, d])
}

/// Checks that an option's value can be the name of a link.
///
/// # Errors
/// `InvalidArgument`.
pub fn link_name(key: &str, name: &str) -> DriverResult<String> {
    const LONGEST: usize = 15;
    let bad = name.is_empty()
        || name.len() > LONGEST
        || name == "."
        || name == ".."
        || name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0);
    if bad {
        return Err(DriverError::invalid(format!(
            "invalid value for {key}: {name:?} is not the name of a network interface"
        )));
    }
    Ok(name.to_owned())
}

/// The value of [`MTU`]: 0 for the kernel's own, else from the smallest that IPv4 works with to the largest that fits a
/// frame's length.
///
/// # Errors
/// `InvalidArgument`.
pub fn mtu(value: &str) -> DriverResult<u32> {
    match value.parse() {
        Ok(0) => Ok(0),
        Ok(mtu) if (68..=65535).contains(&mtu) => Ok(mtu),
        _ => Err(DriverError::invalid(format!(
            "invalid value for {MTU}: invalid MTU: {value}"
        ))),
    }
}

/// What an endpoint's own option calls its link inside the sandbox.
#[must_use]
pub fn inner_name(endpoint: &EndpointSpec) -> Option<String> {
    let name = endpoint.options.get(INNER_NAME)?;
    link_name(INNER_NAME, name).ok()
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    #[test]
    fn names_fit_and_tell_their_kind() {
        let names = Names::new("0123abcd");
        let id = "f".repeat(64);
        let (bridge, veth) = (names.name('b', &id), names.name('v', &id));
        assert_eq!((bridge.len(), veth.len()), (15, 15));
        assert!(names.is('b', &bridge) && !names.is('b', &veth));
        let other = Names::new("0123abce");
        assert!(!other.is('v', &veth));
        assert_ne!(names.name('v', &id), names.name('v', &"e".repeat(64)));
    }

    #[test]
    fn mac_follows_the_address() {
        let v4: IpNet = "172.17.0.2/16".parse().unwrap();
        let v6: IpNet = "fd00::2/64".parse().unwrap();
        let of = |addresses: &[IpNet], id: &str, mac: Option<&str>| {
            let endpoint = EndpointSpec {
                network: String::new(),
                id: id.into(),
                addresses: addresses.to_vec(),
                mac: mac.map(str::to_owned),
                link: String::new(),
                options: Default::default(),
            };
            super::mac(&endpoint).map(|mac| mac.to_string())
        };
        assert_eq!(of(&[v6, v4], "x", None).unwrap(), "02:42:ac:11:00:02");
        assert_ne!(of(&[v6], "x", None).unwrap(), of(&[v6], "y", None).unwrap());
        assert_eq!(
            of(&[v4], "x", Some("02:00:00:00:00:01")).unwrap(),
            "02:00:00:00:00:01"
        );
        assert!(of(&[v4], "x", Some("here")).is_err());
    }
}
