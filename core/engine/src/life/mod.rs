//! The life cycle: start, end, stop, removal, and what a new daemon makes of what it finds.

mod exit;
mod health;
mod kill;
mod launch;
mod links;
mod network;
mod oom;
mod order;
mod pause;
mod recover;
mod remove;
mod rename;
mod requires;
mod sources;
mod start;
mod wait;

pub(crate) use health::check_test;
pub(crate) use launch::bind_source;
pub(crate) use remove::until;

use crate::{Engine, EngineError, Result};

impl Engine {
    /// Runs a step to its end even when the one who asked goes away: a step is never left half done.
    pub(crate) async fn to_the_end<T, F>(&self, step: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        tokio::spawn(step(self.clone()))
            .await
            .map_err(|error| EngineError::internal(error.to_string()))?
    }
}
