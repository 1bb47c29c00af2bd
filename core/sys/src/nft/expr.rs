//! Expressions of rules.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register as Raw, Verdict as RawVerdict, VerdictAttribute,
};

use super::Family;

/// A 32-bit register. Longer values take the following ones as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Register {
    /// First.
    R0 = 8,
    /// Second.
    R1 = 9,
    /// Third.
    R2 = 10,
    /// Fifth: behind an IPv6 address in the first four.
    R4 = 12,
    /// Sixth: behind a word and an IPv6 address.
    R5 = 13,
}

impl From<Register> for Raw {
    fn from(register: Register) -> Self {
        Self::from(register as u32)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Drop it.
    Drop = 0,
    /// This chain is done with it; later chains of the hook see it.
    Accept = 1,
}

/// One step of a rule. A comparison that fails ends the rule.
#[derive(Debug, Clone)]
pub struct Expr(pub(super) Expressions);

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn attribute(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// What a translation changes (`enum nft_nat_types`).
const SOURCE: u32 = 0;
const DESTINATION: u32 = 1;

impl Expr {
    /// What [`Self::frame_protocol`] loads for ARP.
    pub const ARP: [u8; 2] = [8, 6];
    /// For IPv4.
    pub const IPV4: [u8; 2] = [8, 0];
    /// For IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// What [`Self::fib_destination_type`] loads for an address of this host (`RTN_LOCAL`).
    pub const LOCAL: u32 = 2;
    /// Bits of the connection's state: established or related.
    pub const ESTABLISHED: u32 = 0b110;
    /// Bit of the connection's status: its destination was translated.
    pub const DESTINATION_TRANSLATED: u32 = 1 << 5;
    /// Bits of the connection's status: its source or its destination was translated.
    pub const TRANSLATED: u32 = 0b11 << 4;
    /// What [`Self::connection_direction`] loads for packets to the side that began.
    pub const REPLY: u8 = 1;

    fn other(name: &str, attributes: Vec<DefaultNla>) -> Self {
        Self(Expressions::Other {
            expression_type: name.to_owned(),
            attributes,
        })
    }

    fn meta(key: MetaKey, into: Register) -> Self {
        Self(Expressions::Meta(vec![
            Meta::Key(key),
            Meta::DestinationRegister(into.into()),
        ]))
    }

    fn payload(base: u32, offset: u32, length: u32, into: Register) -> Self {
        Self(Expressions::Payload(vec![
            Payload::DestinationRegister(into.into()),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ]))
    }

    /// Loads the name of the link that the packet came by (16 bytes).
    #[must_use]
    pub fn input_link(into: Register) -> Self {
        Self::meta(MetaKey::Iifname, into)
    }
    /// Loads the name of the link that it leaves by (16 bytes).
    #[must_use]
    pub fn output_link(into: Register) -> Self {
        Self::meta(MetaKey::Oifname, into)
    }
    /// Loads the family (one byte, as [`Family`]).
    #[must_use]
    pub fn network_protocol(into: Register) -> Self {
        Self::meta(MetaKey::Nfproto, into)
    }
    /// Loads the transport protocol's number (one byte).
    #[must_use]
    pub fn transport_protocol(into: Register) -> Self {
        Self::meta(MetaKey::L4Proto, into)
    }
    /// Loads the frame's protocol (two bytes, [`Self::ARP`] and so on).
    #[must_use]
    pub fn frame_protocol(into: Register) -> Self {
        Self::meta(MetaKey::EtherTypeProtocol, into)
    }
    /// Loads the type of an ICMP message (one byte).
    #[must_use]
    pub fn icmp_type(into: Register) -> Self {
        Self::payload(TRANSPORT_HEADER, 0, 1, into)
    }
    /// Loads the source address.
    #[must_use]
    pub fn source(family: Family, into: Register) -> Self {
        match family {
            Family::Ipv6 => Self::payload(NETWORK_HEADER, 8, 16, into),
            _ => Self::payload(NETWORK_HEADER, 12, 4, into),
        }
    }
    /// Loads the destination address.
    #[must_use]
    pub fn destination(family: Family, into: Register) -> Self {
        match family {
            Family::Ipv6 => Self::payload(NETWORK_HEADER, 24, 16, into),
            _ => Self::payload(NETWORK_HEADER, 16, 4, into),
        }
    }
    /// Loads the destination port (two bytes).
    #[must_use]
    pub fn destination_port(into: Register) -> Self {
        Self::payload(TRANSPORT_HEADER, 2, 2, into)
    }
    /// Loads the source port (two bytes).
    #[must_use]
    pub fn source_port(into: Register) -> Self {
        Self::payload(TRANSPORT_HEADER, 0, 2, into)
    }
    /// Writes the two bytes in the register as the source port of a UDP (17) or TCP packet.
    #[must_use]
    pub fn set_source_port(protocol: u8, from: Register) -> Self {
        Self::set_port(0, protocol, from)
    }
    /// Writes the two bytes in the register as the destination port of a UDP (17) or TCP packet.
    #[must_use]
    pub fn set_destination_port(protocol: u8, from: Register) -> Self {
        Self::set_port(2, protocol, from)
    }
    fn set_port(offset: u32, protocol: u8, from: Register) -> Self {
        const OF_THE_INTERNET: u32 = 1;
        let checksum = if protocol == 17 { 6 } else { 16 };
        Self::other(
            "payload",
            vec![
                attribute(2, TRANSPORT_HEADER),
                attribute(3, offset),
                attribute(4, 2),
                attribute(5, from as u32),
                attribute(6, OF_THE_INTERNET),
                attribute(7, checksum),
            ],
        )
    }
    /// Loads the type of the destination address in the routing tables (four bytes, host order).
    #[must_use]
    pub fn fib_destination_type(into: Register) -> Self {
        const BY_DESTINATION: u32 = 1 << 1;
        const ADDRESS_TYPE: u32 = 3;
        Self::other(
            "fib",
            vec![
                attribute(1, into as u32),
                attribute(2, ADDRESS_TYPE),
                attribute(3, BY_DESTINATION),
            ],
        )
    }
    /// Loads the connection's state bits (four bytes, host order).
    #[must_use]
    pub fn connection_state(into: Register) -> Self {
        Self::other("ct", vec![attribute(1, into as u32), attribute(2, 0)])
    }
    /// Loads the packet's direction in its connection (one byte); goes on if it has one.
    #[must_use]
    pub fn connection_direction(into: Register) -> Self {
        Self::other("ct", vec![attribute(1, into as u32), attribute(2, 1)])
    }
    /// Goes on if a socket of the host's waits for the packet, connected or not. The register is lost.
    #[must_use]
    pub fn awaited(lost: Register) -> Self {
        const TRANSPARENT: u32 = 0;
        let attributes = vec![attribute(1, TRANSPARENT), attribute(2, lost as u32)];
        Self::other("socket", attributes)
    }
    /// Loads the connection's status bits (four bytes, host order).
    #[must_use]
    pub fn connection_status(into: Register) -> Self {
        Self::other("ct", vec![attribute(1, into as u32), attribute(2, 2)])
    }
    /// Keeps the bits of `mask`, in place.
    #[must_use]
    pub fn mask(register: Register, mask: &[u8]) -> Self {
        Self(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register.into()),
            Bitwise::DestinationRegister(register.into()),
            Bitwise::Length(mask.len() as u32),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]))
    }

    fn compare(operator: Operator, register: Register, value: &[u8]) -> Self {
        Self(Expressions::Cmp(vec![
            Cmp::SourceRegister(register.into()),
            Cmp::Op(operator),
            Cmp::Data(DataAttribute::Value(value.to_vec())),
        ]))
    }
    /// Goes on if the register begins with `value`.
    #[must_use]
    pub fn equal(register: Register, value: &[u8]) -> Self {
        Self::compare(Operator::Equal, register, value)
    }
    /// Goes on if it does not.
    #[must_use]
    pub fn not_equal(register: Register, value: &[u8]) -> Self {
        Self::compare(Operator::NotEqual, register, value)
    }
    /// Goes on if the set has (with `inverted`: does not have) the key that begins in the register.
    #[must_use]
    pub fn lookup(set: &str, key: Register, inverted: bool) -> Self {
        Self(Expressions::Lookup(vec![
            Lookup::Set(set.to_owned()),
            Lookup::SourceRegister(key.into()),
            Lookup::Flags(u32::from(inverted)),
        ]))
    }
    /// Loads what the map has for the key, and goes on if it has something.
    #[must_use]
    pub fn map(map: &str, key: Register, into: Register) -> Self {
        Self(Expressions::Lookup(vec![
            Lookup::Set(map.to_owned()),
            Lookup::SourceRegister(key.into()),
            Lookup::DestinationRegister(into.into()),
        ]))
    }
    /// Loads a constant.
    #[must_use]
    pub fn load(value: &[u8], into: Register) -> Self {
        Self(Expressions::Immediate(vec![
            Immediate::DestinationRegister(into.into()),
            Immediate::Data(DataAttribute::Value(value.to_vec())),
        ]))
    }
    /// Drops the packet and tells its sender that this is not allowed.
    #[must_use]
    pub fn reject() -> Self {
        const ICMP_OF_THE_FAMILY: u32 = 2;
        const NOT_ALLOWED: u8 = 3;
        let code = DefaultNla::new(2, vec![NOT_ALLOWED]);
        Self::other("reject", vec![attribute(1, ICMP_OF_THE_FAMILY), code])
    }
    /// Drops a TCP packet and resets the connection.
    #[must_use]
    pub fn reset() -> Self {
        const RESET: u32 = 1;
        Self::other("reject", vec![attribute(1, RESET)])
    }
    /// Decides.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        let code = VerdictAttribute::Code(RawVerdict::Other(verdict as u32));
        Self(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Raw::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![code])),
        ]))
    }
    /// Translates the destination to the address and port in the registers, and accepts.
    #[must_use]
    pub fn dnat(family: Family, address: Register, port: Register) -> Self {
        Self::translate(DESTINATION, family, address, Some(port))
    }
    /// Translates the destination to the address in the register, leaves the port as it is, and accepts.
    #[must_use]
    pub fn dnat_address(family: Family, address: Register) -> Self {
        Self::translate(DESTINATION, family, address, None)
    }
    /// Translates the source to the address in the register, and accepts.
    #[must_use]
    pub fn snat(family: Family, address: Register) -> Self {
        Self::translate(SOURCE, family, address, None)
    }
    fn translate(what: u32, family: Family, address: Register, port: Option<Register>) -> Self {
        const ADDRESS_SPECIFIED: u32 = 1;
        const PROTOCOL_SPECIFIED: u32 = 1 << 1;
        let mut flags = ADDRESS_SPECIFIED;
        let mut attributes = vec![
            attribute(1, what),
            attribute(2, family as u32),
            attribute(3, address as u32),
        ];
        if let Some(port) = port {
            attributes.push(attribute(5, port as u32));
            flags |= PROTOCOL_SPECIFIED;
        }
        attributes.push(attribute(7, flags));
        Self::other("nat", attributes)
    }
    /// Gives the packet to the transparent socket that listens at the address and port in the registers, as it is; goes
    /// on if there is none. Before routing only.
    #[must_use]
    pub fn lead_to(family: Family, address: Register, port: Register) -> Self {
        Self::other(
            "tproxy",
            vec![
                attribute(1, family as u32),
                attribute(2, address as u32),
                attribute(3, port as u32),
            ],
        )
    }
    /// Translates the source to the address of the link that the packet leaves by, and accepts.
    #[must_use]
    pub fn masquerade() -> Self {
        Self::other("masq", Vec::new())
    }
}
