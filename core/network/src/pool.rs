//! Network namespaces prepared ahead of need.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gantry_sys::netlink::{Change, RouteSocket};
use gantry_sys::netns;
use parking_lot::{Condvar, Mutex};

/// A namespace with its loopback link up, and a socket that configures it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) netns: OwnedFd,
    pub(crate) socket: RouteSocket,
}

#[derive(Debug, Default)]
struct Stock {
    ready: VecDeque<Prepared>,
    taken: Option<Instant>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shelf {
    stock: Mutex<Stock>,
    wanted: Condvar,
}

/// Making a namespace holds the kernel's networking up for everyone. The shelf is filled up when nobody has taken from
/// it for this long, so that it does not get into the way of the start that took the last one.
const QUIET: Duration = Duration::from_millis(20);

/// Keeps a few namespaces ready. A thread refills it; it ends when the pool is dropped.
#[derive(Debug)]
pub(crate) struct NetnsPool {
    shelf: Arc<Shelf>,
}

/// What every container finds in its namespace: ports from 0 on and ICMP sockets for any user, as Docker has it, and
/// no IPv6 on links that have no address of it.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

fn prepare() -> io::Result<Prepared> {
    let (netns, socket) = netns::create(set_up)?;
    Ok(Prepared { netns, socket })
}

/// What every container finds, set in the namespace of the calling thread.
fn set_up() -> io::Result<RouteSocket> {
    for (path, value) in SYSCTLS {
        // Not every kernel has them, and none is worth failing a start for.
        let _ = fs::write(path, value);
    }
    let mut socket = RouteSocket::open()?;
    const LOOPBACK: u32 = 1;
    socket.apply(vec![Change::up(LOOPBACK)])?;
    Ok(socket)
}

impl Prepared {
    /// A namespace that somebody else has made.
    pub(crate) fn of(netns: OwnedFd) -> io::Result<Self> {
        let socket = netns::inside(&netns, set_up)?;
        Ok(Self { netns, socket })
    }
}

impl NetnsPool {
    /// A pool of `size` namespaces.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let weak = Arc::downgrade(&shelf);
        std::thread::Builder::new()
            .name("netns-pool".into())
            .stack_size(128 * 1024)
            .spawn(move || refill(&weak, size))?;
        Ok(Self { shelf })
    }

    /// A prepared namespace, made on the spot when none is ready.
    pub(crate) fn take(&self) -> io::Result<Prepared> {
        let ready = {
            let mut stock = self.shelf.stock.lock();
            stock.taken = Some(Instant::now());
            stock.ready.pop_front()
        };
        self.shelf.wanted.notify_one();
        ready.map_or_else(prepare, Ok)
    }
}

impl Drop for NetnsPool {
    fn drop(&mut self) {
        self.shelf.stock.lock().closed = true;
        self.shelf.wanted.notify_one();
    }
}

/// Waits until a namespace is to be made; false when the pool is closed.
fn wait(shelf: &Shelf, size: usize) -> bool {
    let mut stock = shelf.stock.lock();
    while !stock.closed {
        let quiet_at = stock.taken.map(|taken| taken + QUIET);
        if stock.ready.len() >= size {
            shelf.wanted.wait(&mut stock);
        } else if let Some(at) = quiet_at.filter(|at| *at > Instant::now()) {
            shelf.wanted.wait_until(&mut stock, at);
        } else {
            return true;
        }
    }
    false
}

fn refill(shelf: &Weak<Shelf>, size: usize) {
    while let Some(shelf) = shelf.upgrade() {
        if !wait(&shelf, size) {
            return;
        }
        match prepare() {
            Ok(prepared) => shelf.stock.lock().ready.push_back(prepared),
            Err(error) => {
                tracing::warn!(%error, "cannot prepare a network namespace");
                let mut stock = shelf.stock.lock();
                if !stock.closed {
                    shelf.wanted.wait(&mut stock);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;

    #[test]
    fn each_taker_gets_a_namespace_of_its_own_with_loopback_up() {
        let pool = NetnsPool::new(2).unwrap();
        let mut taken: Vec<Prepared> = (0..6).map(|_| pool.take().unwrap()).collect();
        let mut seen = std::collections::HashSet::new();
        for prepared in &mut taken {
            assert!(prepared.socket.link("lo").unwrap().unwrap().up);
            assert!(seen.insert(fstat(&prepared.netns).unwrap().st_ino));
        }
    }
}
