//! Processes executed in running containers.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gantry_engine::{Engine, ErrorKind};
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
    let exec = engine.exec_inspect(&id).await?;
    let (tty, keys) = (exec.process_config.tty, exec.detach_keys);
    let keys = DetachKeys::parse(Some(&keys))?;
    let content_type = reply::output_type(version, tty);
    match engine.exec_start(&id, request).await {
        Ok(Some(io)) => Ok(hijack.accept(content_type, move |taken| hijack::exec(taken, io, keys))),
        Ok(None) => Ok(StatusCode::OK.into_response()),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {
            Err(error.into())
        }
        // dockerd has taken the connection over when it finds out that the command cannot be executed, and clients read
        // the reason there and the exit code from inspect.
        Err(error) => Ok(hijack.accept(content_type, move |taken| {
            hijack::refuse_exec(taken, tty, error.message)
        })),
    }
}

async fn resize(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let (height, width) = size(&query)?;
    engine.exec_resize(&id, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn inspect(State(engine): State<Engine>, Path(id): Path) -> Result {
    reply::ok(&engine.exec_inspect(&id).await?)
}
