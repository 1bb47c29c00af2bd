//! DNS messages (RFC 1035) as far as they are read and written here: one question in, addresses and names out. Done by
//! hand, because it is done for every query.

use std::net::IpAddr;

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;
const ANY_CLASS: u16 = 255;

const HEADER: usize = 12;
/// Bit of the first byte of the flags: it is an answer.
const RESPONSE: u8 = 0x80;
/// The question's kind, `Query` being 0.
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
/// Bit of the second byte.
const RECURSION_AVAILABLE: u8 = 0x80;
/// A pointer to the question's name, which is always at the same place.
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// What an answer says about how long a query over UDP may be.
const PAYLOAD: u16 = 4096;
/// A record without its data, of a name that the question has.
const RECORD: usize = 12;
/// The longest answer over UDP to who did not say how long one may be.
const PLAIN_UDP: usize = 512;

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Fine = 0,
    Malformed = 1,
    Failed = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// What a server says that does not understand or will not answer.
const NO_ANSWER: [u8; 4] = [
    Code::Malformed as u8,
    Code::Failed as u8,
    Code::NotImplemented as u8,
    Code::Refused as u8,
];

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    bytes: &'a [u8],
    /// The name in lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    class: u16,
    /// Where the question ends.
    end: usize,
    /// The longest answer over UDP that the asker takes, if it speaks EDNS.
    payload: Option<u16>,
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Query(Query<'a>),
    /// This is to be answered.
    Bad(Vec<u8>),
    /// No question.
    Nothing,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// The name at a place, and where it ends. Pointers are for answers.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    const LONGEST_LABEL: u8 = 63;
    const LONGEST_NAME: usize = 255;
    let mut name = Vec::with_capacity(64);
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        if length == 0 {
            break;
        }
        let label = bytes.get(at..at + usize::from(length))?;
        at += label.len();
        if length > LONGEST_LABEL || name.len() + label.len() > LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    let name = String::from_utf8(name).unwrap_or_else(|e| {
        // Nobody here is called so; it is asked for elsewhere as it came.
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    });
    Some((name, at))
}

/// Reads a message.
pub(crate) fn read(bytes: &[u8]) -> Message<'_> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Message::Nothing;
    };
    if header[2] & RESPONSE != 0 {
        return Message::Nothing;
    }
    let one_question = word(bytes, 4) == Some(1);
    if header[2] & OPCODE != 0 || !one_question {
        return Message::Bad(bare(bytes, Code::NotImplemented));
    }
    match question(bytes) {
        Some(query) => Message::Query(query),
        None => Message::Bad(bare(bytes, Code::Malformed)),
    }
}

fn question(bytes: &[u8]) -> Option<Query<'_>> {
    let (name, at) = name(bytes, HEADER)?;
    let (kind, class) = (word(bytes, at)?, word(bytes, at + 2)?);
    let end = at + 4;
    let others = [6, 8].map(|count| word(bytes, count));
    let edns = others == [Some(0); 2]
        && word(bytes, 10)? > 0
        && bytes.get(end) == Some(&0)
        && word(bytes, end + 1) == Some(OPT);
    let payload = if edns { word(bytes, end + 3) } else { None };
    Some(Query {
        bytes,
        name,
        kind,
        class,
        end,
        payload,
    })
}

/// An answer of a header alone.
fn bare(query: &[u8], code: Code) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    head(&mut reply, query, code);
    reply
}

fn head(reply: &mut [u8], query: &[u8], code: Code) {
    reply[..2].copy_from_slice(&query[..2]);
    reply[2] = RESPONSE | query[2] & (OPCODE | RECURSION_DESIRED);
    reply[3] = RECURSION_AVAILABLE | code as u8;
}

/// The code of an answer.
pub(crate) fn code(answer: &[u8]) -> Option<u8> {
    answer.get(3).map(|flags| flags & 0x0f)
}

