//! The engine and its public face.

use std::sync::Arc;

use gantry_wire as wire;
use gantry_wire::Filters;

use crate::*;

/// The engine. Clones are one engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {}

fn later<T>() -> Result<T> {
    Err(EngineError::not_implemented("not supported"))
}

#[allow(unused_variables)]
impl Engine {
    /// What `docker info` shows.
    pub async fn info(&self) -> wire::SystemInfo {
        wire::SystemInfo::default()
    }
    /// What `docker version` shows.
    pub fn version(&self) -> wire::SystemVersion {
        wire::SystemVersion::default()
    }
    /// Checks credentials against a registry.
    pub async fn auth(&self, auth: wire::AuthConfig) -> Result<wire::AuthReply> {
        later()
    }
    /// Past and coming events.
    pub fn events(&self, query: EventsQuery) -> Result<EventStream> {
        later()
    }
    /// Every driver that is known.
    pub fn drivers(&self) -> Vec<wire::DriverStatus> {
        Vec::new()
    }
    /// What occupies how much (`docker system df`), as the API's JSON.
    pub async fn disk_usage(&self) -> Result<serde_json::Value> {
        later()
    }

    /// Makes a container.
    pub async fn container_create(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: wire::ContainerCreateRequest,
    ) -> Result<wire::ContainerCreateReply> {
        later()
    }
    /// Lists containers, newest first.
    pub async fn container_list(&self, query: ListQuery) -> Result<Vec<wire::ContainerSummary>> {
        later()
    }
    /// Everything about a container.
    pub async fn container_inspect(&self, id: &str, size: bool) -> Result<wire::ContainerInspect> {
        later()
    }
    /// Starts a container.
    pub async fn container_start(&self, id: &str) -> Result<()> {
        later()
    }
    /// Stops a container.
    pub async fn container_stop(
        &self,
        id: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        later()
    }
    /// Stops and starts a container.
    pub async fn container_restart(
        &self,
        id: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        later()
    }
    /// Sends a signal.
    pub async fn container_kill(&self, id: &str, signal: &str) -> Result<()> {
        later()
    }
    /// Waits; the outer future registers the wait, the inner one ends with it.
    pub async fn container_wait(&self, id: &str, condition: WaitCondition) -> Result<WaitFuture> {
        later()
    }
    /// Removes a container.
    pub async fn container_remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        later()
    }
    /// Gives a container another name.
    pub async fn container_rename(&self, id: &str, name: &str) -> Result<()> {
        later()
    }
    /// Sets the size of a container's terminal.
    pub async fn container_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        later()
    }
    /// Reads a container's log.
    pub async fn container_logs(&self, id: &str, query: LogsQuery) -> Result<Logs> {
        later()
    }
    /// Joins a client to a container's streams.
    pub async fn container_attach(&self, id: &str, query: AttachQuery) -> Result<Attachment> {
        later()
    }
    /// Lists a container's processes with `ps` and these arguments.
    pub async fn container_top(&self, id: &str, ps_args: &str) -> Result<wire::TopReply> {
        later()
    }
    /// Freezes a container.
    pub async fn container_pause(&self, id: &str) -> Result<()> {
        later()
    }
    /// Thaws a container.
    pub async fn container_unpause(&self, id: &str) -> Result<()> {
        later()
    }
    /// Removes stopped containers.
    pub async fn container_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        later()
    }

    /// Makes an exec; it runs from [`Engine::exec_start`] on.
    pub async fn exec_create(
        &self,
        container: &str,
        request: wire::ExecCreateRequest,
    ) -> Result<String> {
        later()
    }
    /// Runs an exec; `None` when it is detached. When it cannot be executed, `exec_inspect` has the exit code (126, 127).
    pub async fn exec_start(
        &self,
        id: &str,
        request: wire::ExecStartRequest,
    ) -> Result<Option<ExecIo>> {
        later()
    }
    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        later()
    }
    /// Everything about an exec.
    pub async fn exec_inspect(&self, id: &str) -> Result<wire::ExecInspect> {
        later()
    }

    /// Fetches an image. What fails before the first line is an error.
    pub async fn image_pull(
        &self,
        from: &str,
        tag: Option<&str>,
        platform: Option<&str>,
        auth: Option<wire::AuthConfig>,
    ) -> Result<MessageStream> {
        later()
    }
    /// Makes an image of a tar archive.
    pub async fn image_import(
        &self,
        source: ByteReader,
        repo: Option<&str>,
        tag: Option<&str>,
        message: &str,
        changes: Vec<String>,
        platform: Option<&str>,
    ) -> Result<MessageStream> {
        later()
    }
    /// Reads images from an archive.
    pub async fn image_load(
        &self,
        body: ByteReader,
        quiet: bool,
        platform: Option<&str>,
    ) -> Result<MessageStream> {
        later()
    }
    /// Writes images to an archive.
    pub async fn image_save(&self, names: Vec<String>) -> Result<ByteReader> {
        later()
    }
    /// Lists images.
    pub async fn image_list(&self, query: ImageListQuery) -> Result<Vec<wire::ImageSummary>> {
        later()
    }
    /// Everything about an image.
    pub async fn image_inspect(&self, name: &str) -> Result<wire::ImageInspect> {
        later()
    }
    /// How an image came to be.
    pub async fn image_history(&self, name: &str) -> Result<Vec<wire::HistoryItem>> {
        later()
    }
    /// Gives an image a name.
    pub async fn image_tag(&self, name: &str, repo: &str, tag: &str) -> Result<()> {
        later()
    }
    /// Removes a name, and the image with its last one.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<wire::ImageDeleteItem>> {
        later()
    }
    /// Removes unused images.
    pub async fn image_prune(
        &self,
        filters: Filters,
    ) -> Result<wire::PruneReply<wire::ImageDeleteItem>> {
        later()
    }

    /// Lists networks.
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<wire::Network>> {
        later()
    }
    /// Everything about a network.
    pub async fn network_inspect(
        &self,
        id: &str,
        verbose: bool,
        scope: Option<&str>,
    ) -> Result<wire::Network> {
        later()
    }
    /// Makes a network.
    pub async fn network_create(
        &self,
        request: wire::NetworkCreateRequest,
    ) -> Result<wire::NetworkCreateReply> {
        later()
    }
    /// Removes a network.
    pub async fn network_remove(&self, id: &str) -> Result<()> {
        later()
    }
    /// Attaches a container to a network.
    pub async fn network_connect(
        &self,
        id: &str,
        request: wire::NetworkConnectRequest,
    ) -> Result<()> {
        later()
    }
    /// Detaches a container from a network.
    pub async fn network_disconnect(
        &self,
        id: &str,
        request: wire::NetworkDisconnectRequest,
    ) -> Result<()> {
        later()
    }
    /// Removes unused networks.
    pub async fn network_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        later()
    }

    /// Lists volumes.
    pub async fn volume_list(&self, filters: Filters) -> Result<wire::VolumeListReply> {
        later()
    }
    /// Everything about a volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<wire::Volume> {
        later()
    }
    /// Makes a volume, or finds the one of that name.
    pub async fn volume_create(&self, request: wire::VolumeCreateRequest) -> Result<wire::Volume> {
        later()
    }
    /// Removes a volume.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        later()
    }
    /// Removes unused volumes.
    pub async fn volume_prune(&self, filters: Filters) -> Result<wire::PruneReply> {
        later()
    }

    /// Ends the engine's work; containers go on unless `stop_containers`.
    pub async fn shutdown(&self, stop_containers: bool) {}
}
