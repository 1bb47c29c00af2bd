//! The lock under which a layout is changed.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::layout::{Layout, WORK};

/// How long to wait for other engines when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);

/// Held until dropped, and gone with the process that held it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: OwnedFd,
}

impl Layout {
    /// Keeps every other change of this layout away, of whatever engine.
    pub(crate) fn lock(&self, call: &Call<'_>) -> DriverResult<Lock> {
        // A file rather than the directory: NFS locks only what is open for writing.
        let file = self.open_file(&format!("{WORK}/lock"), OFlags::RDWR | OFlags::CREATE)?;
        let now = Instant::now();
        let until = now
            + call
                .timeout
                .map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(TICK),
                Err(Errno::WOULDBLOCK) => {
                    return Err(DriverError::new(
                        ErrorCode::Unavailable,
                        "another engine holds the layout's lock",
                    ));
                }
                Err(error) => return Err(crate::doing("locking the layout", error)),
            }
        }
    }
}
