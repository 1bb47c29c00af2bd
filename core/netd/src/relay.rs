//! Relays of published ports, for what the kernel cannot translate: `[::1]`, and IPv6 to containers without it; for hosts
//! whose INPUT rules are to be obeyed, everything.
//!
//! Nothing is held open a port. The daemon's rules lead what is sent to relayed ports, whatever their number, to one
//! transparent socket a family and transport (nftables' `tproxy`); a socket tells where it was meant to go. Where there
//! are no such rules, relays say so, and each of their ports has a socket of its own.

mod own;
mod tcp;
mod udp;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;

use gantry_sys::socket;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::{Listeners, Relay};

impl Relay {
    fn covers(&self, udp: bool, at: SocketAddr) -> bool {
        let here = self.host.ip() == at.ip()
            || (self.host.ip().is_unspecified() && self.host.is_ipv4() == at.is_ipv4());
        let row = self.host.port()..=self.host.port().saturating_add(self.more);
        self.udp == udp && here && row.contains(&at.port())
    }

    /// Where what was sent to `at` goes.
    fn target_of(&self, at: SocketAddr) -> SocketAddr {
        let port = self
            .target
            .port()
            .wrapping_add(at.port() - self.host.port());
        SocketAddr::new(self.target.ip(), port)
    }
}

/// A sandbox's relays.
#[derive(Debug, Default)]
struct Sandbox {
    relays: Vec<Relay>,
    shared: Rc<Shared>,
}

/// What a sandbox's connections know of it.
#[derive(Debug, Default)]
struct Shared {
    /// Told when they have to end.
    gone: Notify,
    connections: Count,
    flows: Count,
}

type Count = Rc<Cell<usize>>;

/// What is relayed whereto.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    sandboxes: RefCell<HashMap<String, Sandbox>>,
    /// Relays of which not all parts have come.
    coming: RefCell<HashMap<String, Vec<Relay>>>,
    listeners: RefCell<Option<Listeners>>,
    own: own::Sockets,
    connections: Count,
    flow_count: Count,
    flows: udp::Flows,
}

/// Where a connection goes, and to whom.
struct Way {
    target: SocketAddr,
    to: Rc<Shared>,
}

/// One of those that there may be so many of.
#[derive(Debug)]
struct Counted([Count; 2]);

impl Counted {
    /// One more of all and of a sandbox's, which may have a quarter of them.
    fn one(all: &Count, of_one: &Count, most: usize) -> Option<Self> {
        if all.get() >= most || of_one.get() >= most.div_ceil(4) {
            return None;
        }
        let counts = [all, of_one].map(Rc::clone);
        for count in &counts {
            count.set(count.get() + 1);
        }
        Some(Self(counts))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for count in &self.0 {
            count.set(count.get() - 1);
        }
    }
}