/// Whether a message is an answer to this question, asked under this identifier.
pub(crate) fn answers(message: &[u8], asked: &[u8]) -> bool {
    let (Message::Query(question), Some(head)) = (read(asked), message.first_chunk::<HEADER>())
    else {
        return false;
    };
    let is_reply =
        head[..2] == asked[..2] && head[2] & RESPONSE != 0 && head[2] & OPCODE == asked[2] & OPCODE;
    if !is_reply {
        return false;
    }
    match word(message, 4) {
        // Servers that do not understand a question need not repeat it.
        Some(0) => code(message).is_some_and(|code| NO_ANSWER.contains(&code)),
        Some(1) => message
            .get(HEADER..question.end)
            .is_some_and(|repeated| same_question(repeated, &asked[HEADER..question.end])),
        _ => false,
    }
}

/// Whether two questions of the same length are the same. Servers may change the case of names.
fn same_question(one: &[u8], other: &[u8]) -> bool {
    const KIND_AND_CLASS: usize = 4;
    let at = one.len() - KIND_AND_CLASS;
    // The lengths of labels are no letters.
    one[..at].eq_ignore_ascii_case(&other[..at]) && one[at..] == other[at..]
}

impl Query<'_> {
    /// The same question under another identifier.
    pub(crate) fn under(&self, id: [u8; 2]) -> Vec<u8> {
        let mut asked = self.bytes.to_vec();
        asked[..2].copy_from_slice(&id);
        asked
    }

    /// A reply to the question under another identifier, as a reply to this one.
    pub(crate) fn told(&self, mut reply: Vec<u8>) -> Vec<u8> {
        reply[..2].copy_from_slice(&self.bytes[..2]);
        if word(&reply, 4) == Some(1) {
            reply[HEADER..self.end].copy_from_slice(&self.bytes[HEADER..self.end]);
        }
        reply
    }

    /// Whether it is about the internet's names; hardly any other is.
    pub(crate) fn is_internet(&self) -> bool {
        matches!(self.class, INTERNET | ANY_CLASS)
    }

    /// The address whose name is asked for.
    pub(crate) fn reversed(&self) -> Option<IpAddr> {
        if let Some(v4) = self.name.strip_suffix(".in-addr.arpa") {
            let mut parts = v4.split('.').map(str::parse::<u8>);
            let mut part = || parts.next()?.ok();
            let [d, c, b, a] = [part()?, part()?, part()?, part()?];
            return parts.next().is_none().then_some([a, b, c, d].into());
        }
        let v6 = self.name.strip_suffix(".ip6.arpa")?;
        let mut address: u128 = 0;
        let mut digits = 0;
        for digit in v6.rsplit('.') {
            let value = (digit.len() == 1).then(|| u128::from_str_radix(digit, 16).ok());
            address = address << 4 | value??;
            digits += 1;
        }
        (digits == 32).then(|| std::net::Ipv6Addr::from(address).into())
    }

    /// An answer without records.
    pub(crate) fn answer(&self, code: Code) -> Vec<u8> {
        self.with(code, 0, |_| {})
    }

    fn with(&self, code: Code, records: u16, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut reply = Vec::with_capacity(self.end + 64);
        reply.extend_from_slice(&self.bytes[..self.end]);
        head(&mut reply, self.bytes, code);
        reply[4..HEADER].fill(0);
        reply[5] = 1;
        reply[6..8].copy_from_slice(&records.to_be_bytes());
        write(&mut reply);
        if self.payload.is_some() {
            reply[11] = 1;
            reply.push(0);
            reply.extend(OPT.to_be_bytes());
            reply.extend(PAYLOAD.to_be_bytes());
            reply.extend([0; 6]);
        }
        reply
    }

    /// An answer of addresses of one family. Over UDP, one that is too long has those that fit and says that there are more:
    /// the asker comes again over TCP, or makes do.
    pub(crate) fn addresses(&self, found: &[IpAddr], ttl: u32, over_udp: bool) -> Vec<u8> {
        let room = self.longest(over_udp) - self.answer(Code::Fine).len();
        let length = found
            .first()
            .map_or(0, |ip| if ip.is_ipv4() { 4 } else { 16 });
        let fit = found.len().min(room / (RECORD + length));
        let mut reply = self.with(Code::Fine, fit as u16, |reply| {
            for ip in &found[..fit] {
                match ip {
                    IpAddr::V4(ip) => record(reply, A, ttl, &ip.octets()),
                    IpAddr::V6(ip) => record(reply, AAAA, ttl, &ip.octets()),
                }
            }
        });
        if fit < found.len() {
            reply[2] |= TRUNCATED;
        }
        reply
    }

    /// An answer of a name; none when it is no name for DNS.
    pub(crate) fn host(&self, host: &str, ttl: u32, over_udp: bool) -> Option<Vec<u8>> {
        let mut data = Vec::with_capacity(host.len() + 2);
        for label in host.split('.') {
            data.push(
                u8::try_from(label.len())
                    .ok()
                    .filter(|n| (1..64).contains(n))?,
            );
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        let reply = self.with(Code::Fine, 1, |reply| record(reply, PTR, ttl, &data));
        Some(self.fitting(reply, over_udp))
    }

    fn fitting(&self, reply: Vec<u8>, over_udp: bool) -> Vec<u8> {
        if reply.len() <= self.longest(over_udp) {
            return reply;
        }
        let mut short = self.answer(Code::Fine);
        short[2] |= TRUNCATED;
        short
    }

    /// How long an answer may be.
    fn longest(&self, over_udp: bool) -> usize {
        match (over_udp, self.payload) {
            (false, _) => usize::from(u16::MAX),
            (true, payload) => payload.map_or(0, usize::from).max(PLAIN_UDP),
        }
    }
}

