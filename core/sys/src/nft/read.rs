//! What is read back from the kernel.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetElementList, SetElementMessage,
};

use crate::netlink::attribute::{attributes, nested};

use super::batch::header;
use super::{Family, NftSocket};

/// A chain of any table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainFacts {
    /// The kernel's number of the table's family.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The kernel's number of its hook; none for a chain that is only jumped to.
    pub hook: Option<u32>,
    /// Whether packets that no rule decides about are dropped.
    pub drop: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleFacts {
    /// Its handle.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
}

/// The user data that nft(8) shows as a comment: a type, a length, the text with its terminator.
pub(super) fn comment_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(127)];
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend_from_slice(text);
    data.push(0);
    data
}

fn comment_of(data: &[u8]) -> Option<String> {
    let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
    let text = data.get(2..2 + length)?.strip_suffix(&[0])?;
    (kind == 0).then(|| String::from_utf8_lossy(text).into_owned())
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn chain_facts(family: u8, bytes: &[u8]) -> ChainFacts {
    let mut chain = ChainFacts {
        family,
        ..ChainFacts::default()
    };
    for (kind, value) in attributes(bytes) {
        match kind {
            1 => chain.table = text(value),
            3 => chain.name = text(value),
            4 => chain.hook = nested(value, 1).and_then(number),
            5 => chain.drop = number(value) == Some(0),
            _ => {}
        }
    }
    chain
}

impl NftSocket {
    fn dump(
        &mut self,
        family: u8,
        request: NfTablesMessage,
        each: &mut dyn FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        const HEADER: usize = 4;
        let mut message = NetlinkMessage::from(NetfilterMessage::new(header(family), request));
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        self.channel.query(message, &mut |_, payload| {
            if let Some((head, rest)) = payload.split_at_checked(HEADER) {
                each(head[0], rest);
            }
        })
    }

    /// Every chain of the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn chains(&mut self) -> io::Result<Vec<ChainFacts>> {
        let mut chains = Vec::new();
        let request = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        self.dump(0, request, &mut |family, bytes| {
            chains.push(chain_facts(family, bytes));
        })?;
        Ok(chains)
    }

    /// The rules of a chain.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when there is no such chain (older kernels answer with none).
    pub fn rules(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
    ) -> io::Result<Vec<RuleFacts>> {
        let mut rules = Vec::new();
        let request = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.to_owned()),
                RuleAttribute::Chain(chain.to_owned()),
            ],
        });
        self.dump(family as u8, request, &mut |_, bytes| {
            let mut rule = RuleFacts::default();
            for (kind, value) in attributes(bytes) {
                match kind {
                    3 => {
                        rule.handle = value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
                    }
                    7 => rule.comment = comment_of(value),
                    _ => {}
                }
            }
            rules.push(rule);
        })?;
        Ok(rules)
    }

    /// Keys and values of a set or map (values are empty for a set).
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when there is no such set.
    pub fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut elements = Vec::new();
        let request = NfTablesMessage::GetSetElement(SetElementMessage {
            attributes: vec![
                SetElementList::Table(table.to_owned()),
                SetElementList::Set(set.to_owned()),
            ],
        });
        self.dump(family as u8, request, &mut |_, bytes| {
            for (_, element) in attributes(nested(bytes, 3).unwrap_or_default()) {
                let part = |kind| {
                    let data = nested(element, kind).unwrap_or_default();
                    nested(data, 1).unwrap_or_default().to_vec()
                };
                elements.push((part(1), part(2)));
            }
        })?;
        Ok(elements)
    }
}
