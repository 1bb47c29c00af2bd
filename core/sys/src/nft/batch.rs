//! What a batch is made of.

use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, DevHookNumber, Hook as HookAttribute, HookNumber,
    InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetDescription, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::Expr;

/// `NFT_SET_CONCAT`.
const CONCATENATION: u32 = 0x80;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// An address family of tables; the value is the kernel's `NFPROTO_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ipv4 = 2,
    /// IPv6.
    Ipv6 = 10,
    /// Frames that pass a bridge.
    Bridge = 7,
    /// Frames of one link.
    Netdev = 5,
}

/// Where a base chain is called from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook<'a> {
    /// What the link of this name has received, before anything else sees it. In [`Family::Netdev`] only.
    Ingress(&'a str),
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// A chain that a hook calls.
#[derive(Debug, Clone, Copy)]
pub struct BaseChain<'a> {
    /// Name.
    pub name: &'a str,
    /// `filter` or `nat`.
    pub kind: &'a str,
    /// Its hook.
    pub hook: Hook<'a>,
    /// Chains of lower priority run first.
    pub priority: i32,
    /// Whether packets that no rule decides about are dropped.
    pub drop: bool,
}

/// A component of keys and values: nft's type number, and its length in bytes.
pub type Kind = (u32, u32);

/// The first and the last of a range of keys.
pub type Range = (Vec<u8>, Vec<u8>);

/// The components that are used. Each takes a multiple of four bytes in a key or value, padded with zeros at its end.
pub mod kind {
    use super::Kind;
    /// [`super::Family`], as [`super::super::Expr::network_protocol`] loads it.
    pub const FAMILY: Kind = (2, 1);
    /// IPv4 address.
    pub const IPV4: Kind = (7, 4);
    /// IPv6 address.
    pub const IPV6: Kind = (8, 16);
    /// Transport protocol number.
    pub const PROTOCOL: Kind = (12, 1);
    /// Port, big-endian.
    pub const PORT: Kind = (13, 2);
    /// Link name.
    pub const LINK: Kind = (41, 16);
}

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holds {
    /// Keys.
    #[default]
    Keys,
    /// Ranges of keys, component by component; they must not overlap. To take one out, the kernel looks at every other.
    Ranges,
    /// Ranges of keys of one component, as big-endian numbers; they must not overlap. Each change costs the same whatever
    /// others there are.
    Spans,
    /// Keys that go away after a time of their own.
    Expiring,
}

/// A set, or with values a map.
#[derive(Debug, Clone, Copy)]
pub struct SetSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// Components of the key.
    pub key: &'a [Kind],
    /// Components of the value.
    pub value: Option<&'a [Kind]>,
    /// What it holds.
    pub holds: Holds,
}

/// Changes to one table, committed as one.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) messages: Vec<NetlinkMessage<NetfilterMessage>>,
    sets: u32,
}

/// Bytes and nft's type number of a concatenation.
fn concatenation(kinds: &[Kind]) -> (u32, u32) {
    kinds
        .iter()
        .fold((0, 0), |(number, length), (kind, bytes)| {
            (number << 6 | kind, length + bytes.next_multiple_of(4))
        })
}

pub(super) fn header(family: u8) -> NetfilterHeader {
    NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, 0)
}

