//! Links whose removal was answered before the kernel was done.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gantry_sys::netlink::{Change, RouteSocket};

use crate::Log;

#[derive(Debug, Default)]
struct Pending {
    links: Mutex<HashSet<String>>,
    fewer: Condvar,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, link: &str) {
        self.lock().remove(link);
        self.fewer.notify_all();
    }

    fn wait_while(&self, busy: impl Fn(&HashSet<String>) -> bool) {
        let waited = self.fewer.wait_while(self.lock(), |links| busy(links));
        drop(waited);
    }
}

/// Removes links on threads of their own: a bridge takes the kernel some 30 ms.
#[derive(Debug)]
pub struct Removals {
    pending: Arc<Pending>,
    log: Log,
}

fn remove(link: &str) -> std::io::Result<()> {
    let mut socket = RouteSocket::open()?;
    if let Some(found) = socket.link(link)? {
        socket.apply(vec![Change::delete(found.index)])?;
    }
    Ok(())
}

impl Removals {
    /// With nothing to remove yet. Failures are logged; the driver's next reconciliation finds what was left.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self {
            pending: Arc::default(),
            log,
        }
    }

    /// Removes links soon, in order. They are in the calling thread's namespace.
    pub fn begin(&self, links: &[&str]) {
        let mut pending = self.pending.lock();
        let links: Vec<String> = links
            .iter()
            .filter(|link| pending.insert((**link).to_owned()))
            .map(|link| (*link).to_owned())
            .collect();
        drop(pending);
        if links.is_empty() {
            return;
        }
        let (pending, log, names) = (Arc::clone(&self.pending), self.log.clone(), links.clone());
        let work = move || {
            for name in names {
                if let Err(e) = remove(&name) {
                    log.warn(format!("removing link {name}: {e}"));
                }
                pending.done(&name);
            }
        };
        let spawned = std::thread::Builder::new()
            .name("link-removal".into())
            .stack_size(128 * 1024)
            .spawn(work);
        if let Err(e) = spawned {
            for link in &links {
                self.log.warn(format!("removing link {link}: {e}"));
                self.pending.done(link);
            }
        }
    }

    /// Waits until a name is free again.
    pub fn wait_for(&self, link: &str) {
        self.pending.wait_while(|links| links.contains(link));
    }

    /// Waits until nothing is under way.
    pub fn finish(&self) {
        self.pending.wait_while(|links| !links.is_empty());
    }
}
