//! Changing a container while it runs, or before it runs again: limits, restart policy, ports and mounts.
//!
//! An update happens wholly or not at all: the cgroup first, because it can refuse, then the record; when the record
//! cannot be kept the cgroup's old values are put back.

mod limits;
mod live;
mod mounts;
mod ports;

use std::sync::Arc;

use gantry_model::container::HostConfig;
use gantry_wire::{UpdateReply, UpdateRequest};

use crate::container::Container;
use crate::container::record::Phase;
use crate::create::validate;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result, spec};

impl Engine {
    /// Changes a container's limits and restart policy; what is zero or absent stays as it is.
    ///
    /// # Errors
    /// Limits that make no sense, or that contradict those there are; a running container's kernel may refuse too.
    pub async fn container_update(&self, id: &str, request: UpdateRequest) -> Result<UpdateReply> {
        let container = self.find(id)?;
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            engine.update(&container, &request).await
        })
        .await
    }

    /// The container's turn is held.
    async fn update(
        &self,
        container: &Arc<Container>,
        request: &UpdateRequest,
    ) -> Result<UpdateReply> {
        let before = container.record();
        let cannot =
            |error: EngineError| error.context(format!("Cannot update container {}", before.id));
        if before.state.phase == Phase::Removing || container.progress().removed {
            return Err(cannot(EngineError::conflict(
                "container is marked for removal and cannot be \"update\"",
            )));
        }
        let mut wish = request.host_config.clone();
        self.check(&before.host_config, &wish)?;
        let mut warnings = validate::adjust(&mut wish, self.services.runtime.host());
        warnings.extend(limits::ignored(&wish));
        let change = limits::merge(&before.host_config, &wish).map_err(cannot)?;
        let mut resources = spec::resources(&change.limits);
        resources.oom_kill_disable = change.limits.oom_kill_disable;
        let live = self.change_live(container, request).await.map_err(cannot)?;
        let own = HostConfig {
            egress: wish.egress.clone(),
            ..HostConfig::default()
        };
        let limited = wish != own;
        let restore = match container.process().filter(|_| limited) {
            Some(process) => match process.update(&resources).await {
                Ok(restore) => Some(restore),
                Err(error) => {
                    live.undo(self, &before).await;
                    return Err(cannot(error.into()));
                }
            },
            // The next start writes them.
            None => None,
        };
        let record = container.update(|record| {
            record.host_config = change.after;
            live.apply(record);
        });
        if let Err(error) = self.records.save(&record).await {
            container.update(|record| {
                record.config.clone_from(&before.config);
                record.host_config.clone_from(&before.host_config);
                record.mounts.clone_from(&before.mounts);
            });
            live.undo(self, &before).await;
            if let Some(restore) = restore {
                blocking(move || restore.put_back()).await?;
            }
            return Err(cannot(error));
        }
        live.finish(self, &record).await;
        self.tell(&record, "update");
        Ok(UpdateReply {
            warnings: (!warnings.is_empty()).then_some(warnings),
        })
    }

    /// Checks a wish as at creation; of memory and swap, the pair that will hold together.
    fn check(&self, before: &HostConfig, wish: &HostConfig) -> Result<()> {
        let mut wish = wish.clone();
        if wish.memory == 0 {
            wish.memory = before.memory;
        }
        if wish.memory_swap == 0 && wish.memory <= before.memory_swap {
            wish.memory_swap = before.memory_swap;
        }
        validate::limits(&wish, self.services.runtime.host())
    }
}
