//! Answers to DNS queries, from the names or from upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::message::{self, Code, Message, Query};
use crate::names::{Found, Names};

/// Seconds that a name of a container may be remembered, as Docker's.
const TTL: u32 = 600;
/// How long one upstream server is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
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

/// Answers a query of a sandbox. `over_udp` limits the answer's length.
pub(crate) fn answer(names: &mut Names, asker: &str, query: &[u8], over_udp: bool) -> Answer {
    let query = match message::read(query) {
        Message::Query(query) => query,
        Message::Bad(reply) => return Answer::Ready(reply),
        Message::Nothing => return Answer::Nothing,
    };
    match known(names, asker, &query, over_udp) {
        Some(reply) => Answer::Ready(reply),
        None => elsewhere(names, asker, &query),
    }
}

/// The answer to a question about a container.
fn known(names: &mut Names, asker: &str, query: &Query<'_>, over_udp: bool) -> Option<Vec<u8>> {
    if !query.is_internet() {
        return None;
    }
    match query.kind {
        kind @ (message::A | message::AAAA) => {
            match names.resolve(asker, &query.name, kind == message::AAAA) {
                Found::Addresses(found) => Some(query.addresses(&found, TTL, over_udp)),
                Found::Unknown => None,
            }
        }
        message::PTR => {
            let host = names.reverse(asker, query.reversed()?)?;
            query.host(&host, TTL, over_udp)
        }
        _ => None,
    }
}

fn elsewhere(names: &mut Names, asker: &str, query: &Query<'_>) -> Answer {
    // Who wishes for `ndots` tries the search domains next; the bare name is nobody else's business.
    let bare = !query.name.contains('.') && matches!(query.kind, message::A | message::AAAA);
    if bare && names.searches(asker) {
        return Answer::Ready(query.answer(Code::Fine));
    }
    let upstreams = names.upstreams(asker);
    let egress = names.egress(asker);
    let admit = egress.is_some_and(|e| e.lists(&query.name));
    let hidden = egress.is_some_and(|e| !e.networks) && !admit;
    if upstreams.is_empty() || hidden {
        return Answer::Ready(query.answer(Code::NoSuchName));
    }
    Answer::Forward { upstreams, admit }
}

/// Asks upstream servers in order until one answers; if none does, the answer says that it failed.
pub(crate) async fn forward(upstreams: &[IpAddr], query: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    let mut unhelpful = None;
    for server in upstreams {
        let server = SocketAddr::new(*server, PORT);
        let asked = async {
            if over_udp {
                ask_udp(server, query).await
            } else {
                ask_tcp(server, query).await
            }
        };
        let Ok(Ok(reply)) = timeout(PATIENCE, asked).await else {
            continue;
        };
        // One that cannot or will not say does not speak for the others.
        let failed = [Code::Failed as u8, Code::Refused as u8];
        if message::code(&reply).is_none_or(|code| !failed.contains(&code)) {
            return Some(reply);
        }
        unhelpful = Some(reply);
    }
    unhelpful.or_else(|| failure(query))
}

/// The answer to a query that nobody answers.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    match message::read(query) {
        Message::Query(query) => Some(query.answer(Code::Failed)),
        _ => None,
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
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
