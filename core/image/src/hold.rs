//! Operations whose blobs have no lease.

use gantry_content::Hold;

use crate::service::Shared;

/// Protects what comes in while it lives. Dropped without [`Held::settle`], it removes what has come and is nobody's.
pub(crate) struct Held<'a> {
    shared: &'a Shared,
    hold: Option<Hold<'a>>,
    settled: bool,
}

impl Shared {
    /// Protects what comes in from now on.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held {
            shared: self,
            hold: Some(self.content.hold()),
            settled: false,
        }
    }
}

impl Shared {
    /// Removes what is nobody's, on the way out of an operation that has its own result.
    pub(crate) fn sweep(&self) {
        if let Err(error) = self.collect_blobs() {
            tracing::warn!(%error, "unreferenced content is left behind");
        }
    }
}

impl Held<'_> {
    /// Everything that has come is recorded or leased now.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.hold = None;
        let garbage = !self.settled | self.shared.content.take_deferred();
        if garbage {
            self.shared.sweep();
        }
    }
}
