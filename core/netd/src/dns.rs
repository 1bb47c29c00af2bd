//! Answers to DNS queries, from the names or from upstream.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::message::{self, Code, Message, Query};
use crate::names::{Found, Names};
use crate::upstream::Upstream;

/// Seconds that a name of a container may be remembered, as Docker's.
const TTL: u32 = 600;

/// What is to be done about a query.
pub(crate) enum Answer {
    /// Send this.
    Ready(Vec<u8>),
    /// Ask these servers, in order. With `admit`, what they answer is reachable from now on.
    Forward {
        upstreams: Vec<Upstream>,
        admit: bool,
    },
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

/// The answer to a query that nobody answers.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    match message::read(query) {
        Message::Query(query) => Some(query.answer(Code::Failed)),
        _ => None,
    }
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
