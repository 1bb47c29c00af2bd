//! What containers ask the name service.

use crate::Target;

/// A query for a name and a kind of record, with EDNS.
fn query(labels: &[&str], kind: u8) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

pub(super) const DNS: Target = Target {
    name: "dns",
    run: gantry_netd::fuzz::query,
    seeds: || {
        vec![
            query(&["web"], 1),
            query(&["WEB", "net"], 28),
            query(&["3", "0", "0", "10", "in-addr", "arpa"], 12),
            query(&["example", "org"], 16),
        ]
    },
    words: &["\x03web", "\x04arpa", "\x07in-addr"],
    rounds: 50_000,
};
