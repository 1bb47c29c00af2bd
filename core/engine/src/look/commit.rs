//! Making an image of a container.

use std::sync::Arc;

use gantry_image::{CommitOptions, ContainerDefaults, apply_changes};
use gantry_model::container::{ContainerConfig, StrSlice};
use gantry_runtime::Process;

use super::GENERATED;
use crate::container::Container;
use crate::container::record::{Phase, Record};
use crate::create::merge::merge;
use crate::engine::blocking;
use crate::events::Attributes;
use crate::objects::reference;
use crate::{Engine, EngineError, Result};

/// What is made of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitQuery {
    /// Name of the image; none: it gets no name.
    pub repo: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// For the history.
    pub author: String,
    /// For the history.
    pub comment: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
}

impl Engine {
    /// Makes an image of a container, and returns its identifier. `config` stands for the container's own configuration,
    /// from which it is filled up.
    ///
    /// # Errors
    /// Bad names and changes (400), a container that is being removed (409), an image that is gone (404).
    pub async fn container_commit(
        &self,
        id: &str,
        query: CommitQuery,
        config: Option<ContainerConfig>,
    ) -> Result<String> {
        let container = self.find(id)?;
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let phase = container.record().state.phase;
            if phase == Phase::Removing || container.progress().removed {
                return Err(EngineError::conflict(format!(
                    "You cannot commit container {} which is being removed",
                    container.id
                )));
            }
            let frozen = match query.pause && phase == Phase::Running {
                true => engine.hold_still(&container).await?,
                false => false,
            };
            let image = engine.commit(&container, query, config).await;
            if frozen {
                engine.let_go(&container).await;
            }
            image
        })
        .await
    }

    async fn commit(
        &self,
        container: &Arc<Container>,
        query: CommitQuery,
        config: Option<ContainerConfig>,
    ) -> Result<String> {
        let record = container.record();
        let name = query.repo.filter(|repo| !repo.is_empty());
        let name = name
            .map(|repo| reference(&repo, query.tag.as_deref()))
            .transpose()?;
        let config = configuration(&record, config, &query.changes)?;
        let delta = self.delta(&record).await?;
        let options = CommitOptions {
            parent: record.image.clone(),
            delta,
            generated: &GENERATED,
            config,
            name: name.clone(),
            created_by: words(&record.config.cmd).join(" "),
            author: query.author,
            comment: query.comment.clone(),
        };
        let images = self.services.images.clone();
        let image = blocking(move || images.commit(options)).await??;
        let name = name.map(|name| name.familiar()).unwrap_or_default();
        let more = [
            ("comment", query.comment),
            ("imageID", image.to_string()),
            ("imageRef", name),
        ];
        let more: Attributes = more.map(|(k, v)| (k.to_owned(), v)).into();
        self.tell_with(&record, "commit", more);
        Ok(image.to_string())
    }

    /// Freezes a container for a while. Nothing is noted of it: a daemon that finds a running container frozen thaws it.
    async fn hold_still(&self, container: &Arc<Container>) -> Result<bool> {
        let Some(process) = container.process() else {
            return Ok(false);
        };
        process.pause().await?;
        let record = container.update(|record| record.state.phase = Phase::Paused);
        self.tell(&record, "pause");
        Ok(true)
    }

    /// Thaws a container that was frozen for a commit by a daemon that has died since.
    pub(crate) async fn thaw_forgotten(&self, container: &Arc<Container>, process: &Process) {
        let running = container.record().state.phase == Phase::Running;
        if running && process.is_paused().await.unwrap_or(false) {
            tracing::info!(container = %container.id, "thawing a container that a commit had frozen");
            if let Err(error) = process.unpause().await {
                tracing::warn!(container = %container.id, %error, "cannot thaw a container");
            }
        }
    }

    async fn let_go(&self, container: &Arc<Container>) {
        if let Some(process) = container.process()
            && let Err(error) = process.unpause().await
        {
            tracing::warn!(container = %container.id, %error, "cannot thaw a container");
        }
        let record = container.update(|record| {
            if record.state.phase == Phase::Paused {
                record.state.phase = Phase::Running;
            }
        });
        self.tell(&record, "unpause");
    }
}

/// The request's configuration or the container's own, with the changes, filled up from the container's.
fn configuration(
    record: &Record,
    asked: Option<ContainerConfig>,
    changes: &[String],
) -> Result<ContainerDefaults> {
    let own = defaults(&record.config);
    let mut changed = asked.as_ref().map_or_else(|| own.clone(), defaults);
    apply_changes(&mut changed, changes)?;
    let mut config = ContainerConfig {
        user: changed.user,
        exposed_ports: changed.exposed_ports.into_iter().collect(),
        env: Some(changed.env),
        entrypoint: changed.entrypoint.map(StrSlice),
        cmd: changed.cmd.map(StrSlice),
        healthcheck: changed.healthcheck,
        args_escaped: changed.args_escaped,
        volumes: Some(changed.volumes).filter(|volumes| !volumes.is_empty()),
        working_dir: changed.working_dir,
        on_build: Some(changed.on_build).filter(|list| !list.is_empty()),
        labels: changed.labels,
        stop_signal: changed.stop_signal,
        shell: Some(StrSlice(changed.shell)).filter(|shell| !shell.is_empty()),
        ..ContainerConfig::default()
    };
    merge(&mut config, &own);
    Ok(defaults(&config))
}

/// What of a container's configuration images carry.
fn defaults(config: &ContainerConfig) -> ContainerDefaults {
    let list = |words: &Option<StrSlice>| words.as_ref().map(|words| words.0.clone());
    ContainerDefaults {
        user: config.user.clone(),
        exposed_ports: (config.exposed_ports.iter()).collect(),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: list(&config.entrypoint),
        cmd: list(&config.cmd),
        healthcheck: config.healthcheck.clone(),
        args_escaped: config.args_escaped,
        volumes: config.volumes.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        shell: list(&config.shell).unwrap_or_default(),
    }
}

fn words(list: &Option<StrSlice>) -> Vec<String> {
    list.as_ref().map(|list| list.0.clone()).unwrap_or_default()
}
