//! Links, addresses and routes over rtnetlink(7), many changes in one send.
//!
//! A [`RouteSocket`] belongs to the network namespace that its thread was in when it was opened, and stays there:
//! opened by [`crate::netns::inside`], it configures that namespace from anywhere.

pub(crate) mod attribute;
mod change;
pub(crate) mod channel;
mod flows;
mod ipsec;
mod query;
mod removal;
mod stacked;
mod vxlan;

pub use change::{Change, Mac, NewVeth};
pub(crate) use channel::Channel;
pub use flows::{Flow, FlowSocket};
pub use ipsec::{Association, EspKey, IpsecSocket};
pub use query::{LinkFacts, RouteFacts};
pub use removal::remove_link;
pub use stacked::{Ipvlan, Macvlan, NewStacked, Reach, Stacked};
pub use vxlan::{Forwarded, NewVxlan};

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};

/// A failed change: which of the batch, and why.
#[derive(Debug, thiserror::Error)]
#[error("change {index}: {error}")]
pub struct BatchError {
    /// Position in the batch; the changes before it were made, those after it may have been.
    pub index: usize,
    /// The kernel's answer.
    pub error: io::Error,
}

impl From<BatchError> for io::Error {
    fn from(error: BatchError) -> Self {
        error.error
    }
}

/// A socket of rtnetlink(7). Not shared between threads; open one a thread or guard it.
#[derive(Debug)]
pub struct RouteSocket {
    channel: Channel,
}

impl RouteSocket {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?,
        })
    }

    /// Makes changes in order, in one send. It is not a transaction: the kernel goes on after a failure.
    ///
    /// # Errors
    /// The first failure.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), BatchError> {
        let count = changes.len();
        if count == 0 {
            return Ok(());
        }
        let at_start = |error| BatchError { index: 0, error };
        let first = self.channel.reserve(count);
        let mut bytes = Vec::with_capacity(128 * count);
        for (offset, change) in changes.into_iter().enumerate() {
            let (payload, flags) = change.into_message();
            let mut message = NetlinkMessage::from(payload);
            message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
            message.header.sequence_number = first.wrapping_add(offset as u32);
            channel::append(&mut bytes, message);
        }
        self.channel.send(&bytes).map_err(at_start)?;
        self.await_acks(first, count)
    }

    fn await_acks(&self, first: u32, count: usize) -> Result<(), BatchError> {
        let mut failure = None;
        let mut answered = 0;
        let mut buffer = channel::buffer();
        while answered < count {
            let frames = self
                .channel
                .receive(&mut buffer)
                .map_err(|error| BatchError { index: 0, error })?;
            for frame in frames {
                let index = frame.sequence.wrapping_sub(first) as usize;
                let Some(result) = frame.ack().filter(|_| index < count) else {
                    continue;
                };
                answered += 1;
                if let (Err(error), None) = (result, &failure) {
                    failure = Some(BatchError { index, error });
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    #[test]
    fn a_veth_is_born_in_another_namespace_and_configured_there() {
        let (outer, ()) = netns::create(|| Ok(())).unwrap();
        let (inner, mut inside) = netns::create(RouteSocket::open).unwrap();
        netns::inside(&outer, || {
            let mut socket = RouteSocket::open()?;
            socket.apply(vec![Change::bridge("br0", None)])?;
            let bridge = socket.link("br0")?.expect("the bridge is there");
            assert_eq!(bridge.kind, "bridge");
            socket.apply(vec![Change::veth(&NewVeth {
                name: "v0",
                master: bridge.index,
                mtu: 1400,
                peer: "eth0",
                peer_mac: Some(Mac([2, 0x42, 10, 0, 0, 2])),
                peer_netns: std::os::fd::AsFd::as_fd(&inner),
                up: true,
            })])?;
            let outside = socket.link("v0")?.expect("the outer end is there");
            assert_eq!((outside.master, outside.up), (bridge.index, true));
            assert_eq!(socket.links()?.len(), 3);
            Ok(())
        })
        .unwrap();
        let peer = inside
            .link("eth0")
            .unwrap()
            .expect("the inner end is there");
        assert_eq!(peer.mac, Some(Mac([2, 0x42, 10, 0, 0, 2])));
        assert_eq!(peer.mtu, 1400);
        inside
            .apply(vec![
                Change::address(peer.index, "10.0.0.2/24".parse().unwrap()),
                Change::up(peer.index),
                Change::default_route("10.0.0.1".parse().unwrap(), peer.index),
            ])
            .unwrap();
        let routes = inside.routes().unwrap();
        assert!(
            routes
                .iter()
                .any(|r| r.to.prefix_len() == 0 && r.link == peer.index)
        );
        let wanted = (peer.index, "10.0.0.2/24".parse().unwrap());
        assert!(inside.addresses().unwrap().contains(&wanted));
    }

    #[test]
    fn the_first_failure_is_told() {
        let (_, mut socket) = netns::create(RouteSocket::open).unwrap();
        let error = socket
            .apply(vec![Change::up(1), Change::delete(77), Change::up(1)])
            .unwrap_err();
        assert_eq!(error.index, 1);
        assert_eq!(error.error.raw_os_error(), Some(libc::ENODEV));
        assert!(socket.link("nothing").unwrap().is_none());
    }
}
