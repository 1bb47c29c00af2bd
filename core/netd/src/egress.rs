//! Names as a way out: a sandbox with an egress list reaches the addresses of the names on it, from the moment that
//! they are told it until some time after they expire.
//!
//! The addresses are put into the kernel's set before the answer is given, by this process alone: it works while the
//! daemon is away, and where the set cannot be written the question is not answered.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gantry_sys::nft::{Batch, Family, NftSocket};
use hickory_proto::op::Message;
use hickory_proto::rr::RData;

use crate::Egress;
use crate::protocol::{EGRESS_NAMES_V4, EGRESS_NAMES_V6};

/// How long an address is reached at least, whatever the answer says: who asks needs time to connect.
const SHORTEST: Duration = Duration::from_secs(60);
/// At most.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Addresses that are open to a sandbox at most, and of one answer. The soonest to expire make room for others.
const MOST: usize = 4096;
const MOST_AT_ONCE: usize = 256;

impl Egress {
    /// Whether a name (in lower case, without the last dot) is on the list.
    pub(crate) fn lists(&self, name: &str) -> bool {
        let name = name.as_bytes();
        self.names
            .iter()
            .any(|listed| match listed.strip_prefix('*') {
                Some(suffix) => {
                    let at = name.len().saturating_sub(suffix.len());
                    at > 0 && name[at..].eq_ignore_ascii_case(suffix.as_bytes())
                }
                None => name.eq_ignore_ascii_case(listed.as_bytes()),
            })
    }
}

/// Opens ways for sandboxes.
#[derive(Default)]
pub(crate) struct Gate {
    socket: Option<NftSocket>,
    /// Until when each address is open, by sandbox.
    open: HashMap<String, HashMap<IpAddr, Instant>>,
}

impl Gate {
    /// Opens the ways to the addresses in an answer.
    pub(crate) fn admit(&mut self, id: &str, egress: &Egress, reply: &[u8]) -> io::Result<()> {
        let Ok(reply) = Message::from_vec(reply) else {
            // Whoever asked cannot read it either.
            return Ok(());
        };
        let found = reply.answers.iter().filter_map(|record| {
            let address = match &record.data {
                RData::A(a) => IpAddr::V4(a.0),
                RData::AAAA(a) => IpAddr::V6(a.0),
                _ => return None,
            };
            let time = Duration::from_secs(record.ttl.into()).clamp(SHORTEST, LONGEST);
            leads_away(address).then_some((address, time))
        });
        let found: Vec<(IpAddr, Duration)> = found.take(MOST_AT_ONCE).collect();
        let now = Instant::now();
        let mut open = self.open.get(id).cloned().unwrap_or_default();
        open.retain(|_, until| *until > now);
        for (address, time) in &found {
            let until = open.entry(*address).or_insert(now);
            *until = (*until).max(now + *time);
        }
        let gone = crowded_out(&mut open, MOST);
        self.write(egress, &found, &gone)?;
        self.open.insert(id.to_owned(), open);
        Ok(())
    }

    /// Opens again what is open, after the daemon made the sets anew.
    pub(crate) fn again(&mut self, id: &str, egress: &Egress) -> io::Result<()> {
        let now = Instant::now();
        let left =
            |(ip, until): (&IpAddr, &Instant)| Some((*ip, until.checked_duration_since(now)?));
        let open = self.open.get(id).into_iter().flatten().filter_map(left);
        let open: Vec<_> = open.collect();
        self.write(egress, &open, &HashSet::new())
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.open.remove(id);
    }

    fn write(
        &mut self,
        egress: &Egress,
        addresses: &[(IpAddr, Duration)],
        gone: &HashSet<IpAddr>,
    ) -> io::Result<()> {
        let mut batch = Batch::new(Family::Inet, &egress.table);
        for (set, v6) in [(EGRESS_NAMES_V4, false), (EGRESS_NAMES_V6, true)] {
            let mut keys = HashMap::new();
            for source in egress.sources.iter().filter(|ip| ip.is_ipv6() == v6) {
                let gone = gone.iter().filter(|ip| ip.is_ipv6() == v6);
                let gone: Vec<_> = gone
                    .map(|address| [octets(*source), octets(*address)].concat())
                    .collect();
                if !gone.is_empty() {
                    batch.remove_elements(set, gone);
                }
                for (address, time) in addresses.iter().filter(|(ip, _)| ip.is_ipv6() == v6) {
                    let key = [octets(*source), octets(*address)].concat();
                    keys.insert(key, (*time).max(Duration::from_secs(1)));
                }
            }
            if !keys.is_empty() {
                batch.add_expiring(set, keys.into_iter().collect());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => NftSocket::open()?,
        };
        socket.commit(batch)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// Takes those that expire first out, until there are `most`.
fn crowded_out(open: &mut HashMap<IpAddr, Instant>, most: usize) -> HashSet<IpAddr> {
    if open.len() <= most {
        return HashSet::new();
    }
    let mut all: Vec<_> = open
        .iter()
        .map(|(address, until)| (*until, *address))
        .collect();
    all.sort_unstable();
    all.truncate(open.len() - most);
    let gone: HashSet<_> = all.into_iter().map(|(_, address)| address).collect();
    open.retain(|address, _| !gone.contains(address));
    gone
}

/// Addresses that a name is believed. Whoever answers for a name must not make a way to this host, or to what is only
/// reached on a link (a cloud's metadata service).
fn leads_away(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let on_link = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !special && !on_link
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_list() {
        let egress = Egress {
            table: String::new(),
            names: vec!["Example.org".into(), "*.example.net".into()],
            networks: false,
            sources: Vec::new(),
        };
        for (name, listed) in [
            ("example.org", true),
            ("www.example.org", false),
            ("a.b.example.net", true),
            ("example.net", false),
            ("badexample.net", false),
            ("", false),
        ] {
            assert_eq!(egress.lists(name), listed, "{name}");
        }
    }

    #[test]
    fn the_soonest_to_expire_make_room() {
        let now = Instant::now();
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut open: HashMap<_, _> = (0..5)
            .map(|n| (address(n), now + Duration::from_secs(10 - u64::from(n))))
            .collect();
        assert!(crowded_out(&mut open, 5).is_empty());
        assert_eq!(crowded_out(&mut open, 3), [address(4), address(3)].into());
        assert_eq!(open.len(), 3);
    }

    #[test]
    fn addresses_that_are_believed() {
        for (address, believed) in [
            ("93.184.216.34", true),
            ("10.0.0.1", true),
            ("169.254.169.254", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("2001:db8::1", true),
            ("fe80::1", false),
            ("::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(leads_away(address.parse().unwrap()), believed, "{address}");
        }
    }
}
