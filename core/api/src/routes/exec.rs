//! Processes executed in running containers.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gantry_engine::{Engine, EngineError};
use gantry_wire::{ExecCreateRequest, ExecStartRequest, IdReply, shape};
use http::StatusCode;

use super::containers::size;
use crate::error::{ApiError, Result};
use crate::extract::{Json, Path, Query, Version};
use crate::hijack::{self, DetachKeys, Hijack};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(engine): State<Engine>,
    Path(container): Path,
    Version(version): Version,
    body: Json<ExecCreateRequest>,
) -> Result {
    let mut request = body.or_default();
    if request.cmd.is_empty() {
        return Err(ApiError::bad_request("no exec command specified"));
    }
    shape::exec_create_request(version, &mut request);
    DetachKeys::parse(Some(&request.detach_keys))?;
    let id = engine.exec_create(&container, request).await?;
    reply::json(StatusCode::CREATED, &IdReply { id })
}

async fn start(
    State(engine): State<Engine>,
    Path(id): Path,
    Version(version): Version,
    hijack: Result<Hijack>,
    body: Json<ExecStartRequest>,
) -> Result<Response> {
    let request = body.or_default();
    if request.detach {
        engine.exec_start(&id, request).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let hijack = hijack?;
    let (tty, keys) = engine.exec_ready(&id)?;
    let keys = DetachKeys::parse(Some(&keys))?;
    let content_type = reply::output_type(version, tty);
    // Started at once: the client has read the head by the time there is output.
    let (starter, exec) = (engine.clone(), id.clone());
    let started = tokio::spawn(async move { starter.exec_start(&exec, request).await });
    let started = async {
        let started = started
            .await
            .map_err(|e| EngineError::internal(e.to_string()))?;
        started?.ok_or_else(|| EngineError::internal("the exec has no streams"))
    };
    Ok(hijack.accept(content_type, move |taken| {
        let detached = move || engine.exec_detached(&id);
        hijack::exec(taken, started, tty, keys, detached)
    }))
}

async fn resize(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let (height, width) = size(&query)?;
    engine.exec_resize(&id, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn inspect(State(engine): State<Engine>, Path(id): Path) -> Result {
    let mut exec = engine.exec_inspect(&id).await?;
    // Bytes in Go, which are base64 in JSON.
    if !exec.detach_keys.is_empty() {
        exec.detach_keys = DetachKeys::parse(Some(&exec.detach_keys))?.to_base64();
    }
    reply::ok(&exec)
}
