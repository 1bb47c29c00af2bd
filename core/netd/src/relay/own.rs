//! Sockets on the published ports themselves, where nothing leads packets to netd: a host without the engine's rules, or
//! without nftables' `tproxy`. They are seen, and stand in the way of others, as those of any server.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
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
use tokio::task::{JoinHandle, spawn_local};

use super::{Relays, complain, tcp, udp};
use crate::Relay;

/// A published port: whether it is UDP's, and where.
type Port = (bool, SocketAddr);

/// The tasks that serve the open sockets, which close them when they end.
#[derive(Debug, Default)]
pub(super) struct Sockets(RefCell<HashMap<Port, JoinHandle<()>>>);

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

/// Listens on what `after` wants in the place of what `before` wanted. On failure all is as it was.
pub(super) async fn exchange(
    relays: &Rc<Relays>,
    before: &[Relay],
    after: &[Relay],
) -> Result<(), String> {
    let (old, new) = (ports(before), ports(after));
    let gone: Vec<Port> = old
        .keys()
        .filter(|p| !new.contains_key(p))
        .copied()
        .collect();
    let missing = {
        let open = relays.own.0.borrow();
        let missing = new.into_iter().filter(|(port, _)| !open.contains_key(port));
        let missing: Vec<_> = missing.collect();
        let (all, most) = (
            (open.len() + missing.len()).saturating_sub(gone.len()),
            most(),
        );
        if all > most && !missing.is_empty() {
            return Err(format!(
                "too many published ports: without the engine's firewall rules each takes a socket of gantry-netd's, of \
                 which it may have {most}, and {all} are wanted"
            ));
        }
        missing
    };
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
    for (at, (port, target)) in missing.iter().enumerate() {
        let Err(error) = open(relays, *port) else {
            continue;
        };
        let opened: Vec<Port> = missing[..at].iter().map(|(port, _)| *port).collect();
        end(relays, &opened).await;
        for port in gone {
            if let Err(error) = open(relays, port) {
                complain(format_args!("listening on {} again: {error}", port.1));
            }
        }
        let (transport, host) = (if port.0 { "udp" } else { "tcp" }, port.1);
        return Err(format!(
            "failed to bind host port for {host}:{target}/{transport}: {}",
            reason(&error)
        ));
    }
    Ok(())
}

/// Closes what these relays listen on.
pub(super) async fn close(relays: &Relays, of: &[Relay]) {
    let ports: Vec<Port> = ports(of).into_keys().collect();
    end(relays, &ports).await;
}

/// Returns when the sockets are closed.
async fn end(relays: &Relays, ports: &[Port]) {
    let tasks: Vec<_> = {
        let mut open = relays.own.0.borrow_mut();
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
    relays.own.0.borrow_mut().insert(port, task);
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

/// The kernel's reason in Go's words, which clients match on.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        _ => error.to_string(),
    }
}
