//! Links that go with their namespaces: the kernel takes them along when the last one leaves, and nobody waits for it.
//!
//! Who stays in such a namespace, or has it mounted, must not keep its links, whose addresses are another's soon. So it is
//! looked a little later whether they have gone. A new link that has the address of one that is going is not made before
//! that has gone: the kernel answers for it to the last.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// How long a namespace may take to end. The kernel needs some 10 to 30 ms. Core gives the addresses to nobody else for
/// three times as long, unless it has no others.
const ENDING: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Queue {
    /// Links, and when each is looked for.
    going: VecDeque<(Instant, String)>,
    /// Those that are being looked for.
    due: Vec<String>,
    /// The addresses of links, as far as this process has made them.
    addresses: HashMap<String, Vec<IpAddr>>,
    /// Somebody waits for them.
    hurry: bool,
    /// There is a thread.
    working: bool,
}

/// Links whose namespaces end.
#[derive(Debug, Clone, Default)]
pub(super) struct Endings {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<Condvar>,
}

impl Endings {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the addresses of a new link. Those that have one of them still, in a namespace that ends, are told, and so is
    /// one of its name, which is not looked for any more.
    pub(super) fn come(&self, link: &str, addresses: &[IpNet]) -> Vec<String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        let is_due = |queue: &mut Queue| queue.due.iter().any(|due| due == link);
        let waited = self.changed.wait_while(self.lock(), is_due);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        let in_the_way = |going: &&String| {
            let had = queue.addresses.get(*going);
            *going == link || had.is_some_and(|had| had.iter().any(|ip| addresses.contains(ip)))
        };
        let going = queue.going.iter().map(|(_, link)| link);
        let in_the_way = going.filter(in_the_way).cloned().collect();
        queue.going.retain(|(_, going)| going != link);
        queue.addresses.insert(link.to_owned(), addresses);
        in_the_way
    }

    /// A link is gone.
    pub(super) fn forget(&self, link: &str) {
        self.lock().addresses.remove(link);
    }

    /// Has a link removed by `remove`, on another thread, if it is still there by then.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn add(
        &self,
        link: String,
        remove: impl Fn(&[&str]) + Send + 'static,
    ) -> io::Result<()> {
        let mut queue = self.lock();
        queue.going.push_back((Instant::now() + ENDING, link));
        if queue.working {
            return Ok(());
        }
        let endings = self.clone();
        let spawned = std::thread::Builder::new()
            .name("link-ending".into())
            .stack_size(128 * 1024)
            .spawn(move || endings.work(&remove));
        queue.working = spawned.is_ok();
        if spawned.is_err() {
            queue.going.clear();
        }
        spawned.map(drop)
    }

    fn work(&self, remove: &impl Fn(&[&str])) {
        while let Some(due) = self.next() {
            remove(&due.iter().map(String::as_str).collect::<Vec<_>>());
            let mut queue = self.lock();
            queue.due.clear();
            queue.addresses.retain(|link, _| !due.contains(link));
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// The links that are due, once there are some; none when there is nothing to wait for.
    fn next(&self) -> Option<Vec<String>> {
        let mut queue = self.lock();
        loop {
            let Some((first, _)) = queue.going.front() else {
                queue.hurry = false;
                queue.working = false;
                return None;
            };
            let now = Instant::now();
            let rest = first.saturating_duration_since(now);
            if queue.hurry || rest.is_zero() {
                let is_due = |(at, _): &&(Instant, String)| queue.hurry || *at <= now;
                let count = queue.going.iter().take_while(is_due).count();
                let due = queue.going.drain(..count).map(|(_, link)| link);
                let due: Vec<String> = due.collect();
                queue.due.clone_from(&due);
                return Some(due);
            }
            let waited = self.changed.wait_timeout(queue, rest);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until every link has been looked for, which is done at once.
    pub(super) fn finish(&self) {
        let mut queue = self.lock();
        queue.hurry = queue.working;
        self.changed.notify_all();
        let is_busy =
            |queue: &mut Queue| queue.working && !(queue.going.is_empty() && queue.due.is_empty());
        drop(self.changed.wait_while(queue, is_busy));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use gantry_sys::netlink::{Change, NewVeth, RouteSocket};
    use gantry_sys::netns;

    use super::super::Removals;
    use crate::Log;

    /// Makes a pair for each name; the other ends are in the namespace that is returned.
    fn pairs(names: &[&str]) -> std::os::fd::OwnedFd {
        let (inner, ()) = netns::create(|| Ok(())).unwrap();
        let pair = |name: &&str| {
            Change::veth(&NewVeth {
                name,
                master: 0,
                mtu: 0,
                peer: name,
                peer_mac: None,
                peer_netns: inner.as_fd(),
                up: true,
            })
        };
        let mut socket = RouteSocket::open().unwrap();
        socket.apply(names.iter().map(pair).collect()).unwrap();
        inner
    }

    fn is_there(name: &str) -> bool {
        RouteSocket::open().unwrap().link(name).unwrap().is_some()
    }

    #[test]
    fn who_stays_in_a_namespace_does_not_keep_its_links() {
        let root = tempfile::tempdir().unwrap();
        netns::create(|| {
            let removals = Removals::open(root.path(), "0badcafe", Log::none()).unwrap();
            let kept = pairs(&["one", "two"]);
            let ended = pairs(&["three"]);
            for name in ["one", "three"] {
                removals.leave(name.into(), false).unwrap();
            }
            drop(ended);
            for _ in 0..500 {
                if !is_there("one") && !is_there("three") {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert_eq!(["one", "two", "three"].map(is_there), [false, true, false]);
            let inside = netns::inside(&kept, || RouteSocket::open()?.links())?;
            assert!(inside.iter().all(|link| link.name != "one"), "{inside:?}");
            // Whoever ends waits for it, and not for long.
            removals.leave("two".into(), false).unwrap();
            removals.finish();
            assert!(!is_there("two"));
            drop(kept);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_link_that_comes_again_stays() {
        let root = tempfile::tempdir().unwrap();
        netns::create(|| {
            let removals = Removals::open(root.path(), "0badcafe", Log::none()).unwrap();
            removals.leave("one".into(), false).unwrap();
            removals.join("one", &[]);
            let kept = pairs(&["one"]);
            removals.finish();
            std::thread::sleep(super::ENDING * 2);
            assert!(is_there("one"));
            drop(kept);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_new_link_has_its_addresses_for_itself() {
        let root = tempfile::tempdir().unwrap();
        netns::create(|| {
            let removals = Removals::open(root.path(), "0badcafe", Log::none()).unwrap();
            let kept = pairs(&["one", "two", "three"]);
            let addresses = ["10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24"];
            let addresses = addresses.map(|net| [net.parse().unwrap()]);
            for (name, addresses) in ["one", "two", "three"].iter().zip(&addresses) {
                removals.join(name, addresses);
            }
            for name in ["one", "two"] {
                removals.leave(name.into(), false).unwrap();
            }
            removals.join("new", &addresses[0]);
            assert_eq!(["one", "two", "three"].map(is_there), [false, true, true]);
            removals.leave("three".into(), true).unwrap();
            assert!(!is_there("three"));
            removals.finish();
            assert!(!is_there("two"));
            drop(kept);
            Ok(())
        })
        .unwrap();
    }
}