impl Batch {
    /// An empty batch for a table that need not exist yet.
    #[must_use]
    pub fn new(family: Family, table: &str) -> Self {
        Self {
            family,
            table: table.to_owned(),
            messages: Vec::new(),
            sets: 0,
        }
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds the changes of another batch for the same table.
    pub fn append(&mut self, other: Self) {
        self.messages.extend(other.messages);
        self.sets = self.sets.max(other.sets);
    }

    fn push(&mut self, message: NfTablesMessage, flags: u16) {
        let mut message =
            NetlinkMessage::from(NetfilterMessage::new(header(self.family as u8), message));
        message.header.flags = NLM_F_REQUEST | flags;
        self.messages.push(message);
    }

    fn table_message(&self) -> TableMessage {
        TableMessage {
            attributes: vec![TableAttribute::Name(self.table.clone())],
        }
    }

    /// Makes the table, or finds it.
    pub fn add_table(&mut self) {
        self.push(
            NfTablesMessage::NewTable(self.table_message()),
            NLM_F_CREATE,
        );
    }

    /// Removes the table with all that is in it, if it is there.
    pub fn remove_table(&mut self) {
        // Kernels before 6.3 have no "destroy"; removing what was just found or made comes to the same.
        self.add_table();
        self.push(NfTablesMessage::DeleteTable(self.table_message()), 0);
    }

    /// Makes a base chain, or finds it.
    pub fn add_chain(&mut self, chain: &BaseChain<'_>) {
        let hook: HookNumber = match chain.hook {
            Hook::Ingress(_) => DevHookNumber::Ingress.into(),
            Hook::Prerouting => InetHookNumber::PreRouting.into(),
            Hook::Input => InetHookNumber::LocalIn.into(),
            Hook::Forward => InetHookNumber::Forward.into(),
            Hook::Output => InetHookNumber::LocalOut.into(),
            Hook::Postrouting => InetHookNumber::PostRouting.into(),
        };
        let mut called = vec![
            HookAttribute::Number(hook),
            HookAttribute::Priority(chain.priority as u32),
        ];
        if let Hook::Ingress(link) = chain.hook {
            called.push(HookAttribute::NetDeviceName(link.to_owned()));
        }
        let attributes = vec![
            ChainAttribute::Table(self.table.clone()),
            ChainAttribute::Name(chain.name.into()),
            ChainAttribute::Hook(called),
            ChainAttribute::Policy(u32::from(!chain.drop)),
            ChainAttribute::Type(chain.kind.into()),
        ];
        self.push(
            NfTablesMessage::NewChain(ChainMessage { attributes }),
            NLM_F_CREATE,
        );
    }

    /// Removes every rule of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        let attributes = vec![
            RuleAttribute::Table(self.table.clone()),
            RuleAttribute::Chain(chain.into()),
        ];
        self.push(NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, chain: &str, expressions: Vec<Expr>, comment: &str) {
        self.rule(chain, expressions, comment, NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Puts a rule first.
    pub fn insert_rule(&mut self, chain: &str, expressions: Vec<Expr>, comment: &str) {
        self.rule(chain, expressions, comment, NLM_F_CREATE);
    }

    fn rule(&mut self, chain: &str, expressions: Vec<Expr>, comment: &str, flags: u16) {
        let mut attributes = vec![
            RuleAttribute::Table(self.table.clone()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions.into_iter().map(|e| e.0.into()).collect()),
        ];
        if !comment.is_empty() {
            attributes.push(RuleAttribute::UserData(super::read::comment_data(comment)));
        }
        self.push(NfTablesMessage::NewRule(RuleMessage { attributes }), flags);
    }

    /// Removes one rule.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        let attributes = vec![
            RuleAttribute::Table(self.table.clone()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Handle(handle),
        ];
        self.push(NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    }

    /// Makes a set or map, or finds it.
    pub fn add_set(&mut self, set: &SetSpec<'_>) {
        self.sets += 1;
        let (key_type, key_length) = concatenation(set.key);
        let mut flags = SetFlags::empty();
        let mut attributes = vec![
            SetAttribute::Table(self.table.clone()),
            SetAttribute::Name(set.name.into()),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_length),
            SetAttribute::Id(self.sets),
        ];
        if let Some(value) = set.value {
            flags |= SetFlags::Map;
            let (value_type, value_length) = concatenation(value);
            attributes.push(SetAttribute::DataType(value_type));
            attributes.push(SetAttribute::DataLen(value_length));
        }
        match set.holds {
            Holds::Keys => {}
            Holds::Ranges => {
                flags |= SetFlags::Interval | SetFlags::from_bits_retain(CONCATENATION);
                let lengths = set.key.iter().map(|(_, length)| {
                    let length = DefaultNla::new(1, length.to_be_bytes().to_vec());
                    DefaultNla::new(1 | NESTED, attribute_bytes(&length))
                });
                let concatenation = SetDescription::Concat(lengths.collect());
                attributes.push(SetAttribute::Description(vec![concatenation]));
            }
            Holds::Spans => flags |= SetFlags::Interval,
            Holds::Expiring => flags |= SetFlags::Timeout,
        }
        attributes.push(SetAttribute::Flags(flags));
        if set.key == [kind::LINK] {
            // Tells nft(8) that names are not numbers: type (byte order of keys), length, host order.
            let mut order = vec![0, 4];
            order.extend(1_u32.to_ne_bytes());
            attributes.push(SetAttribute::UserData(order));
        }
        self.push(
            NfTablesMessage::NewSet(SetMessage { attributes }),
            NLM_F_CREATE,
        );
    }

    /// Puts keys (with values, for a map) into a set. A key that is there with the same value is no error.
    pub fn add_elements(&mut self, set: &str, elements: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        let item = |(key, value)| Item {
            value,
            ..Item::key(key)
        };
        self.add(set, elements.into_iter().map(item).collect());
    }

    /// Puts ranges (first and last) into a set that holds such.
    pub fn add_ranges(&mut self, set: &str, ranges: Vec<Range>) {
        self.add(set, ranges.into_iter().map(Item::range).collect());
    }

    /// Puts ranges with their values into a map that holds such.
    pub fn map_ranges(&mut self, map: &str, ranges: Vec<(Range, Vec<u8>)>) {
        let item = |(range, value)| Item {
            value: Some(value),
            ..Item::range(range)
        };
        self.add(map, ranges.into_iter().map(item).collect());
    }

    /// Puts spans (with values, for a map) into a set that holds such.
    pub fn add_spans(&mut self, set: &str, spans: Vec<(Range, Option<Vec<u8>>)>) {
        let items = spans
            .into_iter()
            .flat_map(|(span, value)| Item::span(span, value));
        self.add(set, items.collect());
    }

    /// Puts keys into a set, each for a time; the time of one that is there begins anew.
    pub fn add_expiring(&mut self, set: &str, keys: Vec<(Vec<u8>, Duration)>) {
        // The kernel before 6.12 does not change the time of a key that is there.
        self.remove_elements(set, keys.iter().map(|(key, _)| key.clone()).collect());
        let item = |(key, time)| Item {
            time: Some(time),
            ..Item::key(key)
        };
        self.add(set, keys.into_iter().map(item).collect());
    }

    fn add(&mut self, set: &str, items: Vec<Item>) {
        for message in self.element_messages(set, &items) {
            self.push(NfTablesMessage::NewSetElement(message), NLM_F_CREATE);
        }
    }

    fn delete(&mut self, set: &str, items: Vec<Item>) {
        for message in self.element_messages(set, &items) {
            self.push(NfTablesMessage::DeleteSetElement(message), 0);
        }
    }

    /// Takes keys out of a set; one that is not there fails the batch with `ENOENT`.
    pub fn delete_elements(&mut self, set: &str, keys: Vec<Vec<u8>>) {
        self.delete(set, keys.into_iter().map(Item::key).collect());
    }

    /// Takes keys out of a set without values, whether they are there or not.
    pub fn remove_elements(&mut self, set: &str, keys: Vec<Vec<u8>>) {
        self.add_elements(set, keys.iter().map(|key| (key.clone(), None)).collect());
        self.delete_elements(set, keys);
    }

    /// Takes ranges out of a set; one that is not there fails the batch with `ENOENT`.
    pub fn delete_ranges(&mut self, set: &str, ranges: Vec<(Vec<u8>, Vec<u8>)>) {
        self.delete(set, ranges.into_iter().map(Item::range).collect());
    }

    /// Takes spans out of a set; one that is not there fails the batch with `ENOENT`.
    pub fn delete_spans(&mut self, set: &str, spans: Vec<Range>) {
        let items = spans.into_iter().flat_map(|span| Item::span(span, None));
        self.delete(set, items.collect());
    }

    /// Takes every key out of a set.
    pub fn flush_set(&mut self, set: &str) {
        let attributes = vec![
            SetElementList::Table(self.table.clone()),
            SetElementList::Set(set.into()),
        ];
        self.push(
            NfTablesMessage::DeleteSetElement(SetElementMessage { attributes }),
            0,
        );
    }

    /// A list of elements is an attribute, and an attribute holds less than 64 KB.
    fn element_messages(&self, set: &str, items: &[Item]) -> Vec<SetElementMessage> {
        const AT_ONCE: usize = 400;
        items
            .chunks(AT_ONCE)
            .map(|chunk| SetElementMessage {
                attributes: vec![
                    SetElementList::Table(self.table.clone()),
                    SetElementList::Set(set.into()),
                    SetElementList::Elements(chunk.iter().map(element).collect()),
                ],
            })
            .collect()
    }
}

/// An element of a set.
struct Item {
    key: Vec<u8>,
    /// The last key of a range.
    end: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: Option<Duration>,
    /// The key is the first beyond a span.
    beyond: bool,
}

impl Item {
    fn key(key: Vec<u8>) -> Self {
        Self {
            key,
            end: None,
            value: None,
            time: None,
            beyond: false,
        }
    }

