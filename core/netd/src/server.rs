//! The server: one thread, one event loop.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::dns::{self, Answer};
use crate::egress::Gate;
use crate::names::Names;
use crate::relay::Relays;
use crate::transport::{self, Receiver};
use crate::upstream::{Asker, Silent};
use crate::{PROTOCOL, Reply, Request, SandboxNames};

/// The first version of the protocol that knows [`Request::Hold`].
const HOLDS: u32 = 6;

/// Why the server ended other than it should.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The event loop or the listening socket failed.
    #[error("serving: {0}")]
    Io(#[from] io::Error),
}

/// Queries under way at most, of all sandboxes and of one; more are dropped, and asked again by who misses the answer.
const MOST_QUERIES: usize = 4096;
const MOST_OF_ONE: usize = MOST_QUERIES / 4;
/// TCP clients of a sandbox at most.
const MOST_STREAMS: usize = 64;
/// How long a TCP client may say nothing, or not take its answer.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    names: RefCell<Names>,
    gate: RefCell<Gate>,
    silent: Silent,
    relays: Rc<Relays>,
    /// The tasks that answer a sandbox's sockets.
    sandboxes: RefCell<HashMap<String, [JoinHandle<()>; 2]>>,
    daemons: Cell<usize>,
    queries: Cell<usize>,
    stopped: Cell<bool>,
    /// Only held.
    held: RefCell<Vec<OwnedFd>>,
    changed: Notify,
}

impl State {
    /// Nobody is served.
    fn is_idle(&self) -> bool {
        self.sandboxes.borrow().is_empty() && self.relays.is_empty()
    }
}

/// Serves on a listening SEQPACKET socket until told to stop, or until neither a sandbox nor a daemon is left.
///
/// # Errors
/// When the event loop cannot be set up.
pub fn serve(listener: OwnedFd) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // They open sockets inside sandboxes, which takes no time.
        .max_blocking_threads(4)
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        rustix::io::ioctl_fionbio(&listener, true).map_err(io::Error::from)?;
        // Accepting and polling are the same for SEQPACKET sockets; reading and writing are the transport's.
        let listener = UnixListener::from_std(listener.into())?;
        let state = Rc::new(State::default());
        // The daemon that started this is about to connect.
        let grace = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(grace);
        let mut seen = false;
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    match accepted {
                        Ok((socket, _)) => {
                            seen = true;
                            state.daemons.set(state.daemons.get() + 1);
                            spawn_local(daemon(socket, Rc::clone(&state)));
                        }
                        // Out of descriptors, say: later is better.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
                () = state.changed.notified() => {}
                () = &mut grace, if !seen => seen = true,
            }
            let alone = seen && state.daemons.get() == 0 && state.is_idle();
            if alone || state.stopped.get() {
                return Ok(());
            }
        }
    })
}

/// One connection of a daemon.
async fn daemon(socket: UnixStream, state: Rc<State>) {
    // A daemon that was killed is no reason to complain.
    let _ = converse(&socket, &state).await;
    state.daemons.set(state.daemons.get() - 1);
    state.changed.notify_one();
}

async fn converse(socket: &UnixStream, state: &Rc<State>) -> io::Result<()> {
    let mut receiver = Receiver::default();
    loop {
        let received = socket
            .async_io(Interest::READABLE, || receiver.receive(socket.as_fd()))
            .await?;
        let Some((request, fds)) = received else {
            return Ok(());
        };
        let reply = handle(request, fds, state).await;
        // One small message to a peer that waits for it: there is room.
        transport::send(socket, &reply, &[])?;
        if state.stopped.get() {
            return Ok(());
        }
    }
}

