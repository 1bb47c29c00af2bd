//! Links on top of another link of the host: macvlan and ipvlan. Source: ip-link(8), `Documentation/networking/ipvlan.rst`.

use std::os::fd::BorrowedFd;

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanFlags, IpVlanMode, MacVlanMode,
};

use super::Mac;

/// A link on top of another one, born in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct NewStacked<'a> {
    /// Its name there.
    pub name: &'a str,
    /// Index of the link below it, in the namespace of the socket.
    pub parent: u32,
    /// What it is.
    pub kind: Stacked,
    /// Its address; none for the kernel's choice. An ipvlan link has its parent's.
    pub mac: Option<Mac>,
    /// MTU; 0 for the parent's.
    pub mtu: u32,
    /// Its namespace.
    pub netns: BorrowedFd<'a>,
}

/// Kinds of links on top of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacked {
    /// With an Ethernet address of its own.
    Macvlan(Macvlan),
    /// With its parent's Ethernet address.
    Ipvlan(Ipvlan, Reach),
}

/// What a macvlan link exchanges frames with, besides the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macvlan {
    /// No other link of the same parent.
    Private,
    /// Others of the same parent, by way of a switch that sends frames back.
    Vepa,
    /// Others of the same parent, directly.
    Bridge,
    /// It is the only one, and has the parent's address.
    Passthru,
}

/// Which layer an ipvlan link works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipvlan {
    /// Ethernet.
    L2,
    /// IP: no broadcasts, no neighbour discovery.
    L3,
    /// IP, with the host's connection tracking.
    L3s,
}

/// What an ipvlan link exchanges packets with, besides the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Others of the same parent, directly.
    Bridge,
    /// No other of the same parent.
    Private,
    /// Others of the same parent, by way of the world.
    Vepa,
}

impl Stacked {
    pub(super) fn info(self) -> (InfoKind, InfoData) {
        match self {
            Self::Macvlan(mode) => {
                let mode = match mode {
                    Macvlan::Private => MacVlanMode::Private,
                    Macvlan::Vepa => MacVlanMode::Vepa,
                    Macvlan::Bridge => MacVlanMode::Bridge,
                    Macvlan::Passthru => MacVlanMode::Passthrough,
                };
                let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
                (InfoKind::MacVlan, data)
            }
            Self::Ipvlan(mode, reach) => {
                let mode = match mode {
                    Ipvlan::L2 => IpVlanMode::L2,
                    Ipvlan::L3 => IpVlanMode::L3,
                    Ipvlan::L3s => IpVlanMode::L3S,
                };
                let flags = match reach {
                    Reach::Bridge => IpVlanFlags::empty(),
                    Reach::Private => IpVlanFlags::Private,
                    Reach::Vepa => IpVlanFlags::Vepa,
                };
                let data = vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)];
                (InfoKind::IpVlan, InfoData::IpVlan(data))
            }
        }
    }
}
