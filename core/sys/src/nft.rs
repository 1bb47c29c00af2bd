//! nftables over netlink: atomic batches, and the little that has to be read back.
//!
//! The vocabulary is the kernel's (`linux/netfilter/nf_tables.h`); `nft --debug=netlink` prints rules in the same
//! terms as [`Expr`]'s constructors.

mod batch;
mod expr;
mod read;
mod watch;

pub use batch::{BaseChain, Batch, Family, Holds, Hook, Kind, Range, SetSpec, kind};
pub use expr::{Expr, Register, Verdict};
pub use read::{ChainFacts, RuleFacts};
pub use watch::{Event, NftWatch};

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, none::ControlMessage,
};

use crate::netlink::{Channel, channel};

const SUBSYSTEM: u16 = 10;

/// A socket of nftables, bound to the namespace of the thread that opened it.
#[derive(Debug)]
pub struct NftSocket {
    channel: Channel,
}

impl NftSocket {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?,
        })
    }

    /// The number by which the kernel tells others who made a change.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Makes all changes of a batch, or none.
    ///
    /// # Errors
    /// The kernel's answer to the first change that it refuses.
    pub fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let count = batch.messages.len();
        if count == 0 {
            return Ok(());
        }
        let first = self.channel.reserve(count + 2);
        let last = first.wrapping_add(count as u32);
        let mut bytes = Vec::with_capacity(256 * count);
        control(&mut bytes, ControlMessage::BatchBegin, first);
        for (offset, mut message) in (1..).zip(batch.messages) {
            message.header.sequence_number = first.wrapping_add(offset);
            if message.header.sequence_number == last {
                message.header.flags |= NLM_F_ACK;
            }
            channel::append(&mut bytes, message);
        }
        control(&mut bytes, ControlMessage::BatchEnd, last.wrapping_add(1));
        if bytes.len() > 64 * 1024 {
            self.channel.allow_send(2 * bytes.len());
        }
        self.channel.send(&bytes)?;
        self.await_end(first, last)
    }

    /// Closes it without waiting. The kernel keeps whoever closes one in a namespace in which something has just been
    /// removed until that is freed, some 15 ms; a thread waits for it.
    pub fn close_behind(self) {
        // Where there can be no thread, the socket is dropped here.
        let _ = std::thread::Builder::new()
            .name("nft-close".into())
            .stack_size(128 * 1024)
            .spawn(move || drop(self));
    }

    /// Failures of any message come before the acknowledgement of the last.
    fn await_end(&self, first: u32, last: u32) -> io::Result<()> {
        let mut buffer = channel::buffer();
        loop {
            for frame in self.channel.receive(&mut buffer)? {
                if frame.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                match frame.ack() {
                    Some(Ok(())) if frame.sequence == last => return Ok(()),
                    Some(Err(error)) => return Err(error),
                    _ => {}
                }
            }
        }
    }
}

