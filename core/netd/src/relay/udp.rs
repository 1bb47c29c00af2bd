//! Datagrams. A client that sends to one port is a flow, which ends when nothing was said for a while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use gantry_sys::socket::{Led, receive_led};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::timeout;

use super::{Counted, Relays, Way};

/// How long a flow lasts in which nobody says anything, as Docker's.
const IDLE: Duration = Duration::from_secs(90);
/// Flows at most, of one sandbox a quarter: each has two sockets. What would be one more is dropped.
const MOST: usize = 4096;
/// The longest datagram.
const LONGEST: usize = 65535;

/// A client's address, and the one that it sends to.
type Key = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Flow {
    target: SocketAddr,
    server: Rc<UdpSocket>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
pub(super) struct Flows(RefCell<HashMap<Key, Flow>>);

impl Flows {
    /// Ends flows to what `keep` is false for, given where the client sends to and where that went.
    pub(super) fn end_unless(&self, keep: impl Fn(SocketAddr, SocketAddr) -> bool) {
        self.0.borrow_mut().retain(|(_, at), flow| {
            let keep = keep(*at, flow.target);
            if !keep {
                flow.task.abort();
            }
            keep
        });
    }
}

pub(super) async fn serve(socket: UdpSocket, relays: Rc<Relays>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let received = socket
            .async_io(Interest::READABLE, || {
                receive_led(socket.as_fd(), &mut buffer)
            })
            .await;
        match received {
            Ok(Some(led)) => take(led, &buffer[..led.length], &relays),
            // An ICMP error about an earlier datagram; the socket goes on.
            Ok(None) | Err(_) => yield_now().await,
        }
    }
}

/// The first datagram of a flow; later ones go to the flow's own socket, but for some that were on their way.
fn take(led: Led, datagram: &[u8], relays: &Rc<Relays>) {
    let Some(way) = relays.way(true, led.to) else {
        return;
    };
    let key = (led.from, led.to);
    let known = relays.flows.0.borrow().get(&key).map(|f| f.server.clone());
    let server = match known {
        Some(server) => server,
        None => match begin(key, way, relays) {
            Ok(Some(server)) => server,
            // Too many: datagrams may be lost.
            Ok(None) => return,
            Err(error) => {
                eprintln!("gantry-netd: relaying {} to {}: {error}", led.from, led.to);
                return;
            }
        },
    };
    send(&server, datagram);
}

fn begin(key: Key, way: Way, relays: &Rc<Relays>) -> io::Result<Option<Rc<UdpSocket>>> {
    let (from, at) = key;
    let Way { target, to } = way;
    if Counted::one(&relays.flow_count, &to.flows, MOST).is_none() {
        return Ok(None);
    }
    let client = socket(at, true)?;
    rustix::net::connect(&client, &from)?;
    let client = UdpSocket::from_std(client.into())?;
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let server = socket(any, false)?;
    rustix::net::connect(&server, &target)?;
    let server = Rc::new(UdpSocket::from_std(server.into())?);
    let task = spawn_local({
        let (relays, server) = (Rc::clone(relays), Rc::clone(&server));
        async move {
            let _counted = Counted::one(&relays.flow_count, &to.flows, MOST);
            flow(&client, &server, &to.gone).await;
            relays.flows.0.borrow_mut().remove(&key);
        }
    });
    let flow = Flow {
        target,
        server: Rc::clone(&server),
        task: task.abort_handle(),
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

async fn flow(client: &UdpSocket, server: &UdpSocket, gone: &Notify) {
    loop {
        let either = async {
            tokio::select! {
                ready = client.readable() => ready.map(|()| (client, server)),
                ready = server.readable() => ready.map(|()| (server, client)),
            }
        };
        tokio::select! {
            ready = timeout(IDLE, either) => match ready {
                Ok(Ok((from, to))) => pass(from, to),
                _ => return,
            },
            () = gone.notified() => return,
        }
    }
}

/// Sends at once, whether the event loop has heard of the socket yet or not.
fn send(socket: &UdpSocket, datagram: &[u8]) {
    // A full buffer loses datagrams as a network does.
    let _ = rustix::net::send(socket, datagram, SendFlags::empty());
}

fn pass(from: &UdpSocket, to: &UdpSocket) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        // A refusal is reported to the next send or receive, and that is all that becomes of it.
        if let Ok(length) = from.try_recv(buffer) {
            send(to, &buffer[..length]);
        }
    });
}
