//! Asking the name servers that know the rest.
//!
//! An answer is believed from the server's address and port only (sockets are connected), to the question that was asked,
//! under an identifier drawn for it and to a port of the kernel's choice (RFC 5452). Sockets are there while a question is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use gantry_sys::netns;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::NameServer;
use crate::dns::{failure, read_framed, write_framed};
use crate::message::{self, Code, Message, Query};

/// How long one server is listened to.
const PATIENCE: Duration = Duration::from_secs(3);
/// After how long it is asked again over UDP, which loses datagrams.
const AGAIN: Duration = Duration::from_secs(1);
/// After how long the next server is asked as well: clients wait for five seconds, some for two, and one lost datagram costs
/// nobody the turn.
const TURN: Duration = Duration::from_millis(1500);
/// How long a server that was silent while another answered is asked last.
const SILENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 53;
const LONGEST: usize = 65535;

/// A server, and from where it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Upstream {
    pub(crate) server: NameServer,
    /// From the sandbox's namespace; otherwise from the host's.
    pub(crate) inside: bool,
}

/// Servers that were silent while others answered, by sandbox, and until when that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Silent(RefCell<HashMap<String, HashMap<Upstream, Instant>>>);

impl Silent {
    fn note(&self, sandbox: &str, upstream: Upstream) {
        // The host's loopback addresses are not to be preferred to the sandbox's.
        if upstream.inside && upstream.server.ip().is_loopback() {
            return;
        }
        let mut all = self.0.borrow_mut();
        let of_one = all.entry(sandbox.to_owned()).or_default();
        of_one.insert(upstream, Instant::now() + SILENCE);
    }

    fn heard(&self, sandbox: &str, upstream: &Upstream) {
        if let Some(silent) = self.0.borrow_mut().get_mut(sandbox) {
            silent.remove(upstream);
        }
    }

    pub(crate) fn forget(&self, sandbox: &str) {
        self.0.borrow_mut().remove(sandbox);
    }

    /// The order in which servers are asked: those that are silent come last.
    fn order(&self, sandbox: &str, upstreams: &mut [Upstream]) {
        let mut all = self.0.borrow_mut();
        let Some(silent) = all.get_mut(sandbox) else {
            return;
        };
        let now = Instant::now();
        silent.retain(|_, until| *until > now);
        upstreams.sort_by_key(|upstream| silent.contains_key(upstream));
    }
}

/// What becomes of a question: an answer, a failure, or nothing in the time that there is.
type Outcome = (Upstream, Option<io::Result<Vec<u8>>>);