/// Says what went wrong, where somebody may read it: the daemon whose standard error this is may be gone.
fn complain(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "gantry-netd: {what}");
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    usize::try_from(files.current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

impl Relays {
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.borrow().is_empty()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.sandboxes.borrow().keys().cloned().collect()
    }

    /// Takes a part (the first, the last) of a sandbox's relays; the last part puts them in the place of those of before.
    /// Connections go on; flows of datagrams end where they would go elsewhere now.
    ///
    /// # Errors
    /// In words for clients, when a port that is new cannot be listened on, unless `patient`; all is as before then.
    pub(crate) async fn put(
        self: &Rc<Self>,
        id: String,
        part: Vec<Relay>,
        [first, last]: [bool; 2],
        patient: bool,
    ) -> Result<(), String> {
        let mut all = match first {
            true => Vec::new(),
            false => self.coming.borrow_mut().remove(&id).unwrap_or_default(),
        };
        all.extend(part);
        if !last {
            self.coming.borrow_mut().insert(id, all);
            return Ok(());
        }
        let _changing = self.own.changing().await;
        let before = self.of(&id);
        own::exchange(self, &before, &all, patient).await?;
        {
            let mut sandboxes = self.sandboxes.borrow_mut();
            if !all.is_empty() || sandboxes.contains_key(&id) {
                sandboxes.entry(id).or_default().relays = all;
            }
        }
        self.end_flows();
        Ok(())
    }

    /// Ends flows of datagrams that would go elsewhere now.
    fn end_flows(&self) {
        self.flows
            .end_unless(|at, target| self.way(true, at).is_some_and(|way| way.target == target));
    }

    /// All that is relayed.
    fn all(&self) -> Vec<Relay> {
        let sandboxes = self.sandboxes.borrow();
        sandboxes
            .values()
            .flat_map(|s| &s.relays)
            .copied()
            .collect()
    }

    fn of(&self, id: &str) -> Vec<Relay> {
        let sandboxes = self.sandboxes.borrow();
        sandboxes
            .get(id)
            .map(|s| s.relays.clone())
            .unwrap_or_default()
    }

    /// Forgets a sandbox's relays, ends its connections and closes its sockets.
    pub(crate) async fn remove(self: &Rc<Self>, id: &str) {
        let _changing = self.own.changing().await;
        let removed = self.sandboxes.borrow_mut().remove(id);
        self.coming.borrow_mut().remove(id);
        if let Some(sandbox) = removed {
            sandbox.shared.gone.notify_waiters();
            self.end_flows();
            own::close(self, &sandbox.relays).await;
        }
    }

    fn way(&self, udp: bool, at: SocketAddr) -> Option<Way> {
        let sandboxes = self.sandboxes.borrow();
        let all = sandboxes
            .values()
            .flat_map(|s| s.relays.iter().map(move |relay| (relay, s)));
        let (relay, sandbox) = all
            .filter(|(relay, _)| relay.covers(udp, at))
            // A certain address before any address.
            .min_by_key(|(relay, _)| relay.host.ip().is_unspecified())?;
        Some(Way {
            target: relay.target_of(at),
            to: Rc::clone(&sandbox.shared),
        })
    }

    /// The sockets that relayed ports are led to, made when they are first asked for.
    pub(crate) fn listen(self: &Rc<Self>) -> io::Result<Listeners> {
        if let Some(listeners) = *self.listeners.borrow() {
            return Ok(listeners);
        }
        let (tcp4, udp4) = self.listen_at(Ipv4Addr::LOCALHOST.into())?;
        // A host need not have IPv6; nothing is led there then.
        let (tcp6, udp6) = self
            .listen_at(Ipv6Addr::LOCALHOST.into())
            .unwrap_or_default();
        let listeners = Listeners {
            tcp4,
            udp4,
            tcp6,
            udp6,
        };
        *self.listeners.borrow_mut() = Some(listeners);
        Ok(listeners)
    }

    fn listen_at(self: &Rc<Self>, ip: IpAddr) -> io::Result<(u16, u16)> {
        let (tcp, udp) = (TcpListener::bind((ip, 0))?, UdpSocket::bind((ip, 0))?);
        let (at_tcp, at_udp) = (tcp.local_addr()?, udp.local_addr()?);
        socket::make_transparent(&tcp, at_tcp, false)?;
        socket::make_transparent(&udp, at_udp, true)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let udp = tokio::net::UdpSocket::from_std(udp)?;
        spawn_local(tcp::serve(tcp, Rc::clone(self)));
        spawn_local(udp::serve(Rc::new(udp), true, Rc::clone(self)));
        Ok((at_tcp.port(), at_udp.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(host: &str, target: &str, more: u16) -> Relay {
        Relay {
            udp: false,
            host: host.parse().unwrap(),
            target: target.parse().unwrap(),
            more,
            listen: false,
        }
    }

    async fn put(relays: &Rc<Relays>, id: &str, relay: Relay, part: [bool; 2]) {
        let put = relays.put(id.into(), vec![relay], part, false);
        put.await.unwrap();
    }

    fn target(relays: &Relays, udp: bool, at: &str) -> Option<String> {
        let way = relays.way(udp, at.parse().unwrap())?;
        Some(way.target.to_string())
    }

    #[tokio::test]
    async fn rows_of_ports_and_certain_addresses() {
        const WHOLE: [bool; 2] = [true; 2];
        let relays = Rc::new(Relays::default());
        put(&relays, "a", relay("[::]:8000", "10.0.0.2:80", 9), WHOLE).await;
        put(&relays, "b", relay("[::1]:8005", "10.0.0.3:81", 0), WHOLE).await;
        let at = |at| target(&relays, false, at);
        assert_eq!(at("[::1]:8000").as_deref(), Some("10.0.0.2:80"));
        assert_eq!(at("[fd00::1]:8009").as_deref(), Some("10.0.0.2:89"));
        assert_eq!(at("[::1]:8005").as_deref(), Some("10.0.0.3:81"));
        assert_eq!(at("[::1]:8010"), None);
        assert_eq!(at("127.0.0.1:8000"), None);
        assert_eq!(target(&relays, true, "[::1]:8000"), None);
        let (one, two) = (
            relay("[::]:9000", "10.0.0.2:80", 0),
            relay("[::]:9001", "10.0.0.2:81", 0),
        );
        put(&relays, "a", one, [true, false]).await;
        assert!(at("[::1]:8000").is_some(), "not all has come yet");
        put(&relays, "a", two, [false, true]).await;
        assert_eq!((at("[::1]:8000"), relays.ids().len()), (None, 2));
        assert_eq!(at("[::1]:9001").as_deref(), Some("10.0.0.2:81"));
        relays.remove("a").await;
        relays.remove("b").await;
        assert!(relays.is_empty());
    }

    #[test]
    fn one_sandbox_has_a_quarter_at_most() {
        let (all, one, other) = (Count::default(), Count::default(), Count::default());
        let count = |of| std::iter::from_fn(|| Counted::one(&all, of, 8)).collect::<Vec<_>>();
        let first = count(&one);
        assert_eq!((first.len(), count(&other).len()), (2, 2));
        drop(first);
        assert_eq!((all.get(), one.get()), (0, 0));
    }
}
