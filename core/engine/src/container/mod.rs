//! One container as an object: its record, its queue, and who waits for it.

pub mod record;
pub mod restart;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_model::{ContainerId, ExecId};
use gantry_runtime::Process;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::attach::Pending;
use crate::exec::Exec;
use record::Record;
use restart::Backoff;

/// What waiters watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How often it has ended.
    pub exits: u64,
    /// How it last ended.
    pub exit_code: i32,
    /// Whether Docker calls it running.
    pub running: bool,
    /// Whether it is gone.
    pub removed: bool,
}

/// What belongs to a container as long as the daemon lives.
#[derive(Default)]
pub struct Live {
    /// Its process.
    pub process: Option<Arc<Process>>,
    /// Clients that attached before the start.
    pub pending: Vec<Pending>,
    /// Its restart policy's delays.
    pub backoff: Backoff,
    /// A client stopped it: the policy does not apply to the coming end.
    pub stopping: bool,
    /// Processes executed in it that are wanted or run.
    pub execs: HashMap<ExecId, Arc<Exec>>,
    /// Stops the health checks and the delayed restart of this run.
    pub background: Option<tokio::task::AbortHandle>,
}

/// A container. Life-cycle steps take [`Container::queue`]; readers take [`Container::record`] and never wait.
pub struct Container {
    /// Identifier.
    pub id: ContainerId,
    /// Life-cycle steps of one container are serial; the lock is fair.
    pub queue: tokio::sync::Mutex<()>,
    record: ArcSwap<Record>,
    /// Serialises writers of the record.
    writer: Mutex<()>,
    /// See [`Live`].
    pub live: Mutex<Live>,
    progress: watch::Sender<Progress>,
}

impl Container {
    /// A container with this record.
    #[must_use]
    pub fn new(record: Record) -> Arc<Self> {
        let progress = Progress {
            exits: 0,
            exit_code: record.state.exit_code,
            running: record.state.phase.is_running(),
            removed: false,
        };
        Arc::new(Self {
            id: record.id.clone(),
            queue: tokio::sync::Mutex::new(()),
            record: ArcSwap::from_pointee(record),
            writer: Mutex::new(()),
            live: Mutex::new(Live::default()),
            progress: watch::Sender::new(progress),
        })
    }
    /// Its present state.
    #[must_use]
    pub fn record(&self) -> Arc<Record> {
        self.record.load_full()
    }
    /// Changes the record and publishes the outcome.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Arc<Record> {
        let _writer = self.writer.lock();
        let mut record = Record::clone(&self.record.load());
        change(&mut record);
        let record = Arc::new(record);
        self.record.store(record.clone());
        record
    }
    /// Its process, when it has one.
    #[must_use]
    pub fn process(&self) -> Option<Arc<Process>> {
        self.live.lock().process.clone()
    }
    /// Watches ends and removal.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
    /// Tells the watchers.
    pub fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
    /// What watchers see.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }
}
