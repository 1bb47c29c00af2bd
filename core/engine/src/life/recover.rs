//! What a new daemon makes of what it finds.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use gantry_model::ContainerId;
use gantry_network::LiveSandbox;
use gantry_runtime::{ExitStatus, Process, Reconnected};

use super::exit::lost;
use crate::container::Container;
use crate::container::persist::Loaded;
use crate::container::record::{MountKind, Phase};
use crate::container::restart::Backoff;
use crate::create::images::roots;
use crate::engine::blocking;
use crate::{Engine, Result};

/// Containers that are looked at, or put in order, at once.
const AT_ONCE: usize = 16;

/// What became of a container while there was no daemon.
enum Found {
    /// It runs.
    Lives(Arc<Process>),
    /// It ran, and ended like this.
    Ended(ExitStatus),
    /// Its start was not acknowledged.
    HalfStarted(Option<Arc<Process>>),
    /// Its removal had begun.
    HalfRemoved,
    /// It waited to be started again.
    Waited,
    /// It did not run.
    Rested,
}

impl Engine {
    /// Takes over what an earlier daemon, or an earlier boot, left.
    ///
    /// # Errors
    /// State that cannot be read as a whole.
    pub(crate) async fn recover(&self) -> Result<()> {
        let loaded = self.records.load()?;
        let mut known: Vec<(Arc<Container>, Loaded)> = Vec::with_capacity(loaded.len());
        for one in loaded {
            if let Some(container) = self.adopt(&one) {
                known.push((container, one));
            }
        }
        self.sweep(&known).await?;
        let looks = known.into_iter().map(|(container, loaded)| async move {
            let what = self.look(&container, loaded.this_boot).await;
            let live = match &what {
                Found::Lives(process) => Some(LiveSandbox {
                    container: container.id.clone(),
                    netns: process.netns().await.ok(),
                }),
                _ => None,
            };
            ((container, what), live)
        });
        let (found, live): (Vec<_>, Vec<_>) = stream::iter(looks).buffered(AT_ONCE).unzip().await;
        let live = live.into_iter().flatten().collect();
        self.services.networks.restore(live).await?;
        let waiting = parking_lot::Mutex::new(Vec::new());
        stream::iter(found)
            .for_each_concurrent(AT_ONCE, |(container, what)| async {
                if self.settle(&container, what).await {
                    waiting.lock().push(container);
                }
            })
            .await;
        self.start_in_order(waiting.into_inner());
        let exists = |id: &ContainerId| self.containers.get(id).is_some();
        self.services.volumes.sweep(exists).await;
        Ok(())
    }

    fn adopt(&self, loaded: &Loaded) -> Option<Arc<Container>> {
        let record = &loaded.record;
        match self.containers.reserve(&record.name, &record.id) {
            Ok(reserved) => reserved.keep(),
            Err(error) => {
                tracing::error!(container = %record.id, %error, "two containers of one name");
                return None;
            }
        }
        for point in &record.mounts {
            if point.kind == MountKind::Volume
                && let Err(error) = self.services.volumes.acquire(&point.name, &record.id)
            {
                tracing::warn!(container = %record.id, %error, "a container lost a volume");
            }
        }
        let container = Container::new(record.clone());
        self.containers.insert(container.clone());
        Some(container)
    }

    /// Removes what belongs to no container any more.
    async fn sweep(&self, known: &[(Arc<Container>, Loaded)]) -> Result<()> {
        let roots: Vec<(String, String)> =
            known.iter().flat_map(|(_, l)| roots(&l.record)).collect();
        let ids: HashSet<ContainerId> = known.iter().map(|(c, _)| c.id.clone()).collect();
        let had_process: HashSet<ContainerId> = known
            .iter()
            .filter(|(_, l)| l.this_boot && may_have_process(l.record.state.phase))
            .map(|(c, _)| c.id.clone())
            .collect();
        let images = self.services.images.clone();
        let directory = self.config.load().data_root.join("containers");
        blocking(move || {
            if let Err(error) = images.reconcile(&roots) {
                tracing::warn!(%error, "a storage driver cannot reconcile");
            }
            for entry in std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name();
                let id = name.to_str().and_then(|n| n.parse::<ContainerId>().ok());
                if id.is_some_and(|id| !ids.contains(&id)) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
        })
        .await?;
        self.services.volumes.reconcile().await;
        for id in self.services.runtime.known().await? {
            if had_process.contains(&id) {
                continue;
            }
            if let Ok(Reconnected::Running(process)) = self.services.runtime.reconnect(&id).await {
                // Its record was never written, or is lost: nobody could reach it.
                let _ = process.kill_all().await;
                let _ = process.delete().await;
            }
            if let Err(error) = self.services.runtime.forget(&id).await {
                tracing::warn!(container = %id, %error, "cannot forget a container");
            }
        }
        Ok(())
    }

