//! `start`: the word that a created container waits for.

use std::path::Path;

use gantry_monitor::direct;
use gantry_monitor::hooks;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::state::{Container, Lock, Status};

/// The command.
pub(crate) fn start(root: &Path, id: &str, log: &Log) -> Result<()> {
    let container = Container::open(root, id)?;
    let lock = container.lock()?;
    let container = Container::open(root, id)?;
    match container.status() {
        Status::Created => go(&container, lock, log),
        Status::Stopped => Err(Error::refused("cannot start a container that has stopped")),
        Status::Running | Status::Paused => {
            Err(Error::refused("cannot start an already running container"))
        }
        Status::Creating => Err(Error::refused(
            "cannot start a container that is being created",
        )),
    }
}

/// Starts a created container, whose lock is held.
pub(crate) fn go(container: &Container, lock: Lock, log: &Log) -> Result<()> {
    let started = direct::start(container.dir()).map_err(Error::Start);
    container.close_gate();
    started?;
    // Its hooks may ask for its state, or delete it.
    drop(lock);
    log.debug(&format!("container {} runs", container.record.id));
    let (hooks, pid) = (&container.record.hooks, container.record.pid);
    hooks::run_each(&hooks.poststart, "poststart", &hooks.state, "running", pid)
        .for_each(|e| log.warn(&e));
    Ok(())
}
