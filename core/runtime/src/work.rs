//! File system work, away from the reactor.

use gantry_sys::cgroup::Group;

use crate::RuntimeError;
use crate::failure::cgroup;
use crate::state::Dir;

/// Runs file system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| RuntimeError::Protocol(format!("a worker failed: {e}")))?
}

/// Takes a container's cgroup and files away. Mostly no process is left: a PID namespace takes all of them along.
pub(crate) fn clear(group: &Group, dir: &Dir) -> Result<(), RuntimeError> {
    if !group.pids().map_err(cgroup)?.is_empty() {
        group.kill_all().map_err(cgroup)?;
    }
    group.remove().map_err(cgroup)?;
    dir.remove()
}
