//! Waiting for a container.

use gantry_wire::{WaitError, WaitReply};

use crate::query::WaitCondition;
use crate::{Engine, Result, WaitFuture};

impl Engine {
    /// Waits; when the outer future is done the wait is registered, the inner one ends with it.
    ///
    /// # Errors
    /// An unknown container.
    pub async fn container_wait(&self, id: &str, condition: WaitCondition) -> Result<WaitFuture> {
        let container = self.find(id)?;
        let mut watch = container.watch();
        let seen = *watch.borrow_and_update();
        Ok(Box::pin(async move {
            let over = watch.wait_for(|now| match condition {
                WaitCondition::NotRunning => !now.running || now.exits > seen.exits || now.removed,
                WaitCondition::NextExit => now.exits > seen.exits || now.removed,
                WaitCondition::Removed => now.removed,
            });
            // The sender lives as long as the container object, which this future holds.
            let status = over.await.map_or(seen.exit_code, |now| now.exit_code);
            let record = container.record();
            // What is gone as it should has no error, whatever became of its start.
            let error = Some(&record.state.error)
                .filter(|message| !message.is_empty() && !container.progress().removed)
                .map(|message| WaitError {
                    message: message.clone(),
                });
            WaitReply {
                error,
                status_code: status.into(),
            }
        }))
    }
}
