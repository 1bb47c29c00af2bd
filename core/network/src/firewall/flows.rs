//! Flows that would go on as they began, past a change of published ports.
//!
//! UDP has no connections, so a client that keeps sending from one port keeps its flow: to a container that is gone,
//! or to the host although a container is published by now. TCP clients notice by themselves.

use std::collections::HashSet;
use std::io;

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_sys::netlink::{Flow, FlowSocket};

const UDP: u8 = 17;

/// Forgets the flows that `withdrawn` ports had, and those that `published` ones are to have.
pub(super) fn forget(
    withdrawn: impl Iterator<Item = FirewallIntent>,
    published: impl Iterator<Item = FirewallIntent>,
) -> io::Result<()> {
    let (mut targets, mut hosts) = (HashSet::new(), HashSet::new());
    for intent in withdrawn {
        if let FirewallIntent::Publish {
            protocol: Protocol::Udp,
            target,
            ..
        } = intent
        {
            targets.insert(target);
        }
    }
    for intent in published {
        if let FirewallIntent::Publish {
            protocol: Protocol::Udp,
            host,
            ..
        } = intent
        {
            hosts.insert(host.port());
        }
    }
    if targets.is_empty() && hosts.is_empty() {
        return Ok(());
    }
    FlowSocket::open()?
        .forget(|flow: &Flow| {
            let translated = targets.contains(&flow.reply.0);
            flow.protocol == UDP && (translated || hosts.contains(&flow.original.1.port()))
        })
        .map(drop)
}