    async fn look(&self, container: &Arc<Container>, this_boot: bool) -> Found {
        let record = container.record();
        let phase = record.state.phase;
        match phase {
            Phase::Removing => return Found::HalfRemoved,
            Phase::Restarting => {
                if !this_boot {
                    container.update(|record| record.state.backoff = Backoff::default());
                }
                return Found::Waited;
            }
            phase if !may_have_process(phase) => return Found::Rested,
            _ => {}
        }
        let reconnected = match this_boot {
            true => self.services.runtime.reconnect(&container.id).await,
            false => Ok(Reconnected::Gone),
        };
        match reconnected {
            Ok(Reconnected::Running(process)) if phase != Phase::Starting => Found::Lives(process),
            Ok(Reconnected::Running(process)) => Found::HalfStarted(Some(process)),
            Ok(_) if phase == Phase::Starting => Found::HalfStarted(None),
            Ok(Reconnected::Exited(status)) => Found::Ended(status),
            Ok(Reconnected::Gone) => Found::Ended(lost(&record)),
            Err(error) => {
                tracing::error!(container = %container.id, %error, "cannot reach a container");
                Found::Ended(lost(&record))
            }
        }
    }

    /// Puts a container in order; whether it is to be started.
    async fn settle(&self, container: &Arc<Container>, found: Found) -> bool {
        let _turn = container.queue.lock().await;
        self.forward_logs(container);
        match found {
            Found::Lives(process) => {
                container.live.lock().process = Some(process.clone());
                self.follow_sandbox(container);
                self.thaw_forgotten(container, &process).await;
                self.watch_over(container.clone(), process);
                self.check_health(container);
            }
            Found::Ended(status) => {
                container.tell(|progress| progress.running = true);
                return self.note_ended(container, None, status).await;
            }
            Found::HalfStarted(process) => {
                let by_policy = container.record().state.backoff.is_under_way();
                self.undo_half_start(container, process, by_policy).await;
                return by_policy || self.rest(container).await;
            }
            Found::HalfRemoved => {
                let volumes = container.record().host_config.auto_remove;
                if let Err(error) = self.remove_stopped(container, volumes).await {
                    tracing::warn!(container = %container.id, %error, "cannot finish a removal");
                }
            }
            Found::Waited => return true,
            Found::Rested => return self.rest(container).await,
        }
        false
    }

    /// What a policy had begun to start waits for its next try; what a client had is as it was before.
    async fn undo_half_start(
        &self,
        container: &Arc<Container>,
        process: Option<Arc<Process>>,
        by_policy: bool,
    ) {
        if let Some(process) = &process
            && let Err(error) = process.kill_all().await
        {
            tracing::warn!(container = %container.id, %error, "cannot kill a half-started container");
        }
        self.clean_up(&container.record(), process).await;
        let record = container.update(|record| {
            record.state.phase = match (by_policy, record.state.started_at.is_zero()) {
                (true, _) => Phase::Restarting,
                (false, true) => Phase::Created,
                (false, false) => Phase::Exited,
            };
            record.state.pid = 0;
        });
        if let Err(error) = self.records.keep(&record) {
            tracing::warn!(container = %record.id, %error, "cannot write a container's state");
        }
        if by_policy {
            container.tell(|progress| progress.running = true);
        }
        if record.host_config.auto_remove
            && let Err(error) = self.remove_stopped(container, true).await
        {
            tracing::warn!(container = %container.id, %error, "cannot remove a half-started container");
        }
    }

    /// A container that did not run: `--rm` ones that have run go, and `always` starts again with the daemon. Whether it is
    /// to be started.
    async fn rest(&self, container: &Arc<Container>) -> bool {
        let record = container.record();
        if record.state.started_at.is_zero() || container.progress().removed {
            return false;
        }
        if record.host_config.auto_remove {
            if let Err(error) = self.remove_stopped(container, true).await {
                tracing::warn!(container = %record.id, %error, "cannot remove an ended container");
            }
            return false;
        }
        let policy = record.host_config.restart_policy.name.as_str();
        if policy != "always" && (policy != "unless-stopped" || record.manually_stopped) {
            return false;
        }
        container.update(|record| {
            record.state.phase = Phase::Restarting;
            record.state.backoff = Backoff::default();
            record.manually_stopped = false;
        });
        container.tell(|progress| progress.running = true);
        true
    }
}

/// Whether a monitor may hold a process of a container that was last seen like this.
fn may_have_process(phase: Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Running | Phase::Paused)
}