async fn handle(request: Request, fds: Vec<OwnedFd>, state: &Rc<State>) -> Reply {
    match request {
        Request::Hello { version } => {
            if version < HOLDS {
                // What is led by what is held would never be changed.
                state.held.take();
            }
            Reply::Hello {
                version: PROTOCOL,
                pid: std::process::id(),
            }
        }
        Request::Put(names) => put(names, fds, state).unwrap_or_else(Reply::Refused),
        Request::Remove { id } => {
            state.names.borrow_mut().remove(&id);
            state.gate.borrow_mut().forget(&id);
            state.silent.forget(&id);
            if let Some(tasks) = state.sandboxes.borrow_mut().remove(&id) {
                tasks.iter().for_each(JoinHandle::abort);
            }
            state.changed.notify_one();
            Reply::Done
        }
        Request::Foreign {
            network,
            members,
            first,
            last,
        } => {
            let mut names = state.names.borrow_mut();
            names.set_foreign(network, members, first, last);
            Reply::Done
        }
        Request::Listen => match state.relays.listen() {
            Ok(listeners) => Reply::Listening(listeners),
            Err(error) => Reply::Refused(format!("listening for relayed ports: {error}")),
        },
        Request::Relay {
            id,
            relays,
            first,
            last,
            patient,
        } => {
            let part = [first, last];
            let put = state.relays.put(id, relays, part, patient).await;
            put.map_or_else(Reply::Refused, |()| Reply::Done)
        }
        Request::Unrelay { id } => {
            state.relays.remove(&id).await;
            state.changed.notify_one();
            Reply::Done
        }
        Request::Relayed { after } => Reply::Sandboxes(part(state.relays.ids(), &after)),
        Request::List { after } => {
            let ids = state.sandboxes.borrow().keys().cloned().collect();
            Reply::Sandboxes(part(ids, &after))
        }
        Request::Hold => {
            state.held.replace(fds);
            Reply::Done
        }
        Request::Stop => {
            state.stopped.set(true);
            state.changed.notify_one();
            Reply::Done
        }
    }
}

/// As many IDs as a reply takes, in order, of those that come after one.
fn part(mut ids: Vec<String>, after: &str) -> Vec<String> {
    const AT_ONCE: usize = 1000;
    ids.retain(|id| id.as_str() > after);
    ids.sort_unstable();
    ids.truncate(AT_ONCE);
    ids
}

fn put(names: SandboxNames, fds: Vec<OwnedFd>, state: &Rc<State>) -> Result<Reply, String> {
    let id = names.id.clone();
    match <[OwnedFd; 2]>::try_from(fds) {
        Ok([udp, tcp]) => {
            let tasks = listen(&id, udp, tcp, state).map_err(|e| e.to_string())?;
            if let Some(old) = state.sandboxes.borrow_mut().insert(id, tasks) {
                old.iter().for_each(JoinHandle::abort);
            }
        }
        Err(fds) if !fds.is_empty() => return Err("want two sockets".into()),
        Err(_) if !state.sandboxes.borrow().contains_key(&id) => {
            return Err(format!("no sockets of sandbox {id}"));
        }
        Err(_) => {}
    }
    if let Some(egress) = &names.egress {
        let again = state.gate.borrow_mut().again(&names.id, egress);
        again.map_err(|e| format!("opening ways for sandbox {}: {e}", names.id))?;
    }
    state.names.borrow_mut().put(names);
    Ok(Reply::Done)
}

fn listen(
    id: &str,
    udp: OwnedFd,
    tcp: OwnedFd,
    state: &Rc<State>,
) -> io::Result<[JoinHandle<()>; 2]> {
    rustix::io::ioctl_fionbio(&udp, true)?;
    rustix::io::ioctl_fionbio(&tcp, true)?;
    let udp = UdpSocket::from_std(udp.into())?;
    let tcp = TcpListener::from_std(tcp.into())?;
    Ok([
        spawn_local(serve_udp(id.to_owned(), Rc::new(udp), Rc::clone(state))),
        spawn_local(serve_tcp(id.to_owned(), tcp, Rc::clone(state))),
    ])
}

/// A query that somebody else answers. There are so many at most.
struct UnderWay(Rc<State>);

