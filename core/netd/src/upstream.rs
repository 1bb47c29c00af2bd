//! Asking the name servers that know the rest.
//!
//! An answer is believed from the server's address and port only (sockets are connected), to the question that was asked,
//! under an identifier drawn for it and to a port of the kernel's choice (RFC 5452). Sockets are there while a question is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_sys::netns;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::NameServer;
use crate::dns::{failure, read_framed, write_framed};
use crate::message::{self, Code, Message, Query};

/// How long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// After how long it is asked again over UDP, which loses datagrams.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a server that was silent inside a sandbox, and answered on the host, is asked on the host first.
const SILENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 53;
const LONGEST: usize = 65535;

/// A server, and from where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) server: NameServer,
    /// From the sandbox's namespace; otherwise from the host's.
    pub(crate) inside: bool,
}

/// Servers that said nothing inside a sandbox when they were there on the host, and until when that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Silent(RefCell<HashMap<String, HashMap<NameServer, Instant>>>);

impl Silent {
    fn note(&self, sandbox: &str, server: NameServer) {
        let mut all = self.0.borrow_mut();
        let of_one = all.entry(sandbox.to_owned()).or_default();
        of_one.insert(server, Instant::now() + SILENCE);
    }

    pub(crate) fn forget(&self, sandbox: &str) {
        self.0.borrow_mut().remove(sandbox);
    }

    /// The order in which servers are asked: what is silent inside comes after its like on the host.
    fn order(&self, sandbox: &str, upstreams: &mut [Upstream]) {
        let mut all = self.0.borrow_mut();
        let Some(silent) = all.get_mut(sandbox) else {
            return;
        };
        let now = Instant::now();
        silent.retain(|_, until| *until > now);
        for at in 1..upstreams.len() {
            let [first, second] = [&upstreams[at - 1], &upstreams[at]];
            let same = first.server == second.server && first.inside && !second.inside;
            if same && silent.contains_key(&first.server) {
                upstreams.swap(at - 1, at);
            }
        }
    }
}

/// A sandbox that asks.
pub(crate) struct Asker<'a, S> {
    pub(crate) id: &'a str,
    /// A socket in its namespace.
    pub(crate) socket: &'a S,
    pub(crate) silent: &'a Silent,
}

impl<S: AsFd> Asker<'_, S> {
    /// Asks servers in order until one answers; if none does, the answer says that it failed.
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
        let mut unhelpful = None;
        let mut silent = None;
        let mut reached = false;
        for upstream in upstreams {
            let asked = self.ask(&upstream, &question, over_udp);
            let Ok(asked) = timeout(PATIENCE, asked).await else {
                silent = upstream.inside.then_some(upstream.server);
                reached = true;
                continue;
            };
            let Ok(reply) = asked else {
                continue;
            };
            reached = true;
            // The host's own loopback is never preferred to the sandbox's.
            let same =
                silent.as_ref() == Some(&upstream.server) && !upstream.server.ip().is_loopback();
            if same && !upstream.inside {
                self.silent.note(self.id, upstream.server.clone());
            }
            // One that cannot or will not say does not speak for the others.
            let failed = [Code::Failed as u8, Code::Refused as u8];
            if message::code(&reply).is_none_or(|code| !failed.contains(&code)) {
                return Some(reply);
            }
            unhelpful = Some(reply);
        }
        if confined && !reached {
            return Some(question.answer(Code::NoSuchName));
        }
        unhelpful.or_else(|| failure(query))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_silent_inside_comes_after_the_host_for_a_time() {
        let [one, two]: [NameServer; 2] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let list = |order: [(&NameServer, bool); 4]| {
            order.map(|(server, inside)| Upstream {
                server: server.clone(),
                inside,
            })
        };
        let usual = list([(&one, true), (&one, false), (&two, true), (&two, false)]);
        let silent = Silent::default();
        let ordered = |sandbox| {
            let mut upstreams = usual.clone();
            silent.order(sandbox, &mut upstreams);
            upstreams
        };
        assert_eq!(ordered("a"), usual);
        silent.note("a", two.clone());
        let other = list([(&one, true), (&one, false), (&two, false), (&two, true)]);
        assert_eq!((ordered("a"), ordered("b")), (other, usual.clone()));
        silent.forget("a");
        assert_eq!(ordered("a"), usual);
    }
}
