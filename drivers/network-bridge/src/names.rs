//! Names and addresses that follow from identifiers.

use std::net::IpAddr;

use gantry_plugin_sdk::sys::netlink::Mac;
use ipnet::IpNet;

/// Link names: one letter, the engine's tag, six characters of the object's ID (the kernel allows 15).
#[derive(Debug)]
pub(crate) struct Names {
    tag: String,
}

const BRIDGE: char = 'b';
const VETH: char = 'v';
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
    pub(crate) fn new(tag: &str) -> Self {
        Self {
            tag: tag.chars().take(8).collect(),
        }
    }

    fn name(&self, kind: char, id: &str) -> String {
        format!("{kind}{}{}", self.tag, digest(id))
    }

    fn is(&self, kind: char, link: &str) -> bool {
        link.strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix(&self.tag))
            .is_some_and(|rest| rest.len() == DIGITS)
    }

    /// The bridge of a network whose user chose no name.
    pub(crate) fn bridge(&self, network: &str) -> String {
        self.name(BRIDGE, network)
    }

    /// The outer link of an endpoint.
    pub(crate) fn veth(&self, endpoint: &str) -> String {
        self.name(VETH, endpoint)
    }

    pub(crate) fn is_bridge(&self, link: &str) -> bool {
        self.is(BRIDGE, link)
    }

    pub(crate) fn is_veth(&self, link: &str) -> bool {
        self.is(VETH, link)
    }
}

/// The Ethernet address of an endpoint without a wish: 02:42 and its IPv4 address, as Docker's; from its ID where it
/// has none.
pub(crate) fn mac(addresses: &[IpNet], id: &str) -> Mac {
    let v4 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    });
    let [a, b, c, d] = v4.unwrap_or_else(|| hash4(id));
    Mac([0x02, 0x42, a, b, c, d])
}

/// The Ethernet address of a bridge. Without a fixed one it would change with its members.
pub(crate) fn bridge_mac(network: &str) -> Mac {
    let [a, b, c, d] = hash4(network);
    Mac([0x02, 0x42, a, b, c, d])
}

fn hash4(text: &str) -> [u8; 4] {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_their_kind() {
        let names = Names::new("0123abcd");
        let id = "f".repeat(64);
        let (bridge, veth) = (names.bridge(&id), names.veth(&id));
        assert_eq!((bridge.len(), veth.len()), (15, 15));
        assert!(names.is_bridge(&bridge) && !names.is_bridge(&veth));
        assert!(names.is_veth(&veth) && !names.is_veth(&bridge));
        let other = Names::new("0123abce");
        assert!(!other.is_veth(&veth));
        assert_ne!(names.veth(&id), names.veth(&"e".repeat(64)));
    }

    #[test]
    fn mac_follows_the_address() {
        let v4: IpNet = "172.17.0.2/16".parse().unwrap();
        let v6: IpNet = "fd00::2/64".parse().unwrap();
        assert_eq!(mac(&[v6, v4], "x").to_string(), "02:42:ac:11:00:02");
        assert_ne!(mac(&[v6], "x"), mac(&[v6], "y"));
    }
}
