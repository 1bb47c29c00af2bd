//! The execs that there are: those that run, and those that somebody may still ask about.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::{ContainerId, ExecId};
use gantry_runtime::ExecProcess;
use gantry_wire as wire;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{EngineError, Result};

/// How long an exec that has ended, or was never started, is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How often it is looked for those that may be forgotten.
const LOOK: Duration = Duration::from_secs(10);

/// How far an exec is, as far as others wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Runs,
    /// Its end has been noted.
    Ended,
}

#[derive(Default)]
pub(super) struct Progress {
    pub(super) started: bool,
    pub(super) process: Option<Arc<ExecProcess>>,
    pub(super) pid: i32,
    pub(super) exit_code: Option<i32>,
    /// Since when it may be forgotten.
    pub(super) idle: Option<Instant>,
}

/// One exec.
pub(crate) struct Exec {
    pub(super) id: ExecId,
    pub(super) container: ContainerId,
    pub(super) request: wire::ExecCreateRequest,
    pub(super) progress: Mutex<Progress>,
    pub(super) stage: watch::Sender<Stage>,
}

/// All execs of the engine.
#[derive(Default)]
pub(crate) struct Execs(Mutex<Known>);

#[derive(Default)]
struct Known {
    execs: HashMap<ExecId, Arc<Exec>>,
    /// When it was last looked for those that may be forgotten.
    looked: Option<Instant>,
}

impl Execs {
    pub(super) fn add(&self, exec: Arc<Exec>) {
        let mut known = self.0.lock();
        let now = Instant::now();
        let due = |at: Instant| now.duration_since(at) >= LOOK;
        if known.looked.is_none_or(due) {
            known.looked = Some(now);
            known.execs.retain(|_, exec| {
                let idle = exec.progress.lock().idle;
                idle.is_none_or(|since| now.duration_since(since) < REMEMBERED)
            });
        }
        known.execs.insert(exec.id.clone(), exec);
    }

    pub(super) fn get(&self, id: &str) -> Result<Arc<Exec>> {
        let missing = || EngineError::not_found(format!("No such exec instance: {id}"));
        let key: ExecId = id.parse().map_err(|_| missing())?;
        self.0.lock().execs.get(&key).cloned().ok_or_else(missing)
    }

    /// Identifiers of a container's execs that run.
    pub(crate) fn running(&self, container: &ContainerId) -> Vec<String> {
        let known = self.0.lock();
        let mut ids: Vec<String> = known
            .execs
            .values()
            .filter(|e| e.container == *container && e.progress.lock().process.is_some())
            .map(|e| e.id.to_string())
            .collect();
        ids.sort();
        ids
    }

    /// The container has ended, and its execs with it.
    pub(crate) fn ended(&self, container: &ContainerId) {
        let known = self.0.lock();
        for exec in known.execs.values().filter(|e| e.container == *container) {
            let mut progress = exec.progress.lock();
            progress.idle.get_or_insert_with(Instant::now);
        }
    }

    /// The container is gone.
    pub(crate) fn removed(&self, container: &ContainerId) {
        // Those that run still tell their exit code to whoever holds them.
        self.0.lock().execs.retain(|_, e| e.container != *container);
    }
}
