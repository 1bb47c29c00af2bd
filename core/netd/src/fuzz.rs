//! What reads foreign bytes, as functions, for `tests/fuzz`.

use crate::dns::{self, Answer};
use crate::message::{self, Message};
use crate::names::Names;
use crate::{Asks, Membership, SandboxNames};

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
            asks: Asks::Host,
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
    let asked = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";
    if let (Message::Query(asked), true) = (message::read(asked), message::answers(bytes, asked)) {
        assert_eq!(asked.told(bytes.to_vec()).len(), bytes.len());
    }
}
