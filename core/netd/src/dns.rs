//! Answers to DNS queries (RFC 1035), from the names or from upstream.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::names::{Found, Names};

/// Seconds that a name of a container may be remembered, as Docker's.
const TTL: u32 = 600;
/// How long one upstream server is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer over UDP to who did not say how long one may be.
const PLAIN_UDP: usize = 512;
const LONGEST: usize = 65535;
const PORT: u16 = 53;

/// What is to be done about a query.
pub(crate) enum Answer {
    /// Send this.
    Ready(Vec<u8>),
    /// Ask these servers, in order. With `admit`, what they answer is reachable from now on.
    Forward { upstreams: Vec<IpAddr>, admit: bool },
    /// It is not a query.
    Nothing,
}

fn refuse(query: &Message, code: ResponseCode) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.response_code = code;
    reply
}

fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&query.queries);
    reply
}

fn encode(reply: &Message, longest: usize) -> Answer {
    match reply.to_vec() {
        Ok(bytes) if bytes.len() <= longest => Answer::Ready(bytes),
        Ok(_) => reply
            .truncate()
            .to_vec()
            .map_or(Answer::Nothing, Answer::Ready),
        Err(_) => Answer::Nothing,
    }
}

fn addresses(name: &Name, found: &[IpAddr]) -> Vec<Record> {
    let data = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => RData::A(A(*ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
    };
    found
        .iter()
        .map(|ip| Record::from_rdata(name.clone(), TTL, data(ip)))
        .collect()
}

/// Answers a query of a sandbox. `over_udp` limits the answer's length.
pub(crate) fn answer(names: &mut Names, asker: &str, query: &[u8], over_udp: bool) -> Answer {
    let Ok(query) = Message::from_vec(query) else {
        return Answer::Nothing;
    };
    if query.metadata.message_type != MessageType::Query {
        return Answer::Nothing;
    }
    let longest = match (over_udp, &query.edns) {
        (false, _) => LONGEST,
        (true, Some(edns)) => usize::from(edns.max_payload()).max(PLAIN_UDP),
        (true, None) => PLAIN_UDP,
    };
    let question = match query.queries.as_slice() {
        [question] if query.metadata.op_code == OpCode::Query => question,
        _ => return encode(&refuse(&query, ResponseCode::NotImp), longest),
    };
    let name = question.name();
    let kind = question.query_type();
    let records = match kind {
        RecordType::A | RecordType::AAAA => {
            let text = name.to_lowercase().to_utf8();
            match names.resolve(asker, text.trim_end_matches('.'), kind == RecordType::AAAA) {
                Found::Addresses(found) => Some(addresses(name, &found)),
                Found::Unknown => None,
            }
        }
        RecordType::PTR => name
            .parse_arpa_name()
            .ok()
            .and_then(|net| names.reverse(asker, net.addr()))
            .and_then(|host| Name::from_utf8(host + ".").ok())
            .map(|host| vec![Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(host)))]),
        _ => None,
    };
    match records {
        Some(records) => {
            let mut reply = reply_to(&query);
            reply.answers = records;
            encode(&reply, longest)
        }
        None => {
            let upstreams = names.upstreams(asker);
            let text = name.to_lowercase().to_utf8();
            let egress = names.egress(asker);
            let admit = egress.is_some_and(|e| e.lists(text.trim_end_matches('.')));
            let hidden = egress.is_some_and(|e| !e.networks) && !admit;
            if upstreams.is_empty() || hidden {
                return encode(&refuse(&query, ResponseCode::NXDomain), longest);
            }
            Answer::Forward { upstreams, admit }
        }
    }
}

/// Asks upstream servers in order until one answers; if none does, the answer says that it failed.
pub(crate) async fn forward(upstreams: &[IpAddr], query: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    for server in upstreams {
        let server = SocketAddr::new(*server, PORT);
        let asked = async {
            if over_udp {
                ask_udp(server, query).await
            } else {
                ask_tcp(server, query).await
            }
        };
        if let Ok(Ok(reply)) = timeout(PATIENCE, asked).await {
            return Some(reply);
        }
    }
    failure(query)
}

/// The answer to a query that nobody answers.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    refuse(&query, ResponseCode::ServFail).to_vec().ok()
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut reply).await?;
        // The port is random and the socket connected; the identifier must fit as well.
        if length >= 12 && reply[..2] == query[..2] {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Reads one message with its length before it.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message with its length before it.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
