//! A reader that tells how far it has come.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// How often.
const TICK: Duration = Duration::from_millis(100);

/// Counts what is read, and tells now and then.
pub(super) struct Counted<R, F, C> {
    pub(super) inner: R,
    pub(super) done: u64,
    pub(super) told: Instant,
    pub(super) report: F,
    /// Ends the stream with an error when it says so.
    pub(super) cancelled: C,
}

impl<R: Read, F: FnMut(u64), C: Fn() -> bool> Read for Counted<R, F, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        if count == 0 {
            (self.report)(self.done);
        } else if self.told.elapsed() >= TICK {
            self.told = Instant::now();
            (self.report)(self.done);
            if (self.cancelled)() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(count)
    }
}
