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
        // Its mail goes to its address (RFC 5321, 5.1).
        message::MX if names.knows(asker, &query.name) => Some(query.answer(Code::Fine)),
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
        return Answer::Ready(query.answer(absent(names, asker, query)));
    }
    Answer::Forward { upstreams, admit }
}

/// What is said where nothing is known of a kind: a container's name exists, whatever it is asked for.
fn absent(names: &Names, asker: &str, query: &Query<'_>) -> Code {
    match query.is_internet() && names.knows(asker, &query.name) {
        true => Code::Fine,
        false => Code::NoSuchName,
    }
}

/// What upstream said, unless it denies a container's name: who believes that asks no more for its addresses (RFC 8020).
pub(crate) fn corrected(names: &Names, asker: &str, query: &[u8], reply: Vec<u8>) -> Vec<u8> {
    let denied = message::code(&reply) == Some(Code::NoSuchName as u8);
    match message::read(query) {
        Message::Query(query) if denied && absent(names, asker, &query) == Code::Fine => {
            query.answer(Code::Fine)
        }
        _ => reply,
    }
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