    /// A span is its first key and the first beyond it, where there is one.
    fn span((first, last): Range, value: Option<Vec<u8>>) -> impl Iterator<Item = Self> {
        let beyond = after(last).map(|key| Self {
            beyond: true,
            ..Self::key(key)
        });
        let first = Self {
            value,
            ..Self::key(first)
        };
        std::iter::once(first).chain(beyond)
    }

    fn range((first, last): Range) -> Self {
        Self {
            end: Some(last),
            ..Self::key(first)
        }
    }
}

/// The next big-endian number of as many bytes; none after the last.
fn after(mut number: Vec<u8>) -> Option<Vec<u8>> {
    let digit = number.iter().rposition(|byte| *byte != u8::MAX)?;
    number[digit] += 1;
    number[digit + 1..].fill(0);
    Some(number)
}

fn element(item: &Item) -> ListAttribute<SetElementAttribute> {
    let data = |bytes: &Vec<u8>| DataAttribute::Value(bytes.clone());
    let mut attributes = vec![SetElementAttribute::Key(data(&item.key))];
    if let Some(end) = &item.end {
        let end = DefaultNla::new(1, end.clone());
        attributes.push(SetElementAttribute::KeyEnd(vec![end]));
    }
    if let Some(value) = &item.value {
        attributes.push(SetElementAttribute::Data(data(value)));
    }
    if item.beyond {
        attributes.push(SetElementAttribute::Flags(SetElementFlags::IntervalEnd));
    }
    if let Some(time) = item.time {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        attributes.push(SetElementAttribute::Timeout(milliseconds));
    }
    ListAttribute::Element(attributes)
}

/// An attribute as it is written inside another.
fn attribute_bytes(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}
