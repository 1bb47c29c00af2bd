//! Sockets on the published ports themselves, where nothing leads packets to netd: a host without the engine's rules, or
//! without nftables' `tproxy`. They are seen, and stand in the way of others, as those of any server.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use gantry_sys::socket::tell_destinations;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinHandle, spawn_local};

use super::{Relays, complain, tcp, udp};
use crate::Relay;

/// A published port: whether it is UDP's, and where.
type Port = (bool, SocketAddr);

/// How often it is tried to listen on what is wanted and was not to be had.
const AGAIN: Duration = Duration::from_secs(2);

/// The tasks that serve the open sockets, which close them when they end.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: RefCell<HashMap<Port, JoinHandle<()>>>,
    /// Held while they are brought in line with what is relayed.
    changing: Mutex<()>,
    /// A task tries to have those that are missing.
    pursued: Cell<bool>,
}

impl Sockets {
    pub(super) async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }
}

/// How many there are at most: a quarter of the descriptors that there may be.
fn most() -> usize {
    super::descriptors() / 4
}

/// The ports that relays want listened on, and where they lead.
fn ports(relays: &[Relay]) -> HashMap<Port, SocketAddr> {
    let listening = relays.iter().filter(|relay| relay.listen);
    let each = listening.flat_map(|relay| {
        let last = relay.host.port().saturating_add(relay.more);
        (relay.host.port()..=last).map(|port| {
            let at = SocketAddr::new(relay.host.ip(), port);
            ((relay.udp, at), relay.target_of(at))
        })
    });
    each.collect()
}

/// Listens on what `after` wants in the place of what `before` wanted. On failure all is as it was. What was wanted before,
/// and with `patient` everything, is listened on later where it is not to be had now.
pub(super) async fn exchange(
    relays: &Rc<Relays>,
    before: &[Relay],
    after: &[Relay],
    patient: bool,
) -> Result<(), String> {
    let (old, new) = (ports(before), ports(after));
    let gone: Vec<Port> = old
        .keys()
        .filter(|p| !new.contains_key(p))
        .copied()
        .collect();
    let missing = new.iter().map(|(port, target)| (*port, *target));
    let missing: Vec<_> = missing.filter(|(port, _)| !is_open(relays, port)).collect();
    let can_wait = |(port, _): &(Port, SocketAddr)| patient || old.contains_key(port);
    let (later, now): (Vec<_>, Vec<_>) = missing.iter().copied().partition(can_wait);
    check_room(relays, &gone, now.len())?;
    end(relays, &gone).await;
    let comes = |at: SocketAddr| {
        let mut ports = missing.iter().map(|((_, host), _)| *host);
        ports.any(|host| {
            host.port() == at.port() && (host.ip() == at.ip() || host.ip().is_unspecified())
        })
    };
    // Flows that were led here have sockets of their own at these ports.
    if relays.flows.end_unless(|at, _| !comes(at)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for (at, (port, target)) in now.iter().enumerate() {
        let Err(error) = open(relays, *port) else {
            continue;
        };
        let opened: Vec<Port> = now[..at].iter().map(|(port, _)| *port).collect();
        end(relays, &opened).await;
        open_or_pursue(relays, gone.iter().map(|port| (*port, old[port])));
        return Err(refusal(*port, *target, &error));
    }
    open_or_pursue(relays, later.into_iter());
    Ok(())
}

fn is_open(relays: &Relays, port: &Port) -> bool {
    relays.own.open.borrow().contains_key(port)
}

/// Whether there may be so many more sockets when some are gone.
fn check_room(relays: &Relays, gone: &[Port], more: usize) -> Result<(), String> {
    let closed = gone.iter().filter(|port| is_open(relays, port)).count();
    let (all, most) = (relays.own.open.borrow().len() + more - closed, most());
    if all > most && more > 0 {
        return Err(format!(
            "too many published ports: without the engine's firewall rules each takes a socket of gantry-netd's, of which it \
             may have {most}, and {all} are wanted"
        ));
    }
    Ok(())
}

/// Listens on what can be listened on; the rest is tried again.
fn open_or_pursue(relays: &Rc<Relays>, all: impl Iterator<Item = (Port, SocketAddr)>) {
    let failed = all.filter_map(|(port, target)| {
        let error = open(relays, port).err()?;
        Some(refusal(port, target, &error))
    });
    let failed: Vec<String> = failed.collect();
    let Some(first) = failed.first() else {
        return;
    };
    let more = match failed.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    complain(format_args!("{first}{more}; it is tried again"));
    if !relays.own.pursued.replace(true) {
        spawn_local(pursue(Rc::clone(relays)));
    }
}

/// Tries to listen on what is wanted until nothing is missing.
async fn pursue(relays: Rc<Relays>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let _changing = relays.own.changing().await;
        let mut missing = ports(&relays.all());
        missing.retain(|port, _| !is_open(&relays, port));
        missing.retain(|port, _| match open(&relays, *port) {
            Ok(()) => {
                complain(format_args!("it was to be had by now: {}", port.1));
                false
            }
            Err(_) => true,
        });
        if missing.is_empty() {
            relays.own.pursued.set(false);
            return;
        }
    }
}

/// Closes what these relays listen on.
pub(super) async fn close(relays: &Relays, of: &[Relay]) {
    let ports: Vec<Port> = ports(of).into_keys().collect();
    end(relays, &ports).await;
}

/// Returns when the sockets are closed.
async fn end(relays: &Relays, ports: &[Port]) {
    let tasks: Vec<_> = {
        let mut open = relays.own.open.borrow_mut();
        ports.iter().filter_map(|port| open.remove(port)).collect()
    };
    tasks.iter().for_each(JoinHandle::abort);
    for task in tasks {
        // It was told to end; how it ended is of no interest.
        let _ = task.await;
    }
}

fn open(relays: &Rc<Relays>, port: Port) -> io::Result<()> {
    let (datagrams, at) = port;
    if relays.own.open.borrow().len() >= most() {
        return Err(io::Error::other("too many published ports"));
    }
    let socket = bind(datagrams, at)?;
    let task = match datagrams {
        true => {
            let socket = Rc::new(UdpSocket::from_std(socket.into())?);
            spawn_local(udp::serve(socket, false, Rc::clone(relays)))
        }
        false => {
            let socket = TcpListener::from_std(socket.into())?;
            spawn_local(tcp::serve(socket, Rc::clone(relays)))
        }
    };
    relays.own.open.borrow_mut().insert(port, task);
    Ok(())
}

fn bind(datagrams: bool, at: SocketAddr) -> io::Result<OwnedFd> {
    const BACKLOG: i32 = 4096;
    let (family, kind) = (
        match at {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        },
        match datagrams {
            true => SocketType::DGRAM,
            false => SocketType::STREAM,
        },
    );
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if at.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    if datagrams {
        tell_destinations(&socket, at.is_ipv4())?;
    } else {
        // Connections of before may still be ending.
        set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    if !datagrams {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Why a port is not listened on, in Docker's words.
fn refusal((datagrams, host): Port, target: SocketAddr, error: &io::Error) -> String {
    let transport = if datagrams { "udp" } else { "tcp" };
    format!(
        "failed to bind host port for {host}:{target}/{transport}: {}",
        reason(error)
    )
}

/// The kernel's reason in Go's words, which clients match on.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        _ => error.to_string(),
    }
}
