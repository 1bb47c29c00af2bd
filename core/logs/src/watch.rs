//! Noticing that a log grew.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// How often a log is looked at when the kernel tells nothing.
const POLL: Duration = Duration::from_millis(250);

/// Registers a descriptor with the event loop.
#[expect(
    deprecated,
    reason = "unsound for types that do not own their descriptor; an `OwnedFd` does"
)]
fn pollable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Notices writes to, and renames of, the files in a log's directory.
#[derive(Debug)]
pub(crate) enum Watch {
    Told(AsyncFd<OwnedFd>),
    /// The user's inotify instances (128 by default) are used up.
    Polled,
}

impl Watch {
    /// Begins to watch: what comes from here on is noticed.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let notify = match inotify::init(flags) {
            Err(Errno::MFILE) => return Ok(Self::Polled),
            notify => notify?,
        };
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        match inotify::add_watch(&notify, directory, events) {
            Err(Errno::NOSPC) => return Ok(Self::Polled),
            watch => drop(watch?),
        }
        pollable(notify).map(Self::Told)
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let Self::Told(notify) = self else {
            tokio::time::sleep(POLL).await;
            return Ok(());
        };
        let mut ready = notify.readable().await?;
        let mut events = [0u8; 4096];
        // What happened does not matter: the reader looks at everything. Emptying the queue rearms the descriptor.
        while let Ok(read) = rustix::io::read(notify.get_ref(), &mut events) {
            if read == 0 {
                break;
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
