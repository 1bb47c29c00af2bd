//! Datagrams. A client that sends to one port is a flow, which ends when nothing was said for a while.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use gantry_sys::socket::{Led, receive_led, send_from};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use super::{Counted, Relays, Shared, Way, complain};

/// How long a flow lasts in which nobody says anything, as Docker's.
const IDLE: Duration = Duration::from_secs(90);
/// Flows at most, of one sandbox a quarter: each has two sockets. One more takes the place of the one that has been idle
/// longest.
const MOST: usize = 4096;
/// The longest datagram.
const LONGEST: usize = 65535;

thread_local! {
    /// Datagrams are passed on at once: one has room for all.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// A client's address, and the one that it sends to.
type Key = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Flow {
    target: SocketAddr,
    server: Rc<UdpSocket>,
    task: AbortHandle,
    /// When something was said last.
    used: Rc<Cell<Instant>>,
    to: Rc<Shared>,
    _counted: Counted,
}

#[derive(Debug, Default)]
pub(super) struct Flows(RefCell<HashMap<Key, Flow>>);

impl Flows {
    /// Ends flows to what `keep` is false for, given where the client sends to and where that went. Whether there were any;
    /// their sockets close when the event loop comes to it.
    pub(super) fn end_unless(&self, keep: impl Fn(SocketAddr, SocketAddr) -> bool) -> bool {
        let mut flows = self.0.borrow_mut();
        let before = flows.len();
        flows.retain(|(_, at), flow| {
            let keep = keep(*at, flow.target);
            if !keep {
                flow.task.abort();
            }
            keep
        });
        flows.len() < before
    }

    /// Ends the flow that has been idle longest, of one sandbox or of all.
    fn end_idlest(&self, of: Option<&Rc<Shared>>) {
        let mut flows = self.0.borrow_mut();
        let candidates = flows
            .iter()
            .filter(|(_, flow)| of.is_none_or(|of| Rc::ptr_eq(of, &flow.to)));
        let idlest = candidates.min_by_key(|(_, flow)| flow.used.get());
        if let Some(key) = idlest.map(|(key, _)| *key)
            && let Some(flow) = flows.remove(&key)
        {
            flow.task.abort();
        }
    }
}

/// Serves a socket: one that datagrams are `led` to, or one that listens at a published port itself.
pub(super) async fn serve(socket: Rc<UdpSocket>, led: bool, relays: Rc<Relays>) {
    let way = match led {
        true => Back::Own,
        false => Back::By(Rc::downgrade(&socket)),
    };
    while socket.readable().await.is_ok() {
        BUFFER.with_borrow_mut(|buffer| {
            let receive = || receive_led(socket.as_fd(), buffer);
            // Another error is an ICMP message about an earlier datagram; the socket goes on.
            if let Ok(Some(led)) = socket.try_io(Interest::READABLE, receive) {
                take(led, &buffer[..led.length], &way, &relays);
            }
        });
        // A socket at which there is always something must not keep the others waiting.
        consume_budget().await;
    }
}

/// How answers get back to clients.
#[derive(Clone)]
enum Back {
    /// By a socket of the flow's own at the address that was asked, which gets the flow's later datagrams as well.
    Own,
    /// By the socket that listens there, as long as it does.
    By(Weak<UdpSocket>),
}

/// The first datagram of a flow; later ones go to the flow's own socket if it has one, but for some that were on their way.
fn take(led: Led, datagram: &[u8], back: &Back, relays: &Rc<Relays>) {
    let Some(way) = relays.way(true, led.to) else {
        return;
    };
    let key = (led.from, led.to);
    let known = relays.flows.0.borrow().get(&key).map(|flow| {
        flow.used.set(Instant::now());
        Rc::clone(&flow.server)
    });
    let server = match known {
        Some(server) => server,
        None => match begin(key, way, back, relays) {
            Ok(Some(server)) => server,
            // Too many: datagrams may be lost.
            Ok(None) => return,
            Err(error) => {
                let Led { from, to, .. } = led;
                return complain(format_args!("relaying {from} to {to}: {error}"));
            }
        },
    };
    send(&server, datagram);
}

fn begin(
    key: Key,
    way: Way,
    back: &Back,
    relays: &Rc<Relays>,
) -> io::Result<Option<Rc<UdpSocket>>> {
    let (from, at) = key;
    let Way { target, to } = way;
    let count = || Counted::one(&relays.flow_count, &to.flows, MOST);
    let counted = count().or_else(|| {
        let of_all = relays.flow_count.get() >= MOST;
        relays.flows.end_idlest(Some(&to).filter(|_| !of_all));
        count()
    });
    let Some(counted) = counted else {
        return Ok(None);
    };
    let client = match back {
        Back::Own => {
            let client = socket(at, true)?;
            rustix::net::connect(&client, &from)?;
            Client::Own(UdpSocket::from_std(client.into())?)
        }
        Back::By(listening) => Client::By(listening.clone(), key),
    };
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let server = socket(any, false)?;
    rustix::net::connect(&server, &target)?;
    let server = Rc::new(UdpSocket::from_std(server.into())?);
    let used = Rc::new(Cell::new(Instant::now()));
    let task = spawn_local({
        let (relays, server) = (Rc::clone(relays), Rc::clone(&server));
        let (used, to) = (Rc::clone(&used), Rc::clone(&to));
        async move {
            flow(&client, &server, &used, &to.gone).await;
            relays.flows.0.borrow_mut().remove(&key);
        }
    });
    let flow = Flow {
        target,
        server: Rc::clone(&server),
        task: task.abort_handle(),
        used,
        to,
        _counted: counted,
    };
    relays.flows.0.borrow_mut().insert(key, flow);
    Ok(Some(server))
}

/// A socket that is bound; `shared`, others may be at the same address: the kernel tells flows apart by their clients.
fn socket(at: SocketAddr, shared: bool) -> io::Result<std::os::fd::OwnedFd> {
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if shared {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    Ok(socket)
}

/// Where a flow's answers go.
enum Client {
    Own(UdpSocket),
    By(Weak<UdpSocket>, Key),
}

impl Client {
    /// Waits for the client's next datagram, where that comes here.
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Own(socket) => socket.readable().await,
            Self::By(..) => std::future::pending().await,
        }
    }

    /// False when nobody listens any more where the client asked.
    fn answer(&self, datagram: &[u8]) -> bool {
        match self {
            Self::Own(socket) => send(socket, datagram),
            Self::By(listening, (from, at)) => {
                let Some(socket) = listening.upgrade() else {
                    return false;
                };
                if send_from(socket.as_fd(), datagram, at.ip(), *from).is_err() {
                    // It asked everybody at once, say: an address that nobody answers from.
                    let _ = rustix::net::sendto(&socket, datagram, SendFlags::empty(), from);
                }
            }
        }
        true
    }
}