fn record(reply: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    reply.extend(SAME_NAME);
    reply.extend(kind.to_be_bytes());
    reply.extend(INTERNET.to_be_bytes());
    reply.extend(ttl.to_be_bytes());
    reply.extend((data.len() as u16).to_be_bytes());
    reply.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message as Whole, OpCode, Query as Question, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn whole(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
        let mut message = Whole::query();
        message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
        message.metadata.recursion_desired = true;
        message.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        message.to_vec().unwrap()
    }

    fn query(bytes: &[u8]) -> Query<'_> {
        match read(bytes) {
            Message::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_are_read_and_answers_are_what_others_read() {
        let bytes = whole("Web.App.", RecordType::A, None);
        let asked = query(&bytes);
        assert_eq!((asked.name.as_str(), asked.kind), ("web.app", A));
        let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let answer = Whole::from_vec(&asked.addresses(&ips, 600, true)).unwrap();
        assert_eq!(answer.queries[0].name().to_ascii(), "Web.App.");
        let found: Vec<_> = answer
            .answers
            .iter()
            .filter_map(|r| r.data.ip_addr())
            .collect();
        assert_eq!((found, answer.answers[0].ttl), (ips, 600));
        assert_eq!(answer.answers[0].name.to_ascii(), "Web.App.");
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert!(answer.edns.is_none());
        let bytes = whole("1.0.0.10.in-addr.arpa.", RecordType::PTR, Some(1232));
        let asked = query(&bytes);
        assert_eq!(asked.reversed(), Some("10.0.0.1".parse().unwrap()));
        let answer = Whole::from_vec(&asked.host("db.net", 600, true).unwrap()).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "db.net.");
        assert!(answer.edns.is_some());
        assert_eq!(asked.host("a..b", 600, true), None);
    }

    #[test]
    fn reversed_names() {
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
        let bytes = whole(v6, RecordType::PTR, None);
        assert_eq!(
            query(&bytes).reversed(),
            Some("2001:db8::1".parse().unwrap())
        );
        for none in [
            "1.0.0.in-addr.arpa.",
            "x.0.0.10.in-addr.arpa.",
            "1.ip6.arpa.",
            "arpa.",
        ] {
            let bytes = whole(none, RecordType::PTR, None);
            assert_eq!(query(&bytes).reversed(), None, "{none}");
        }
    }

    #[test]
    fn what_is_too_long_for_udp_is_cut() {
        let ips: Vec<IpAddr> = (0..100).map(|n| [10, 0, 0, n].into()).collect();
        for (payload, over_udp, whole_answer) in [
            (None, true, false),
            (None, false, true),
            (Some(4096), true, true),
            (Some(600), true, false),
        ] {
            let bytes = whole("web.", RecordType::A, payload);
            let reply = query(&bytes).addresses(&ips, 600, over_udp);
            let answer = Whole::from_vec(&reply).unwrap();
            assert_eq!(answer.metadata.truncation, !whole_answer);
            let longest = usize::from(payload.unwrap_or(512));
            let fit = (longest - query(&bytes).answer(Code::Fine).len()) / 16;
            assert_eq!(answer.answers.len(), if whole_answer { 100 } else { fit });
            assert!(!over_udp || reply.len() <= longest);
        }
    }

    #[test]
    fn an_answer_is_to_the_question_that_was_asked() {
        let bytes = whole("Web.Example.", RecordType::A, Some(1232));
        let asked = query(&bytes).under([0xab, 0xcd]);
        let mut good = whole("wEB.example.", RecordType::A, None);
        good[..2].copy_from_slice(&[0xab, 0xcd]);
        good[2] |= RESPONSE;
        assert!(answers(&good, &asked));
        let told = query(&bytes).told(good.clone());
        assert_eq!(told[..2], bytes[..2]);
        assert_eq!(told[HEADER..], bytes[HEADER..told.len()], "as it was asked");
        let changed = |at: usize, to: u8| {
            let mut reply = good.clone();
            reply[at] = to;
            answers(&reply, &asked)
        };
        let end = good.len();
        for (at, to, what) in [
            (0, 0xac, "identifier"),
            (2, 1, "no answer"),
            (2, 0x81 | 5 << 3, "operation"),
            (5, 0, "no question, no failure"),
            (5, 2, "questions"),
            (HEADER + 1, b'v', "name"),
            (HEADER, 4, "label"),
            (end - 3, 28, "kind"),
            (end - 3, b'a' - b'A' + 1, "kind"),
            (end - 1, 3, "class"),
        ] {
            assert!(!changed(at, to), "another {what}");
        }
        assert!(!answers(&good[..end - 1], &asked));
        let mut refused = good[..HEADER].to_vec();
        (refused[3], refused[5]) = (Code::Refused as u8, 0);
        assert!(answers(&refused, &asked));
        assert_eq!(query(&bytes).told(refused).len(), HEADER);
        assert!(!answers(&[], &asked));
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let mut bytes = whole("web.", RecordType::A, None);
        bytes[2] |= RESPONSE;
        assert_eq!(read(&bytes), Message::Nothing);
        assert_eq!(read(&bytes[..11]), Message::Nothing);
        let code_of = |bytes: &[u8]| match read(bytes) {
            Message::Bad(reply) => Whole::from_vec(&reply).unwrap().metadata.response_code,
            other => panic!("{other:?}"),
        };
        let mut update = whole("web.", RecordType::A, None);
        update[2] = u8::from(OpCode::Update) << 3;
        assert_eq!(code_of(&update), ResponseCode::NotImp);
        let cut = whole("web.", RecordType::A, None);
        assert_eq!(code_of(&cut[..cut.len() - 1]), ResponseCode::FormErr);
        let mut pointer = whole("web.", RecordType::A, None);
        pointer[HEADER] = 0xc0;
        assert_eq!(code_of(&pointer), ResponseCode::FormErr);
    }
}
