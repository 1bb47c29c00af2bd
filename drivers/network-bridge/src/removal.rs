//! Links whose removal was answered before the kernel was done.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_plugin_sdk::Log;
use gantry_plugin_sdk::sys::netlink::{Change, RouteSocket};
use parking_lot::{Condvar, Mutex};

/// Removes links on threads of their own.
#[derive(Debug)]
pub(crate) struct Removals {
    pending: Arc<(Mutex<HashSet<String>>, Condvar)>,
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
    pub(crate) fn new(log: Log) -> Self {
        Self {
            pending: Arc::default(),
            log,
        }
    }

    /// Removes a link soon.
    pub(crate) fn begin(&self, link: &str) {
        if !self.pending.0.lock().insert(link.to_owned()) {
            return;
        }
        let (pending, log, name) = (Arc::clone(&self.pending), self.log.clone(), link.to_owned());
        let work = move || {
            if let Err(e) = remove(&name) {
                log.warn(format!("removing link {name}: {e}"));
            }
            pending.0.lock().remove(&name);
            pending.1.notify_all();
        };
        let spawned = std::thread::Builder::new()
            .name("link-removal".into())
            .stack_size(128 * 1024)
            .spawn(work);
        if let Err(e) = spawned {
            // The next reconciliation finds it.
            self.log.warn(format!("removing link {link}: {e}"));
            self.pending.0.lock().remove(link);
        }
    }

    /// Waits until a name is free again.
    pub(crate) fn wait_for(&self, link: &str) {
        let mut pending = self.pending.0.lock();
        while pending.contains(link) {
            self.pending.1.wait(&mut pending);
        }
    }

    /// Waits until nothing is under way.
    pub(crate) fn finish(&self) {
        let mut pending = self.pending.0.lock();
        while !pending.is_empty() {
            self.pending.1.wait(&mut pending);
        }
    }
}
