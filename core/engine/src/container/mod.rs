//! One container as an object: its record, its queue, and who waits for it.

pub(crate) mod index;
pub(crate) mod persist;
pub(crate) mod record;
pub(crate) mod restart;

use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_model::ContainerId;
use gantry_runtime::Process;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::attach::Pending;
use record::Record;

/// What waiters watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How often it has ended.
    pub(crate) exits: u64,
    /// How it last ended.
    pub(crate) exit_code: i32,
    /// Whether Docker calls it running.
    pub(crate) running: bool,
    /// Whether it is gone.
    pub(crate) removed: bool,
    /// How often its phase or its health has changed.
    pub(crate) changes: u64,
}

/// What belongs to a container as long as the daemon lives.
#[derive(Default)]
pub(crate) struct Live {
    /// Its process.
    pub(crate) process: Option<Arc<Process>>,
    /// Clients that attached before the start.
    pub(crate) pending: Vec<Pending>,
    /// A client stopped it: the policy does not apply to the coming end.
    pub(crate) stopping: bool,
    /// The coming end is part of a restart: `--rm` does not apply to it.
    pub(crate) restarting: bool,
    /// The coming end is due to bad health.
    pub(crate) unhealthy: bool,
    /// Of this run it has been told that its memory ran out.
    pub(crate) oom_told: bool,
    /// Stops the health checks and the delayed restart of this run.
    pub(crate) background: Option<tokio::task::AbortHandle>,
}

/// A container. Life-cycle steps take [`Container::queue`]; readers take [`Container::record`] and never wait.
pub(crate) struct Container {
    /// Identifier.
    pub(crate) id: ContainerId,
    /// Life-cycle steps of one container are serial; the lock is fair.
    pub(crate) queue: tokio::sync::Mutex<()>,
    record: ArcSwap<Record>,
    /// Serialises writers of the record.
    writer: Mutex<()>,
    /// See [`Live`].
    pub(crate) live: Mutex<Live>,
    progress: watch::Sender<Progress>,
}

impl Container {
    /// A container with this record.
    #[must_use]
    pub(crate) fn new(record: Record) -> Arc<Self> {
        let progress = Progress {
            exits: 0,
            exit_code: record.state.exit_code,
            running: record.state.phase.is_running(),
            removed: false,
            changes: 0,
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
    pub(crate) fn record(&self) -> Arc<Record> {
        self.record.load_full()
    }
    /// Changes the record and publishes the outcome.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Record)) -> Arc<Record> {
        let _writer = self.writer.lock();
        let before = self.record.load();
        let mut record = Record::clone(&before);
        change(&mut record);
        let status = |record: &Record| {
            let health = record.state.health.as_ref();
            (record.state.phase, health.map(|health| health.status))
        };
        let changed = status(&before) != status(&record);
        let record = Arc::new(record);
        self.record.store(record.clone());
        if changed {
            self.tell(|progress| progress.changes += 1);
        }
        record
    }
    /// Its process, when it has one.
    #[must_use]
    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        self.live.lock().process.clone()
    }
    /// Watches ends and removal.
    #[must_use]
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
    /// Tells the watchers.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
    /// What watchers see.
    #[must_use]
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }
}
