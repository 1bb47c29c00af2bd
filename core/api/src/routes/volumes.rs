//! Volumes.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use gantry_engine::Engine;
use gantry_wire::{VolumeCreateRequest, shape};
use http::StatusCode;

use crate::error::{ApiError, Result};
use crate::extract::{Json, Path, Query, Version};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{*name}", get(inspect).put(update).delete(remove))
}

async fn list(State(engine): State<Engine>, query: Query) -> Result {
    reply::ok(&engine.volume_list(query.filters()?).await?)
}

async fn create(State(engine): State<Engine>, body: Json<VolumeCreateRequest>) -> Result {
    let volume = engine.volume_create(body.or_default()).await?;
    reply::json(StatusCode::CREATED, &volume)
}

async fn inspect(State(engine): State<Engine>, Path(name): Path) -> Result {
    reply::ok(&engine.volume_inspect(&name).await?)
}

async fn remove(State(engine): State<Engine>, Path(name): Path, query: Query) -> Result<Response> {
    engine.volume_remove(&name, query.flag("force")).await?;
    Ok(reply::no_content())
}

/// Only volumes of a swarm can be changed.
async fn update() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

async fn prune(State(engine): State<Engine>, Version(version): Version, query: Query) -> Result {
    let mut filters = query.filters()?;
    shape::prune_filters(version, &mut filters);
    let pruned = engine.volume_prune(filters).await?;
    reply::ok(&pruned.to_json("VolumesDeleted"))
}
