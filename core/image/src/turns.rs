//! Taking turns by name.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::{Error, Result};

/// At most one holder for each name.
#[derive(Default)]
pub(crate) struct Turns {
    held: Mutex<HashSet<String>>,
    released: Condvar,
}

/// A turn; ends when dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    name: String,
}

impl Turns {
    /// Waits for the turn of `name`, or until `cancelled`.
    pub(crate) fn lock(&self, name: &str, cancelled: impl Fn() -> bool) -> Result<Turn<'_>> {
        let mut held = self.held.lock();
        while !held.insert(name.to_owned()) {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            self.released
                .wait_for(&mut held, Duration::from_millis(200));
        }
        Ok(Turn {
            turns: self,
            name: name.into(),
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.held.lock().remove(&self.name);
        self.turns.released.notify_all();
    }
}
