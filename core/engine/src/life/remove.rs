//! Removal, and pruning.

use std::io;
use std::sync::Arc;

use gantry_model::Timestamp;
use gantry_store::Batch;
use gantry_wire as wire;
use gantry_wire::Filters;

use super::kill::ended;
use crate::container::Container;
use crate::container::record::{MountKind, Phase, Record};
use crate::engine::blocking;
use crate::query::RemoveOptions;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// A running container without `force`; a removal that is under way.
    pub async fn container_remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        let container = self.find(id)?;
        self.to_the_end(|engine| async move { engine.remove(&container, options).await })
            .await
    }

    async fn remove(&self, container: &Arc<Container>, options: RemoveOptions) -> Result<()> {
        let record = container.record();
        let refuse = |why: String| {
            Err(EngineError::conflict(format!(
                "cannot remove container \"/{}\": {why}",
                record.name
            )))
        };
        match record.state.phase {
            Phase::Removing => {
                return Err(EngineError::conflict(format!(
                    "removal of container {} is already in progress",
                    record.id
                )));
            }
            Phase::Paused if !options.force => {
                return refuse("container is paused and must be unpaused first".into());
            }
            phase if phase.is_running() && !options.force => {
                return refuse(format!(
                    "container is {}: stop the container before removing or force remove",
                    phase.as_str()
                ));
            }
            phase if phase.is_running() => self.kill_for_removal(container, &record).await?,
            _ => {}
        }
        let _turn = container.queue.lock().await;
        if container.progress().removed {
            return Ok(());
        }
        if container.record().state.phase.has_process() {
            return refuse(
                "container is running: stop the container before removing or force remove".into(),
            );
        }
        self.remove_stopped(container, options.volumes).await
    }

    async fn kill_for_removal(&self, container: &Arc<Container>, record: &Record) -> Result<()> {
        let mut watch = container.watch();
        let seen = watch.borrow_and_update().exits;
        if record.state.phase == Phase::Restarting {
            return self.stop(container, None, Some(0)).await;
        }
        container.live.lock().stopping = true;
        if let Some(process) = container.process() {
            let signal = [("signal".to_owned(), "9".to_owned())].into();
            self.tell_with(record, "kill", signal);
            process.kill_all().await?;
        }
        match ended(&mut watch, seen, Some(std::time::Duration::from_secs(10))).await {
            true => Ok(()),
            false => Err(EngineError::internal(format!(
                "cannot remove container \"/{}\": could not kill: tried to kill container, but did not receive an exit event",
                record.name
            ))),
        }
    }

    /// Removes a container that does not run; its turn is held. Each step can be repeated: a crash is followed by the same
    /// steps again.
    pub(super) async fn remove_stopped(
        &self,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<()> {
        let before = container.record();
        let record = container.update(|record| record.state.phase = Phase::Removing);
        {
            let mut live = container.live.lock();
            live.pending.clear();
            if let Some(background) = live.background.take() {
                background.abort();
            }
        }
        self.finish_forwarding(container).await;
        let outcome = self.remove_parts(&record, volumes).await;
        if let Err(error) = outcome {
            let record = container.update(|record| {
                record.state.phase = before.state.phase;
                record.state.error.clone_from(&error.message);
            });
            if let Err(error) = self.records.keep(&record) {
                tracing::warn!(container = %record.id, %error, "cannot write a container's state");
            }
            return Err(error.context(format!("cannot remove container \"/{}\"", record.name)));
        }
        self.containers.remove(container);
        self.execs.removed(&record.id);
        self.tell(&record, "destroy");
        container.tell(|progress| {
            progress.removed = true;
            progress.running = false;
        });
        Ok(())
    }

    async fn remove_parts(&self, record: &Record, volumes: bool) -> Result<()> {
        self.records.note(record)?;
        let (images, id, driver) = (
            self.services.images.clone(),
            record.id.clone(),
            record.storage_driver.clone(),
        );
        let directory = self.container_dir(&record.id);
        self.drop_views(record).await?;
        blocking(move || {
            images.remove_container(&driver, id.as_str())?;
            match std::fs::remove_dir_all(&directory) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(EngineError::io(directory.display(), &e))
                }
                _ => Ok(()),
            }
        })
        .await??;
        let mut batch = Batch::new();
        if !volumes {
            let kept = record
                .mounts
                .iter()
                .filter(|m| m.kind == MountKind::Volume && m.anonymous)
                .map(|m| m.name.clone());
            self.services.volumes.disown(kept, &mut batch)?;
        }
        self.records.remove(record, batch).await?;
        self.drop_volumes(record, volumes).await;
        Ok(())
    }

    /// Removes every container that does not run.
    ///
    /// # Errors
    /// Unknown filters.
    pub async fn container_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        filters.check(&["until", "label", "label!"])?;
        let until = until(&filters)?;
        let mut reply = wire::PruneReply::default();
        for container in self.containers.all() {
            let record = container.record();
            let labels = &record.config.labels;
            let spared = record.state.phase.is_running()
                || until.is_some_and(|until| record.created > until)
                || !filters.matches_labels("label", labels)
                || (filters.contains("label!") && filters.matches_labels("label!", labels));
            if spared {
                continue;
            }
            let size = self.written(&record).await.unwrap_or_default();
            let options = RemoveOptions::default();
            match self.container_remove(record.id.as_str(), options).await {
                Ok(()) => {
                    reply.deleted.push(record.id.to_string());
                    reply.space_reclaimed += size;
                }
                Err(error) => tracing::warn!(container = %record.id, %error, "cannot prune"),
            }
        }
        let freed = reply.space_reclaimed.to_string();
        let attributes = [("reclaimed".to_owned(), freed)].into();
        self.events.tell("container", "prune", "", attributes);
        Ok(reply)
    }
}

/// The `until` filter of prunes: a time, or how long ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let [text] = filters.get("until") else {
        return match filters.get("until") {
            [] => Ok(None),
            _ => Err(EngineError::bad_request(
                "more than one until filter specified",
            )),
        };
    };
    crate::time::parse(text, Timestamp::now()).map(Some)
}
