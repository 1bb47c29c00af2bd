//! Chains of others that drop forwarded packets by default (`iptables -P FORWARD DROP`, as dockerd sets it).
//!
//! An accept in one table does not keep another's chain from dropping. So each such chain gets two rules a bridge in
//! front, marked with the engine's table name; they are brought up to date here and go away with the bridges.

use std::io;

use gantry_sys::nft::{Batch, ChainFacts, Expr, Family, NftSocket, Register, Verdict};

use super::{Bridge, rules};

/// The kernel's number of the forward hook.
const FORWARD: u32 = 2;

fn family(number: u8) -> Option<Family> {
    [Family::Inet, Family::Ipv4, Family::Ipv6]
        .into_iter()
        .find(|family| *family as u8 == number)
}

/// Whether a chain drops what is forwarded and not spoken for.
pub(super) fn stops_us(chain: &ChainFacts) -> bool {
    chain.hook == Some(FORWARD) && chain.drop
}

/// Lets the bridges pass every such chain, and nothing else of ours.
pub(super) fn pass(socket: &mut NftSocket, own: &str, bridges: &[Bridge]) -> io::Result<()> {
    for chain in socket.chains()? {
        // Another engine of our kind decides about its own bridges alone, and never drops by default.
        if chain.hook == Some(FORWARD) && chain.table != own {
            pass_one(socket, own, &chain, bridges)?;
        }
    }
    Ok(())
}

fn pass_one(
    socket: &mut NftSocket,
    mark: &str,
    chain: &ChainFacts,
    bridges: &[Bridge],
) -> io::Result<()> {
    let Some(family) = family(chain.family) else {
        return Ok(());
    };
    let wanted: Vec<String> = if chain.drop {
        bridges
            .iter()
            .map(|b| format!("{mark} {}", b.link))
            .collect()
    } else {
        Vec::new()
    };
    let mut batch = Batch::new(family, &chain.table);
    let mut present = Vec::new();
    for rule in socket.rules(family, &chain.table, &chain.name)? {
        let Some(comment) = rule.comment.filter(|c| c.split(' ').next() == Some(mark)) else {
            continue;
        };
        if wanted.contains(&comment) {
            present.push(comment);
        } else {
            batch.delete_rule(&chain.name, rule.handle);
        }
    }
    for (bridge, comment) in bridges.iter().zip(&wanted) {
        if present.iter().filter(|c| *c == comment).count() >= 2 {
            continue;
        }
        let link = rules::link(&bridge.link);
        for side in [
            Expr::input_link(Register::R0),
            Expr::output_link(Register::R0),
        ] {
            let expressions = vec![
                side,
                Expr::equal(Register::R0, &link),
                Expr::verdict(Verdict::Accept),
            ];
            batch.insert_rule(&chain.name, expressions, comment);
        }
    }
    socket.commit(batch)
}
