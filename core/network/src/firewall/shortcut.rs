//! Published ports at loopback addresses, as the host's own processes reach them: what they connect to over TCP and IPv4 is
//! led to the container as it is connected. Translation costs each packet a second look at the route, here and back.
//!
//! What cannot be had of it (a kernel that does not, thousands of ports, sockets that have an address already) is translated
//! like the rest.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_driver_api::network::{FirewallIntent, Protocol};
use gantry_sys::connect::Led;

use super::Firewall;
use crate::rows::InRow;

/// Ports of a row at most: each is an entry of its own.
const MOST_OF_ROW: u16 = 1024;

/// Where what is connected to leads.
type Places = HashMap<SocketAddrV4, SocketAddrV4>;

/// Begins for the engine of a table, if the kernel lets it.
pub(super) fn begin(group: &Path, table: &str) -> Option<Led> {
    let led = Led::begin(group, &table.replace('-', "_"));
    led.inspect_err(|error| {
        tracing::debug!(%error, "connections to published ports at loopback addresses are translated");
    })
    .ok()
}

/// What some heads of rows lead to.
pub(super) fn places<'a>(heads: impl Iterator<Item = (&'a FirewallIntent, u16)>) -> Places {
    let rows = heads.filter(|(_, more)| *more < MOST_OF_ROW);
    rows.flat_map(|(first, more)| (0..=more).filter_map(|by| place(&first.after(by)?)))
        .collect()
}

fn place(intent: &FirewallIntent) -> Option<(SocketAddrV4, SocketAddrV4)> {
    match intent {
        FirewallIntent::Publish {
            protocol: Protocol::Tcp,
            host: SocketAddr::V4(at),
            target: SocketAddr::V4(to),
            ..
        } if at.ip().is_loopback() || at.ip().is_unspecified() => Some((*at, *to)),
        _ => None,
    }
}

impl Firewall {
    /// Leads connections there in the place of where they were led.
    pub(super) fn lead(&self, before: &Places, after: &Places) {
        let Some(led) = &self.led else {
            return;
        };
        let gone = before.keys().filter(|at| !after.contains_key(at));
        let new = after.iter().filter(|(at, to)| before.get(at) != Some(to));
        let removed = gone.map(|at| led.remove(*at));
        let set = new.map(|(at, to)| led.set(*at, *to));
        let failed: Vec<_> = removed.chain(set).filter_map(Result::err).collect();
        if let Some(error) = failed.first() {
            let ports = failed.len();
            tracing::warn!(%error, ports, "leading connections to published ports");
        }
    }

    /// What is to be held by somebody for connections to be led while the daemon is away.
    pub(crate) fn shortcut(&self) -> Option<&[OwnedFd; 2]> {
        self.led.as_ref().map(Led::links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_of_the_loopback_addresses_is_led() {
        let intent = |protocol, host: &str, target: &str| FirewallIntent::Publish {
            protocol,
            host: host.parse().unwrap(),
            target: target.parse().unwrap(),
            link: String::new(),
        };
        let one = |protocol, host, target| {
            let places = places([(&intent(protocol, host, target), 0)].into_iter());
            places.into_iter().next()
        };
        let some = |at: &str, to: &str| Some((at.parse().unwrap(), to.parse().unwrap()));
        let tcp = Protocol::Tcp;
        assert_eq!(
            one(tcp, "0.0.0.0:80", "10.0.0.2:8080"),
            some("0.0.0.0:80", "10.0.0.2:8080")
        );
        assert_eq!(
            one(tcp, "127.0.0.2:80", "10.0.0.2:80"),
            some("127.0.0.2:80", "10.0.0.2:80")
        );
        assert_eq!(one(tcp, "192.0.2.1:80", "10.0.0.2:80"), None);
        assert_eq!(one(tcp, "[::]:80", "[fd00::2]:80"), None);
        assert_eq!(one(Protocol::Udp, "0.0.0.0:80", "10.0.0.2:80"), None);
        let first = intent(tcp, "0.0.0.0:1000", "10.0.0.2:2000");
        let row = places([(&first, 1023)].into_iter());
        assert_eq!(row.len(), 1024);
        assert_eq!(
            row[&"0.0.0.0:2023".parse().unwrap()],
            "10.0.0.2:3023".parse().unwrap()
        );
        assert_eq!(places([(&first, 1024)].into_iter()).len(), 0);
    }
}
