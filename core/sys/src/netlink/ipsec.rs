//! IPsec between hosts: ESP in transport mode (RFC 4303) with AES-GCM (RFC 4106), over the kernel's xfrm. Source:
//! `include/uapi/linux/xfrm.h`; the offsets below are those of its structures.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};

use super::Channel;

const NETLINK_XFRM: isize = 6;
const NEW_STATE: u16 = 16;
const DELETE_STATE: u16 = 17;
const GET_STATE: u16 = 18;
const SET_POLICY: u16 = 25;
const TEMPLATE: u16 = 5;
const AEAD: u16 = 18;
const REPLAY: u16 = 23;
const ESP: u8 = 50;
const UDP: u8 = 17;
/// Sequence numbers of 64 bits: a key then never runs out of them.
const EXTENDED: u8 = 128;

/// A key of AES-256 with the four bytes of salt that RFC 4106 wants.
pub type EspKey = [u8; 36];

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Association {
    /// Who sends.
    pub from: IpAddr,
    /// Who receives.
    pub to: IpAddr,
    /// Names it at the receiver; 256 at least.
    pub spi: u32,
}

/// A socket of the kernel's xfrm, for the associations and policies of one number (`reqid`), which tells them from others'.
#[derive(Debug)]
pub struct IpsecSocket {
    channel: Channel,
    reqid: u32,
}

struct Message {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

fn family(ip: IpAddr) -> u16 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u16,
        IpAddr::V6(_) => libc::AF_INET6 as u16,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn put_ip(bytes: &mut [u8], at: usize, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => put(bytes, at, &ip.octets()),
        IpAddr::V6(ip) => put(bytes, at, &ip.octets()),
    }
}