fn control(bytes: &mut Vec<u8>, message: ControlMessage, sequence: u32) {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
    message.header.flags = NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    channel::append(bytes, message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    fn table() -> Batch {
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_chain(&BaseChain {
            name: "pre",
            kind: "nat",
            hook: Hook::Prerouting,
            priority: -100,
            drop: false,
        });
        batch.add_set(&SetSpec {
            name: "ports",
            key: &[kind::PROTOCOL, kind::PORT],
            value: Some(&[kind::IPV4, kind::PORT]),
            holds: Holds::Keys,
        });
        batch.add_rule(
            "pre",
            vec![
                Expr::fib_destination_type(Register::R0),
                Expr::equal(Register::R0, &Expr::LOCAL.to_ne_bytes()),
                Expr::network_protocol(Register::R0),
                Expr::equal(Register::R0, &[Family::Ipv4 as u8]),
                Expr::transport_protocol(Register::R0),
                Expr::destination_port(Register::R1),
                Expr::map("ports", Register::R0, Register::R0),
                Expr::dnat(Family::Ipv4, Register::R0, Register::R1),
            ],
            "note",
        );
        batch
    }

    #[test]
    fn a_batch_is_made_whole_or_not_at_all() {
        netns::create(|| {
            let mut socket = NftSocket::open()?;
            socket.commit(table())?;
            let chains = socket.chains()?;
            assert_eq!(chains.len(), 1);
            assert_eq!((chains[0].name.as_str(), chains[0].hook), ("pre", Some(0)));
            let rules = socket.rules(Family::Inet, "t", "pre")?;
            assert_eq!(rules.len(), 1);
            assert_eq!(rules[0].comment.as_deref(), Some("note"));

            let mut bad = Batch::new(Family::Inet, "t");
            bad.add_rule("pre", vec![Expr::verdict(Verdict::Accept)], "");
            bad.add_rule("missing", vec![Expr::verdict(Verdict::Accept)], "");
            let error = socket.commit(bad).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            assert_eq!(socket.rules(Family::Inet, "t", "pre")?.len(), 1);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn changes_are_heard_of() {
        netns::create(|| {
            let watch = NftWatch::open()?;
            let mut socket = NftSocket::open()?;
            socket.commit(table())?;
            let mut end = Batch::new(Family::Inet, "t");
            end.remove_table();
            let mut flush = Batch::new(Family::Inet, "t");
            flush.flush_chain("pre");
            socket.commit(flush)?;
            socket.commit(end)?;
            let mut events = Vec::new();
            while !matches!(events.last(), Some(Event::TableRemoved { .. })) {
                events.extend(watch.wait()?);
            }
            assert!(
                matches!(&events[0], Event::Chain(chain) if chain.name == "pre" && !chain.drop)
            );
            let removed = Event::Removed {
                family: Family::Inet as u8,
                table: "t".into(),
                rule: true,
                set: String::new(),
                by: socket.port(),
            };
            assert_eq!(events[1], removed);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn ranges_and_times() {
        netns::create(|| {
            let mut socket = NftSocket::open()?;
            let mut batch = Batch::new(Family::Inet, "t");
            batch.add_table();
            let pair: &[Kind] = &[kind::IPV4, kind::IPV4];
            let set = |name, holds| SetSpec {
                name,
                key: pair,
                value: None,
                holds,
            };
            batch.add_set(&set("ranges", Holds::Ranges));
            batch.add_set(&set("names", Holds::Expiring));
            let key = |last: u8| vec![172, 17, 0, 2, 10, 0, 0, last];
            batch.add_ranges("ranges", vec![(key(1), key(9)), (key(11), key(20))]);
            batch.add_expiring("names", vec![(key(1), std::time::Duration::from_secs(100))]);
            socket.commit(batch)?;
            assert_eq!(socket.elements(Family::Inet, "t", "ranges")?.len(), 2);
            let mut batch = Batch::new(Family::Inet, "t");
            batch.delete_ranges("ranges", vec![(key(1), key(9))]);
            batch.add_ranges("ranges", vec![(key(0), key(8))]);
            // Again, and one that is not there.
            batch.add_expiring("names", vec![(key(1), std::time::Duration::from_secs(300))]);
            batch.remove_elements("names", vec![key(2)]);
            socket.commit(batch)?;
            assert_eq!(socket.elements(Family::Inet, "t", "ranges")?.len(), 2);
            assert_eq!(
                socket.elements(Family::Inet, "t", "names")?,
                vec![(key(1), Vec::new())]
            );
            let mut overlapping = Batch::new(Family::Inet, "t");
            overlapping.add_ranges("ranges", vec![(key(15), key(30))]);
            assert!(socket.commit(overlapping).is_err());
            let mut end = Batch::new(Family::Inet, "t");
            end.remove_table();
            socket.commit(end)
        })
        .unwrap();
    }

    #[test]
    fn spans_come_and_go() {
        netns::create(|| {
            let mut socket = NftSocket::open()?;
            let new = || Batch::new(Family::Inet, "t");
            let mut batch = new();
            batch.add_table();
            batch.add_set(&SetSpec {
                name: "spans",
                key: &[kind::IPV4],
                value: Some(&[kind::IPV4]),
                holds: Holds::Spans,
            });
            let span = |net: u8| (vec![10, 0, net, 0], vec![10, 0, net, 255]);
            let value = |net: u8| Some(vec![192, 0, 2, net]);
            // One touches the next, and the last address of all is in one.
            let top = (vec![255, 255, 255, 0], vec![255; 4]);
            let spans = [0, 1, 2].map(|net| (span(net), value(net)));
            batch.add_spans("spans", spans.to_vec());
            batch.add_spans("spans", vec![(top.clone(), value(9))]);
            socket.commit(batch)?;
            let starts = |socket: &mut NftSocket| -> io::Result<Vec<u8>> {
                let elements = socket.elements(Family::Inet, "t", "spans")?.into_iter();
                let mut values: Vec<u8> = elements.filter_map(|(_, v)| v.last().copied()).collect();
                values.sort_unstable();
                Ok(values)
            };
            assert_eq!(starts(&mut socket)?, [0, 1, 2, 9]);
            let mut change = new();
            change.delete_spans("spans", vec![span(1), top]);
            change.add_spans("spans", vec![(span(1), value(7))]);
            socket.commit(change)?;
            assert_eq!(starts(&mut socket)?, [0, 2, 7]);
            let mut overlapping = new();
            let inside = (vec![10, 0, 1, 7], vec![10, 0, 1, 9]);
            overlapping.add_spans("spans", vec![(inside, value(3))]);
            assert!(socket.commit(overlapping).is_err());
            let mut absent = new();
            absent.delete_spans("spans", vec![span(5)]);
            let error = socket.commit(absent).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            let mut end = new();
            end.remove_table();
            socket.commit(end)
        })
        .unwrap();
    }

    #[test]
    fn elements_come_and_go() {
        netns::create(|| {
            let mut socket = NftSocket::open()?;
            socket.commit(table())?;
            let key = [6, 0, 0, 0, 0x1f, 0x90, 0, 0].to_vec();
            let value = [172, 17, 0, 2, 0, 80, 0, 0].to_vec();
            let mut add = Batch::new(Family::Inet, "t");
            add.add_elements("ports", vec![(key.clone(), Some(value.clone()))]);
            socket.commit(add)?;
            assert_eq!(
                socket.elements(Family::Inet, "t", "ports")?,
                vec![(key.clone(), value)]
            );
            let mut remove = Batch::new(Family::Inet, "t");
            remove.delete_elements("ports", vec![key]);
            socket.commit(remove.clone())?;
            assert!(socket.elements(Family::Inet, "t", "ports")?.is_empty());
            assert_eq!(
                socket.commit(remove).unwrap_err().raw_os_error(),
                Some(libc::ENOENT)
            );
            let mut many = Batch::new(Family::Inet, "t");
            let element = |port: u16| {
                let [a, b] = port.to_be_bytes();
                (
                    vec![6, 0, 0, 0, a, b, 0, 0],
                    Some(vec![172, 17, 0, 2, a, b, 0, 0]),
                )
            };
            many.add_elements("ports", (0..=u16::MAX).map(element).collect());
            socket.commit(many)?;
            assert_eq!(socket.elements(Family::Inet, "t", "ports")?.len(), 65536);
            let mut end = Batch::new(Family::Inet, "t");
            end.remove_table();
            socket.commit(end)?;
            assert!(socket.chains()?.is_empty());
            Ok(())
        })
        .unwrap();
    }
}
