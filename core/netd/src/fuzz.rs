//! What reads foreign bytes, as functions, for `tests/fuzz`.

use crate::dns::{self, Answer};
use crate::message;
use crate::names::Names;
use crate::{Membership, SandboxNames};

fn membership(name: &str, address: &str) -> Membership {
    Membership {
        network: "n".into(),
        network_name: "net".into(),
        names: vec![name.into()],
        addresses: address.parse().into_iter().collect(),
        aliases: Vec::new(),
    }
}

/// A query of a sandbox that has a neighbour called `web`. An answer must be one, and to this query.
pub fn query(bytes: &[u8]) {
    let mut names = Names::default();
    for (id, name, address) in [("a", "asker", "10.0.0.2"), ("b", "web", "10.0.0.3")] {
        names.put(SandboxNames {
            id: id.into(),
            memberships: vec![membership(name, address)],
            upstreams: Vec::new(),
            egress: None,
            searches: false,
            follows_host: false,
        });
    }
    for over_udp in [true, false] {
        if let Answer::Ready(reply) = dns::answer(&mut names, "a", bytes, over_udp) {
            assert_eq!(reply[..2], bytes[..2], "an answer to another query");
            assert!(message::code(&reply).is_some(), "no answer");
        }
    }
    let _ = dns::failure(bytes);
}
