//! Copies that a power cut may have torn.
//!
//! A copy is not flushed when it is made: containers would wait for the disk. Until it is, a mark beside it says in which
//! boot it was made; when a later boot finds the mark, the copy is as good as never made. Marks are made before records, and
//! file systems keep that order.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_plugin_sdk::Log;

/// The mark's name in a snapshot's directory.
const MARK: &str = "unsynced";
/// How long a copy waits to be flushed: copies of containers that are gone by then need not be.
const DELAY: Duration = Duration::from_secs(5);

/// Flushes copies in the background.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
}

struct Shared {
    boot: String,
    /// On the file system to flush.
    root: PathBuf,
    waiting: Mutex<Waiting>,
    log: Log,
}

#[derive(Default)]
struct Waiting {
    dirs: Vec<PathBuf>,
    /// Whether a thread will see them.
    watched: bool,
}

impl Flusher {
    pub(crate) fn new(root: PathBuf, log: Log) -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            shared: Arc::new(Shared {
                boot,
                root,
                waiting: Mutex::default(),
                log,
            }),
        })
    }

    /// The snapshots with a mark of another boot. Those of this one are flushed.
    pub(crate) fn torn(&self) -> io::Result<Vec<PathBuf>> {
        let mut torn = Vec::new();
        for entry in fs::read_dir(&self.shared.root)? {
            let dir = entry?.path();
            match fs::read_to_string(dir.join(MARK)) {
                Ok(boot) if boot == self.shared.boot => self.flush_later(dir),
                Ok(_) => torn.push(dir),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(torn)
    }

    /// Marks a copy that is about to be complete.
    pub(crate) fn mark(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(MARK), &self.shared.boot)
    }

    /// Flushes a copy some time, and takes its mark away.
    pub(crate) fn flush_later(&self, dir: PathBuf) {
        {
            let mut waiting = self.shared.lock();
            waiting.dirs.push(dir);
            if std::mem::replace(&mut waiting.watched, true) {
                return;
            }
        }
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || shared.run());
        if let Err(error) = started {
            // The next copy tries again; until then the marks stay.
            self.shared.lock().watched = false;
            self.shared.failed(&error);
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            std::thread::sleep(DELAY);
            let dirs = {
                let mut waiting = self.lock();
                if waiting.dirs.is_empty() {
                    waiting.watched = false;
                    return;
                }
                std::mem::take(&mut waiting.dirs)
            };
            // Those of containers that are gone are not there any more.
            let dirs: Vec<_> = dirs.into_iter().filter(|dir| dir.exists()).collect();
            if dirs.is_empty() {
                continue;
            }
            if let Err(error) = self.flush(&dirs) {
                self.failed(&error);
            }
        }
    }

    fn flush(&self, dirs: &[PathBuf]) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?)?;
        for dir in dirs {
            unmark(dir)?;
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) {
        self.log.warn(format!("flushing copies: {error}"));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the mark of a copy that is on the disk away.
pub(crate) fn unmark(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
