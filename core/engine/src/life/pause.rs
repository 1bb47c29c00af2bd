//! Freezing and thawing.

use std::sync::Arc;

use crate::container::Container;
use crate::container::record::{HealthStatus, Phase, Record};
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Freezes a container's processes.
    ///
    /// # Errors
    /// A container that does not run, or is frozen.
    pub async fn container_pause(&self, id: &str) -> Result<()> {
        self.freeze(id, true).await
    }

    /// Thaws them.
    ///
    /// # Errors
    /// A container that is not frozen.
    pub async fn container_unpause(&self, id: &str) -> Result<()> {
        self.freeze(id, false).await
    }

    async fn freeze(&self, id: &str, freeze: bool) -> Result<()> {
        let container = self.find(id)?;
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            engine.freeze_now(&container, freeze).await
        })
        .await
    }

    async fn freeze_now(&self, container: &Arc<Container>, freeze: bool) -> Result<()> {
        let id = &container.id;
        let refuse = |why: &str| Err(EngineError::conflict(format!("container {id} {why}")));
        let before = container.record();
        match (before.state.phase, freeze) {
            (Phase::Running, true) | (Phase::Paused, false) => {}
            (Phase::Paused, true) => return refuse("is already paused"),
            (Phase::Restarting, true) => {
                return refuse("is restarting, wait until the container is running");
            }
            (_, true) => return refuse("is not running"),
            (_, false) => return refuse("is not paused"),
        }
        let Some(process) = container.process() else {
            return refuse("is not running");
        };
        let (phase, action) = match freeze {
            true => (Phase::Paused, "pause"),
            false => (Phase::Running, "unpause"),
        };
        match freeze {
            true => process.pause().await?,
            false => process.unpause().await?,
        }
        if freeze && let Some(health) = container.live.lock().background.take() {
            health.abort();
        }
        let record = container.update(|record| {
            record.state.phase = phase;
            if freeze && let Some(health) = &mut record.state.health {
                // Nobody checks it: dockerd does not call that healthy.
                health.status = HealthStatus::Unhealthy;
            }
        });
        if let Err(error) = self.records.note(&record) {
            container.update(|record| *record = Record::clone(&before));
            // As it was, so that the next try finds what it expects.
            let _ = match freeze {
                true => process.unpause().await,
                false => process.pause().await,
            };
            self.check_health(container);
            return Err(error);
        }
        self.tell(&record, action);
        self.check_health(container);
        Ok(())
    }
}