impl UnderWay {
    fn begin(state: &Rc<State>) -> Option<Self> {
        let queries = state.queries.get();
        (queries < MOST_QUERIES).then(|| {
            state.queries.set(queries + 1);
            Self(Rc::clone(state))
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.queries.set(self.0.queries.get() - 1);
    }
}

async fn serve_udp(id: String, socket: Rc<UdpSocket>, state: Rc<State>) {
    let mut buffer = [0; 4096];
    // They end with the sandbox.
    let mut forwards = JoinSet::new();
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error about an earlier answer; the socket goes on.
            tokio::task::yield_now().await;
            continue;
        };
        let query = &buffer[..length];
        let answer = dns::answer(&mut state.names.borrow_mut(), &id, query, true);
        let (upstreams, admit) = match answer {
            Answer::Ready(reply) => {
                drop(socket.send_to(&reply, from).await);
                continue;
            }
            Answer::Forward { upstreams, admit } => (upstreams, admit),
            Answer::Nothing => continue,
        };
        while forwards.try_join_next().is_some() {}
        let room = forwards.len() < MOST_OF_ONE;
        let Some(under_way) = room.then(|| UnderWay::begin(&state)).flatten() else {
            continue;
        };
        let (socket, query, id) = (Rc::clone(&socket), query.to_vec(), id.clone());
        forwards.spawn_local(async move {
            let asker = Asker {
                id: &id,
                socket: &*socket,
                silent: &under_way.0.silent,
            };
            let reply = asker.forward(upstreams, &query, true).await;
            if let Some(reply) = admitted(&under_way.0, &id, admit, &query, reply) {
                let _ = socket.send_to(&reply, from).await;
            }
        });
    }
}

/// What is answered with upstream's reply. The way to it is opened, if that is to be; an answer that leads nowhere is not
/// given.
fn admitted(
    state: &State,
    id: &str,
    admit: bool,
    query: &[u8],
    reply: Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let names = state.names.borrow();
    let reply = dns::corrected(&names, id, query, reply?);
    let Some(egress) = names.egress(id).filter(|_| admit) else {
        return Some(reply);
    };
    match state.gate.borrow_mut().admit(id, egress, &reply) {
        Ok(()) => Some(reply),
        Err(error) => {
            eprintln!("gantry-netd: opening a way for sandbox {id}: {error}");
            dns::failure(query)
        }
    }
}

async fn serve_tcp(id: String, listener: TcpListener, state: Rc<State>) {
    let mut streams = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while streams.try_join_next().is_some() {}
                if streams.len() < MOST_STREAMS {
                    let (id, state) = (id.clone(), Rc::clone(&state));
                    // A client that goes away in the middle has no more to be told.
                    streams
                        .spawn_local(async move { drop(serve_stream(&id, stream, &state).await) });
                }
            }
            // Out of descriptors, say: later is better.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_stream(id: &str, mut stream: TcpStream, state: &Rc<State>) -> io::Result<()> {
    while let Ok(read) = timeout(IDLE, dns::read_framed(&mut stream)).await {
        let query = read?;
        let answer = dns::answer(&mut state.names.borrow_mut(), id, &query, false);
        let reply = match answer {
            Answer::Ready(reply) => Some(reply),
            Answer::Forward { upstreams, admit } => {
                let Some(_under_way) = UnderWay::begin(state) else {
                    return Ok(());
                };
                let asker = Asker {
                    id,
                    socket: &stream,
                    silent: &state.silent,
                };
                let reply = asker.forward(upstreams, &query, false).await;
                admitted(state, id, admit, &query, reply)
            }
            Answer::Nothing => None,
        };
        match reply {
            Some(reply) => timeout(IDLE, dns::write_framed(&mut stream, &reply)).await??,
            None => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ids_come_in_parts() {
        let all: Vec<String> = (0..2500).rev().map(|n| format!("{n:064}")).collect();
        let (mut got, mut parts) = (Vec::new(), 0);
        loop {
            let after: &str = got.last().map_or("", |id: &String| id.as_str());
            let part = part(all.clone(), after);
            if part.is_empty() {
                break;
            }
            got.extend(part);
            parts += 1;
        }
        assert_eq!((parts, got.len()), (3, 2500));
        assert!(got.is_sorted());
    }

    #[test]
    fn no_sandbox_has_all_the_queries() {
        let state = Rc::new(State::default());
        let all: Vec<_> = std::iter::from_fn(|| UnderWay::begin(&state)).collect();
        assert_eq!(all.len(), MOST_QUERIES);
        drop(all);
        assert!(UnderWay::begin(&state).is_some());
        assert_eq!(state.queries.get(), 0);
    }
}
