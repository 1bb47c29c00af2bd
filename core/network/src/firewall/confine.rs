//! What the engine's parts ask of the limits of sandboxes with an egress list.

use std::collections::BTreeMap;
use std::io;

use gantry_sys::nft::Event;

use super::Firewall;
use super::egress::{Confined, Egress};

impl Firewall {
    /// The table that netd adds the addresses of names to.
    pub(crate) fn egress_table(&self) -> String {
        let table = self
            .egress
            .as_ref()
            .map(|egress| egress.lock().table.clone());
        table.unwrap_or_default()
    }

    /// Says who is to open ways for names again when they had to be closed. Once.
    pub(crate) fn when_closed(&self, open: impl Fn() + Send + Sync + 'static) {
        let _ = self.closed.set(Box::new(open));
    }

    pub(super) fn with_egress(
        &self,
        work: impl FnOnce(&mut Egress) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(egress) = &self.egress else {
            return Ok(());
        };
        let mut egress = egress.lock();
        let done = work(&mut egress);
        let closed = std::mem::take(&mut egress.closed);
        drop(egress);
        if closed && let Some(open) = self.closed.get() {
            open();
        }
        done
    }

    /// Limits where a sandbox may go.
    pub(crate) fn confine(&self, sandbox: &str, confined: Confined) -> io::Result<()> {
        self.with_egress(|egress| egress.confine(sandbox, confined))
    }

    /// Forgets the limits of a sandbox.
    pub(crate) fn release(&self, sandbox: &str) -> io::Result<()> {
        self.with_egress(|egress| egress.release(sandbox))
    }

    /// Makes these be all the limits there are.
    pub(crate) fn set_confined(&self, all: BTreeMap<String, Confined>) -> io::Result<()> {
        self.with_egress(|egress| egress.restore(all))
    }

    /// Makes the egress tables again if somebody removed them, or, `damaged`, something in them.
    pub(super) fn repair_egress(&self, damaged: bool) -> io::Result<()> {
        self.with_egress(|egress| egress.repair(damaged))
    }

    /// Whether somebody else removed something from the egress tables that they keep; what names open comes and goes.
    pub(super) fn is_egress_damaged(&self, events: &[Event]) -> bool {
        let egress = self.egress.as_ref().map(|egress| egress.lock());
        egress.is_some_and(|egress| events.iter().any(|event| egress.is_damage(event)))
    }
}
