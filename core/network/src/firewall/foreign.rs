//! Chains of others that drop forwarded packets by default (`iptables -P FORWARD DROP`, as dockerd sets it).
//!
//! An accept in one table does not keep another's chain from dropping. So each such chain gets rules of ours in front,
//! marked with the engine's table name: two for all bridges that are named after the engine's tag, two for each other one.
//! They are brought up to date here and go away with the bridges.

use std::collections::BTreeSet;
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

/// The name of a bridge, or what the names of several begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Links {
    Named(String),
    With(String),
}

impl Links {
    pub(super) fn of(own: &str, bridge: &Bridge) -> Self {
        let tag = own.rsplit('-').next().unwrap_or_default();
        // Drivers put a letter before the tag.
        let tagged = bridge
            .link
            .get(1..)
            .is_some_and(|rest| rest.starts_with(tag));
        match tagged.then(|| bridge.link.get(..=tag.len())).flatten() {
            Some(prefix) => Self::With(prefix.to_owned()),
            None => Self::Named(bridge.link.clone()),
        }
    }

    /// The beginning of the kernel's form of the names.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Named(name) => rules::link(name),
            Self::With(prefix) => prefix.as_bytes().to_vec(),
        }
    }

    fn comment(&self, mark: &str) -> String {
        match self {
            Self::Named(name) => format!("{mark} {name}"),
            Self::With(prefix) => format!("{mark} {prefix}+"),
        }
    }
}

/// What the links of these bridges are called, for the engine whose table is `own`.
pub(super) fn links<'a>(
    own: &str,
    bridges: impl IntoIterator<Item = &'a Bridge>,
) -> BTreeSet<Links> {
    let bridges = bridges.into_iter();
    bridges.map(|bridge| Links::of(own, bridge)).collect()
}

/// Lets these links pass every such chain, and nothing else of ours.
pub(super) fn pass(socket: &mut NftSocket, own: &str, links: &BTreeSet<Links>) -> io::Result<()> {
    // Another engine that ends meanwhile, say, takes a chain away that was there just now.
    const LOOKS: usize = 10;
    let mut passed = pass_all(socket, own, links);
    for _ in 1..LOOKS {
        match &passed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
        passed = pass_all(socket, own, links);
    }
    passed
}

fn pass_all(socket: &mut NftSocket, own: &str, links: &BTreeSet<Links>) -> io::Result<()> {
    for chain in socket.chains()? {
        // Another engine of our kind decides about its own bridges alone, and never drops by default.
        if chain.hook == Some(FORWARD) && chain.table != own {
            pass_one(socket, own, &chain, links)?;
        }
    }
    Ok(())
}

fn pass_one(
    socket: &mut NftSocket,
    mark: &str,
    chain: &ChainFacts,
    links: &BTreeSet<Links>,
) -> io::Result<()> {
    let Some(family) = family(chain.family) else {
        return Ok(());
    };
    let wanted: Vec<(String, &Links)> = links
        .iter()
        .filter(|_| chain.drop)
        .map(|links| (links.comment(mark), links))
        .collect();
    let mut batch = Batch::new(family, &chain.table);
    let mut present = Vec::new();
    for rule in socket.rules(family, &chain.table, &chain.name)? {
        let Some(comment) = rule.comment.filter(|c| c.split(' ').next() == Some(mark)) else {
            continue;
        };
        if wanted.iter().any(|(text, _)| *text == comment) {
            present.push(comment);
        } else {
            batch.delete_rule(&chain.name, rule.handle);
        }
    }
    for (comment, links) in &wanted {
        if present.iter().filter(|c| *c == comment).count() >= 2 {
            continue;
        }
        for side in [
            Expr::input_link(Register::R0),
            Expr::output_link(Register::R0),
        ] {
            let expressions = vec![
                side,
                Expr::equal(Register::R0, &links.bytes()),
                Expr::verdict(Verdict::Accept),
            ];
            batch.insert_rule(&chain.name, expressions, comment);
        }
    }
    socket.commit(batch)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use gantry_sys::netns;
    use gantry_sys::nft::{BaseChain, Hook};

    use super::*;

    /// A table of another program that decides about forwarding.
    fn filter() -> Batch {
        let mut batch = Batch::new(Family::Ipv4, "filter");
        batch.add_table();
        batch.add_chain(&BaseChain {
            name: "FORWARD",
            kind: "filter",
            hook: Hook::Forward,
            priority: 0,
            drop: true,
        });
        batch
    }

    #[test]
    fn chains_that_go_meanwhile_are_nobodys_concern() {
        netns::create(|| {
            let here = netns::current()?;
            let done = AtomicBool::new(false);
            let links = [Links::Named("br0".into())].into();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    netns::inside(&here, || {
                        let mut socket = NftSocket::open()?;
                        while !done.load(Ordering::Relaxed) {
                            socket.commit(filter())?;
                            let mut end = Batch::new(Family::Ipv4, "filter");
                            end.remove_table();
                            socket.commit(end)?;
                        }
                        Ok(())
                    })
                    .unwrap();
                });
                let mut socket = NftSocket::open()?;
                let passed = (0..500).try_for_each(|_| pass(&mut socket, "gantry-test", &links));
                done.store(true, Ordering::Relaxed);
                passed
            })
        })
        .unwrap();
    }
}
