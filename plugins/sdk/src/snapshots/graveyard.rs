//! Where snapshots go to be deleted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use super::Number;
use crate::Log;

/// A directory of trees that are as good as gone. What a crash leaves there is deleted by the next start.
#[derive(Debug)]
pub struct Graveyard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    log: Log,
    /// Held while a thread deletes in the background.
    digging: Mutex<()>,
    /// Whether there may be something that no thread has seen.
    fresh: AtomicBool,
}

impl Graveyard {
    /// The graveyard in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, log: Log) -> Self {
        Self {
            shared: Arc::new(Shared {
                dir,
                log,
                digging: Mutex::new(()),
                fresh: AtomicBool::new(false),
            }),
        }
    }

    /// Takes a snapshot's directory over, at once or not at all; none when there is none.
    pub fn take(&self, dir: &Path, number: Number) -> Option<PathBuf> {
        let grave = self.shared.dir.join(number.to_string());
        match fs::rename(dir, &grave) {
            Ok(()) => Some(grave),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.shared.failed(dir, &error);
                None
            }
        }
    }

    /// Deletes a tree that was taken over.
    pub fn delete(&self, grave: &Path) {
        self.shared.delete(grave);
    }

    /// Has everything that was taken over deleted by a thread, which ends when nothing is left.
    pub fn delete_later(&self) {
        let shared = Arc::clone(&self.shared);
        shared.fresh.store(true, Ordering::Release);
        let name = "graveyard".to_owned();
        let started = std::thread::Builder::new()
            .name(name)
            .spawn(move || shared.dig());
        if let Err(error) = started {
            self.shared.failed(&self.shared.dir, &error);
        }
    }
}

impl Shared {
    /// Deletes until nothing fresh is left. A second thread leaves it to the first, which looks again.
    fn dig(&self) {
        while self.fresh.load(Ordering::Acquire) {
            let _digging = match self.digging.try_lock() {
                Ok(guard) => guard,
                Err(std::sync::TryLockError::Poisoned(guard)) => PoisonError::into_inner(guard),
                Err(std::sync::TryLockError::WouldBlock) => return,
            };
            self.fresh.store(false, Ordering::Release);
            match fs::read_dir(&self.dir) {
                Ok(graves) => graves
                    .flatten()
                    .for_each(|grave| self.delete(&grave.path())),
                Err(error) => self.failed(&self.dir, &error),
            }
        }
    }

    fn delete(&self, grave: &Path) {
        match fs::remove_dir_all(grave) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.failed(grave, &error),
            _ => {}
        }
    }

    fn failed(&self, path: &Path, error: &io::Error) {
        self.log
            .warn(format!("deleting {}: {error}", path.display()));
    }
}
