//! What others change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::netlink::attribute::nested;
use crate::netlink::{Channel, channel};

use super::ChainFacts;
use super::read::{chain_facts, text};

/// A change that anybody made, this program included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A table was removed.
    TableRemoved {
        /// The kernel's number of its family.
        family: u8,
        /// Its name.
        name: String,
    },
    /// Something in a table was removed: a rule, a chain, a set or elements of one.
    Removed {
        /// The kernel's number of the table's family.
        family: u8,
        /// The table.
        table: String,
        /// It was a rule or a chain.
        rule: bool,
        /// The set that it was, or was in; empty for rules and chains.
        set: String,
        /// The socket's number of whom did it, see [`super::NftSocket::port`].
        by: u32,
    },
    /// A chain was added, or its policy changed.
    Chain(ChainFacts),
}

/// Hears of changes in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct NftWatch {
    channel: Channel,
}

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10 << 8;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const DELETE_SET: u16 = SUBSYSTEM | 11;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;

impl AsFd for NftWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl NftWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
        // Some ten thousand elements at once.
        channel.allow_waiting(4 * 1024 * 1024);
        channel.join(GROUP)?;
        Ok(Self { channel })
    }

    /// Waits for changes; those of no interest come as an empty list.
    ///
    /// # Errors
    /// `ENOBUFS` when changes were missed because there were too many at once. More are missed, without being told, until
    /// all that waits is received.
    pub fn wait(&self) -> io::Result<Vec<Event>> {
        const HEADER: usize = 4;
        let mut buffer = channel::buffer();
        let mut events = Vec::new();
        for frame in self.channel.receive(&mut buffer)? {
            let Some((head, rest)) = frame.payload.split_at_checked(HEADER) else {
                continue;
            };
            match frame.kind {
                DELETE_TABLE => events.push(Event::TableRemoved {
                    family: head[0],
                    name: nested(rest, 1).map(text).unwrap_or_default(),
                }),
                kind @ (DELETE_CHAIN | DELETE_RULE | DELETE_SET | DELETE_ELEMENTS) => {
                    let rule = matches!(kind, DELETE_CHAIN | DELETE_RULE);
                    let set = (!rule).then(|| nested(rest, 2).map(text)).flatten();
                    events.push(Event::Removed {
                        family: head[0],
                        table: nested(rest, 1).map(text).unwrap_or_default(),
                        rule,
                        set: set.unwrap_or_default(),
                        by: frame.port,
                    });
                }
                NEW_CHAIN => events.push(Event::Chain(chain_facts(head[0], rest))),
                _ => {}
            }
        }
        Ok(events)
    }
}
