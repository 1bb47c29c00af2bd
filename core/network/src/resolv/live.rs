//! The host's resolv.conf, followed into the files of running containers.
//!
//! A thread is told by inotify of changes in the directories of the host's files, and looks by itself now and then: a
//! mount over a file, or a link on the way to one, tells nobody.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gantry_netd::{HostResolv, ResolvConf};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Resolv;
use crate::inner::Inner;
use crate::place::Place;
use crate::{Result, SandboxMode, files};

/// How often the files are looked at when nothing is heard.
const LOOK: Duration = Duration::from_secs(10);
/// The same where the kernel has no more inotify instances to give, and after a change: a sandbox that was being made
/// meanwhile may have read what was there before.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// How long a file is given to be written whole.
const SETTLED: Duration = Duration::from_millis(100);

impl Inner {
    /// Follows the host's file, from a thread of its own, until the service ends.
    pub(crate) fn follow_host(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        let started = std::thread::Builder::new()
            .name("resolv-watch".into())
            .stack_size(256 * 1024)
            .spawn(move || follow(&inner));
        if let Err(error) = started {
            self.warn(format!("the host's resolv.conf is not followed: {error}"));
        }
    }

    /// Gives every running container what the host's file says by now, unless its servers are its own. Whether all have it.
    fn pass_on(&self, host: &ResolvConf) -> bool {
        let mut all = true;
        let slots: Vec<_> = self.sandboxes.lock().values().cloned().collect();
        for slot in slots {
            let mut place = slot.place.lock();
            if place.gone {
                continue;
            }
            if let Err(error) = self.renew(&mut place, host) {
                let container = &place.spec().container;
                tracing::warn!(%container, %error, "its resolv.conf is not as the host's");
                all = false;
            }
        }
        all
    }

    fn renew(&self, place: &mut Place, host: &ResolvConf) -> Result<()> {
        let resolv = Resolv::from(host.clone()).for_container(&self.config, place.spec());
        if !resolv.follows_host {
            return Ok(());
        }
        place.resolv = resolv;
        let text = match place.spec().mode {
            // Its files are the other container's.
            SandboxMode::Container(_) => return Ok(()),
            SandboxMode::Host => place.resolv.text(),
            SandboxMode::Own => place.own_resolv(),
        };
        let rewritten = self.rewrite_resolv(place, text)?;
        let container = place.spec().container.as_str();
        match rewritten && self.saved.has(container) {
            true => self.saved.put(container, &place.saved),
            false => Ok(()),
        }
    }

    /// Gives a sandbox another `resolv.conf`, unless somebody edited it. Before it is written, both texts are written down:
    /// whichever the next daemon finds after a crash is known to be the engine's. Returns whether it did; the caller then writes the sandbox down.
    pub(crate) fn rewrite_resolv(&self, place: &mut Place, text: String) -> Result<bool> {
        if place.saved.resolv == text && place.saved.resolv_before.is_none() {
            return Ok(false);
        }
        let before = std::mem::replace(&mut place.saved.resolv, text);
        let mut ours = vec![before];
        ours.extend(place.saved.resolv_before.take());
        let container = place.spec().container.to_string();
        place.saved.resolv_before = ours.first().cloned();
        // One that is not yet written down is forgotten after a crash.
        if self.saved.has(&container) {
            self.saved.put(&container, &place.saved)?;
        }
        ours.push(place.saved.resolv.clone());
        let texts: Vec<&str> = ours.iter().map(String::as_str).collect();
        let written = files::rewrite_resolv(&place.files, &place.saved.resolv, &texts);
        if let Err(error) = written {
            // The file has what it had, or, where that was cut off, what was to be written.
            place.saved.resolv = ours.swap_remove(0);
            place.saved.resolv_before = ours.pop();
            return Err(error);
        }
        place.saved.resolv_before = None;
        Ok(true)
    }
}

impl Place {
    /// What `resolv.conf` of a sandbox with a namespace of its own is to say.
    pub(crate) fn own_resolv(&self) -> String {
        let v6 = self.endpoints().iter().any(|e| e.info.ipv6.is_some());
        self.resolv.own_text(self.asks_netd(), v6)
    }
}

fn follow(inner: &Weak<Inner>) {
    let mut host = HostResolv::default();
    let mut passed_on = ResolvConf::default();
    let mut once_more = false;
    loop {
        let watch = watch();
        match inner.upgrade() {
            Some(inner) if !*inner.shared.closed.lock() => {
                let now = host.now();
                let changed = *now != passed_on;
                let due = (changed || once_more) && !now.servers.is_empty();
                let done = !due || inner.pass_on(now);
                once_more = changed && done;
                // What failed is tried again at the next look.
                passed_on = if done {
                    now.clone()
                } else {
                    ResolvConf::default()
                };
            }
            _ => return,
        }
        let soon = once_more || watch.is_none();
        let heard = wait(watch, if soon { LOOK_SOON } else { LOOK });
        if heard {
            std::thread::sleep(SETTLED);
        }
    }
}

/// Begins to hear of changes; none where that is not to be had.
fn watch() -> Option<OwnedFd> {
    let changes = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    let watch = inotify::init(CreateFlags::CLOEXEC).ok()?;
    let mut watched = 0;
    for file in HostResolv::FILES.map(Path::new) {
        // A link and what it leads to; what is not there may come.
        let target = std::fs::canonicalize(file).unwrap_or_else(|_| PathBuf::from(file));
        for path in [file.parent(), target.parent(), Some(target.as_path())] {
            let added = path.map(|path| inotify::add_watch(&watch, path, changes));
            watched += usize::from(matches!(added, Some(Ok(_))));
        }
    }
    (watched > 0).then_some(watch)
}

/// Waits for a change, but not longer; whether there was one.
fn wait(watch: Option<OwnedFd>, longest: Duration) -> bool {
    let Some(watch) = watch else {
        std::thread::sleep(longest);
        return false;
    };
    let longest = Timespec {
        tv_sec: longest.as_secs().cast_signed(),
        tv_nsec: longest.subsec_nanos().into(),
    };
    let mut waited = [PollFd::new(&watch, PollFlags::IN)];
    rustix::event::poll(&mut waited, Some(&longest)).is_ok_and(|ready| ready > 0)
}
