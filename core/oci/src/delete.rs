//! `delete`: the end of a container.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use gantry_monitor::hooks;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cli::DeleteArgs;
use crate::error::{Context, Error, Result};
use crate::log::Log;
use crate::signal;
use crate::state::{Container, Status};

/// How long a killed process may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command.
pub(crate) fn delete(root: &Path, args: &DeleteArgs, log: &Log) -> Result<()> {
    let container = match Container::open(root, &args.id) {
        Err(Error::NoContainer(_)) if args.force => return Ok(()),
        other => other?,
    };
    match container.status() {
        Status::Stopped => {}
        // Whoever creates or starts it holds the lock until it is dead.
        _ if args.force => kill(&container)?,
        status => {
            return Err(Error::refused(format!(
                "cannot delete container {} that is not stopped: {}",
                args.id,
                status.word()
            )));
        }
    }
    let _lock = match container.lock() {
        Err(Error::NoContainer(_)) if args.force => return Ok(()),
        other => other?,
    };
    remove(&container, log)
}

/// Kills a container and waits until it is dead.
fn kill(container: &Container) -> Result<()> {
    let process = match container.process() {
        Ok(process) => process,
        // It is being created, or just died.
        Err(_) => return Ok(container.group()?.kill_all()?),
    };
    match signal::send(container, libc::SIGKILL) {
        Err(Error::NotRunning) => return Ok(()),
        other => other?,
    }
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE)
        .map_err(|_| Error::refused("the patience of delete is out of range"))?;
    let ready = rustix::event::poll(&mut fds, Some(&patience)).context(|| "poll".into())?;
    if ready == 0 {
        return Err(Error::refused(format!(
            "container {} did not die",
            container.record.id
        )));
    }
    Ok(())
}

/// Removes what a dead container has left, and runs its last hooks.
pub(crate) fn remove(container: &Container, log: &Log) -> Result<()> {
    if container.record.cgroup_path.as_os_str().is_empty() {
        // Its `create` was cut off before it made anything.
        return container.remove();
    }
    let group = container.group()?;
    // Without a PID namespace of its own, others may live on.
    group.kill_all()?;
    group.remove()?;
    container.remove()?;
    let hooks = &container.record.hooks;
    hooks::run_each(&hooks.poststop, "poststop", &hooks.state, "stopped", 0)
        .for_each(|e| log.warn(&e));
    Ok(())
}