/// Passes datagrams on in both directions.
async fn flow(client: &Client, server: &UdpSocket, used: &Cell<Instant>, gone: &Notify) {
    loop {
        let either = async {
            tokio::select! {
                ready = client.readable() => ready.map(|()| true),
                ready = server.readable() => ready.map(|()| false),
            }
        };
        let from_client = tokio::select! {
            ready = timeout(IDLE, either) => match ready {
                Ok(Ok(from_client)) => from_client,
                _ => return,
            },
            () = gone.notified() => return,
        };
        used.set(Instant::now());
        let goes_on = match client {
            Client::Own(socket) if from_client => receive(socket, |datagram| {
                send(server, datagram);
                true
            }),
            client => receive(server, |datagram| client.answer(datagram)),
        };
        if !goes_on {
            return;
        }
        consume_budget().await;
    }
}

/// Sends at once, whether the event loop has heard of the socket yet or not.
fn send(socket: &UdpSocket, datagram: &[u8]) {
    // A refusal of before (ICMP) is reported once, in the place of sending; it says nothing about this datagram. A full
    // buffer loses datagrams as a network does.
    for _ in 0..2 {
        match rustix::net::send(socket, datagram, SendFlags::empty()) {
            Err(Errno::CONNREFUSED) => {}
            _ => return,
        }
    }
}

/// Passes a datagram on; whether that could be, true without one.
fn receive(socket: &UdpSocket, pass: impl FnOnce(&[u8]) -> bool) -> bool {
    BUFFER.with_borrow_mut(|buffer| match socket.try_recv(buffer) {
        Ok(length) => pass(&buffer[..length]),
        // A refusal of before is reported to the next send or receive, and that is all that becomes of it.
        Err(_) => true,
    })
}