/// No limits to what is sent, or to how long.
fn put_limits(bytes: &mut [u8], at: usize) {
    put(bytes, at, &[0xff; 32]);
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// `struct xfrm_usersa_info`.
fn state(association: &Association, reqid: u32) -> Vec<u8> {
    let Association { from, to, spi } = *association;
    let mut bytes = vec![0; 224];
    put_ip(&mut bytes, 56, to);
    put(&mut bytes, 72, &spi.to_be_bytes());
    bytes[76] = ESP;
    put_ip(&mut bytes, 80, from);
    put_limits(&mut bytes, 96);
    put(&mut bytes, 208, &reqid.to_ne_bytes());
    put(&mut bytes, 212, &family(to).to_ne_bytes());
    bytes[216] = EXTENDED;
    bytes
}

/// `struct xfrm_userpolicy_info` and one template: UDP to a port, of which this host's side is `local`.
fn policy(local: IpAddr, port: u16, out: bool, reqid: u32) -> Vec<u8> {
    const EVERYTHING: [u8; 4] = [0xff; 4];
    let mut bytes = vec![0; 168];
    let bits = if local.is_ipv6() { 128 } else { 32 };
    let (address, length) = if out { (16, 43) } else { (0, 42) };
    put_ip(&mut bytes, address, local);
    bytes[length] = bits;
    put(&mut bytes, 32, &port.to_be_bytes());
    put(&mut bytes, 34, &[0xff; 2]);
    put(&mut bytes, 40, &family(local).to_ne_bytes());
    bytes[44] = UDP;
    put_limits(&mut bytes, 56);
    bytes[160] = u8::from(out);
    // The addresses of a template in transport mode are those of the packet.
    let mut template = [0; 64];
    template[20] = ESP;
    put(&mut template, 24, &family(local).to_ne_bytes());
    put(&mut template, 44, &reqid.to_ne_bytes());
    for algorithms in [52, 56, 60] {
        put(&mut template, algorithms, &EVERYTHING);
    }
    attribute(&mut bytes, TEMPLATE, &template);
    bytes
}

fn ip(bytes: &[u8], at: usize, family: u16) -> Option<IpAddr> {
    let rest = bytes.get(at..)?;
    match i32::from(family) {
        libc::AF_INET => Some(IpAddr::from(*rest.first_chunk::<4>()?)),
        libc::AF_INET6 => Some(IpAddr::from(*rest.first_chunk::<16>()?)),
        _ => None,
    }
}

/// An association with its number.
fn read(bytes: &[u8]) -> Option<(Association, u32)> {
    let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().copied();
    let family = bytes.get(212..)?.first_chunk::<2>().copied();
    let family = u16::from_ne_bytes(family?);
    let association = Association {
        from: ip(bytes, 80, family)?,
        to: ip(bytes, 56, family)?,
        spi: u32::from_be_bytes(word(72)?),
    };
    Some((association, u32::from_ne_bytes(word(208)?)))
}

impl IpsecSocket {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's; `EPROTONOSUPPORT` without xfrm.
    pub fn open(reqid: u32) -> io::Result<Self> {
        Ok(Self {
            channel: Channel::open(NETLINK_XFRM)?,
            reqid,
        })
    }

    fn ask(&mut self, kind: u16, flags: u16, bytes: Vec<u8>) -> io::Result<()> {
        let payload = NetlinkPayload::InnerMessage(Message { kind, bytes });
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.channel.query(message, &mut |_, _| {})
    }

    /// Adds an association. A key must be new each time: with the association its sequence numbers begin anew.
    ///
    /// # Errors
    /// The kernel's: `EEXIST` when it is there, `ENOENT`, `EPROTONOSUPPORT` or `ENOSYS` without ESP or AES-GCM.
    pub fn add(&mut self, association: &Association, key: &EspKey) -> io::Result<()> {
        const ICV_BITS: u32 = 128;
        const WINDOW_WORDS: u32 = 4;
        let mut bytes = state(association, self.reqid);
        let mut aead = vec![0; 72];
        put(&mut aead, 0, b"rfc4106(gcm(aes))");
        put(&mut aead, 64, &(8 * key.len() as u32).to_ne_bytes());
        put(&mut aead, 68, &ICV_BITS.to_ne_bytes());
        aead.extend_from_slice(key);
        attribute(&mut bytes, AEAD, &aead);
        let mut replay = vec![0; 24 + 4 * WINDOW_WORDS as usize];
        put(&mut replay, 0, &WINDOW_WORDS.to_ne_bytes());
        put(&mut replay, 20, &(32 * WINDOW_WORDS).to_ne_bytes());
        attribute(&mut bytes, REPLAY, &replay);
        self.ask(NEW_STATE, NLM_F_CREATE | NLM_F_EXCL, bytes)
    }

    /// Removes an association, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, association: &Association) -> io::Result<()> {
        let mut bytes = vec![0; 24];
        put_ip(&mut bytes, 0, association.to);
        put(&mut bytes, 16, &association.spi.to_be_bytes());
        put(&mut bytes, 20, &family(association.to).to_ne_bytes());
        bytes[22] = ESP;
        match self.ask(DELETE_STATE, 0, bytes) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// The associations of this number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn associations(&mut self) -> io::Result<Vec<Association>> {
        let (kind, bytes) = (GET_STATE, Vec::new());
        let payload = NetlinkPayload::InnerMessage(Message { kind, bytes });
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let (mut found, reqid) = (Vec::new(), self.reqid);
        self.channel.query(message, &mut |_, payload| {
            found.extend(read(payload).filter(|(_, of)| *of == reqid).map(|(a, _)| a));
        })?;
        Ok(found)
    }

    /// From now on UDP from and to the local address, to a port, is sent by an association of this number only, and
    /// received only if it was. Without an association it is dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn require(&mut self, local: IpAddr, port: u16) -> io::Result<()> {
        for out in [true, false] {
            let bytes = policy(local, port, out, self.reqid);
            self.ask(SET_POLICY, NLM_F_REPLACE, bytes)?;
        }
        Ok(())
    }

    /// Whether the kernel has what [`IpsecSocket::add`] needs.
    ///
    /// # Errors
    /// What it lacks.
    pub fn probe(&mut self) -> io::Result<()> {
        let here = IpAddr::from([127, 0, 0, 1]);
        let probe = Association {
            from: here,
            to: here,
            spi: 256,
        };
        self.remove(&probe)?;
        // It carries nothing, and is gone at once.
        self.add(&probe, &[0; 36])?;
        self.remove(&probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    #[test]
    fn associations_are_added_listed_and_removed_where_the_kernel_has_esp() {
        netns::create(|| {
            let mut socket = IpsecSocket::open(7)?;
            let association = Association {
                from: "10.0.0.1".parse().unwrap(),
                to: "10.0.0.2".parse().unwrap(),
                spi: 0x0123_4567,
            };
            socket.remove(&association)?;
            assert!(socket.associations()?.is_empty());
            socket.require("10.0.0.1".parse().unwrap(), 4790)?;
            socket.require("fd00::1".parse().unwrap(), 4790)?;
            if let Err(error) = socket.probe() {
                assert!(
                    matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOSYS | libc::EPROTONOSUPPORT)
                    ),
                    "{error}"
                );
                return Ok(());
            }
            socket.add(&association, &[1; 36])?;
            let again = socket.add(&association, &[1; 36]).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
            assert_eq!(socket.associations()?, [association]);
            assert!(IpsecSocket::open(8)?.associations()?.is_empty());
            socket.remove(&association)?;
            assert!(socket.associations()?.is_empty());
            Ok(())
        })
        .unwrap();
    }
}