/// The first of these that has an outcome, which is not among them any more.
async fn first<F: Future<Output = Outcome>>(asked: &mut Vec<Pin<Box<F>>>) -> Outcome {
    poll_fn(|cx| {
        for at in 0..asked.len() {
            if let Poll::Ready(outcome) = asked[at].as_mut().poll(cx) {
                drop(asked.swap_remove(at));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

/// A sandbox that asks.
pub(crate) struct Asker<'a, S> {
    pub(crate) id: &'a str,
    /// A socket in its namespace.
    pub(crate) socket: &'a S,
    pub(crate) silent: &'a Silent,
}

impl<S: AsFd> Asker<'_, S> {
    /// Asks servers until one answers, each when those before it have failed or had their turn, and listens to all of them;
    /// if none does, the answer says that it failed.
    pub(crate) async fn forward(
        &self,
        mut upstreams: Vec<Upstream>,
        query: &[u8],
        over_udp: bool,
    ) -> Option<Vec<u8>> {
        let Message::Query(question) = message::read(query) else {
            return None;
        };
        self.silent.order(self.id, &mut upstreams);
        // Of a sandbox whose networks lead nowhere only its neighbours are asked.
        let confined = upstreams.iter().all(|upstream| upstream.inside);
        let mut left = upstreams.into_iter();
        let mut asked = Vec::new();
        // Those that have said nothing yet, and since when.
        let mut unheard: Vec<(Upstream, Instant)> = Vec::new();
        let mut unhelpful = None;
        let mut reached = false;
        loop {
            let outcome = match asked.is_empty() {
                true => None,
                false => timeout(TURN, first(&mut asked)).await.ok(),
            };
            match outcome {
                Some((_, None)) => reached = true,
                Some((upstream, Some(said))) => {
                    unheard.retain(|(other, _)| *other != upstream);
                    if let Ok(reply) = said {
                        reached = true;
                        self.silent.heard(self.id, &upstream);
                        if is_helpful(&reply) {
                            self.note_silent(unheard);
                            return Some(reply);
                        }
                        unhelpful = Some(reply);
                    }
                }
                None => {}
            }
            match left.find(|next| !usurps(next, &unheard)) {
                Some(next) => {
                    unheard.push((next.clone(), Instant::now()));
                    asked.push(Box::pin(self.hear(next, &question, over_udp)));
                }
                None if asked.is_empty() => break,
                None => {}
            }
        }
        if confined && !reached {
            return Some(question.answer(Code::NoSuchName));
        }
        unhelpful.or_else(|| failure(query))
    }

    /// Remembers who has had a turn and said nothing.
    fn note_silent(&self, unheard: Vec<(Upstream, Instant)>) {
        for (upstream, since) in unheard {
            if since.elapsed() >= TURN {
                self.silent.note(self.id, upstream);
            }
        }
    }

    async fn hear(&self, upstream: Upstream, question: &Query<'_>, over_udp: bool) -> Outcome {
        let said = timeout(PATIENCE, self.ask(&upstream, question, over_udp)).await;
        (upstream, said.ok())
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        question: &Query<'_>,
        over_udp: bool,
    ) -> io::Result<Vec<u8>> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let asked = question.under(id);
        let reply = match over_udp {
            true => {
                let socket = self.open(upstream, SocketType::DGRAM).await?;
                let server = upstream.server.at(PORT, &socket)?;
                ask_udp(socket, server, &asked).await?
            }
            false => {
                let socket = self.open(upstream, SocketType::STREAM).await?;
                let server = upstream.server.at(PORT, &socket)?;
                ask_tcp(socket, server, &asked).await?
            }
        };
        Ok(question.told(reply))
    }

    /// A socket where the server is to be asked from.
    async fn open(&self, upstream: &Upstream, kind: SocketType) -> io::Result<OwnedFd> {
        let family = match upstream.server.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = move || Ok(rustix::net::socket_with(family, kind, flags, None)?);
        if !upstream.inside {
            return make();
        }
        let netns = netns::of_socket(self.socket)?;
        tokio::task::spawn_blocking(move || netns::inside(&netns, make))
            .await
            .map_err(io::Error::other)?
    }
}

async fn ask_udp(socket: OwnedFd, server: SocketAddr, asked: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(server).await?;
    socket.send(asked).await?;
    // Memory that nothing is written to is none.
    let mut reply = Vec::with_capacity(LONGEST);
    loop {
        reply.clear();
        match timeout(AGAIN, socket.recv_buf(&mut reply)).await {
            Ok(received) => drop(received?),
            Err(_) => drop(socket.send(asked).await?),
        }
        if message::answers(&reply, asked) {
            reply.shrink_to_fit();
            return Ok(reply);
        }
    }
}

async fn ask_tcp(socket: OwnedFd, server: SocketAddr, asked: &[u8]) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::from_std_stream(socket.into());
    let mut stream: TcpStream = socket.connect(server).await?;
    write_framed(&mut stream, asked).await?;
    let reply = read_framed(&mut stream).await?;
    match message::answers(&reply, asked) {
        true => Ok(reply),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// One that cannot or will not say does not speak for the others.
fn is_helpful(reply: &[u8]) -> bool {
    let unhelpful = [Code::Failed as u8, Code::Refused as u8];
    message::code(reply).is_none_or(|code| !unhelpful.contains(&code))
}

/// Whether it would answer for the sandbox's own: the host's loopback has another server, which is asked only where nobody
/// listens on the sandbox's.
fn usurps(next: &Upstream, unheard: &[(Upstream, Instant)]) -> bool {
    let same = |other: &Upstream| other.inside && other.server == next.server;
    let there = || unheard.iter().any(|(other, _)| same(other));
    !next.inside && next.server.ip().is_loopback() && there()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_last_for_a_time() {
        let list = |order: [(&str, bool); 4]| {
            order.map(|(server, inside)| Upstream {
                server: server.parse().unwrap(),
                inside,
            })
        };
        let [one, two] = ["192.0.2.1", "127.0.0.1"];
        let usual = list([(one, true), (two, true), (one, false), (two, false)]);
        let silent = Silent::default();
        let ordered = |sandbox| {
            let mut upstreams = usual.clone();
            silent.order(sandbox, &mut upstreams);
            upstreams
        };
        assert_eq!(ordered("a"), usual);
        silent.note("a", usual[0].clone());
        // That is the sandbox's own.
        silent.note("a", usual[1].clone());
        let other = list([(two, true), (one, false), (two, false), (one, true)]);
        assert_eq!((ordered("a"), ordered("b")), (other, usual.clone()));
        silent.heard("a", &usual[0]);
        assert_eq!(ordered("a"), usual);
        silent.note("a", usual[2].clone());
        assert_ne!(ordered("a"), usual);
        silent.forget("a");
        assert_eq!(ordered("a"), usual);
    }
}
