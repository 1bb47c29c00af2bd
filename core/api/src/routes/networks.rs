//! Networks.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gantry_engine::Engine;
use gantry_wire::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use http::StatusCode;

use crate::error::Result;
use crate::extract::{Json, Path, Query};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(engine): State<Engine>, query: Query) -> Result {
    reply::ok(&engine.network_list(query.filters()?).await?)
}

async fn inspect(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result {
    let network = engine
        .network_inspect(&id, query.flag("verbose"), query.some("scope"))
        .await?;
    reply::ok(&network)
}

async fn create(State(engine): State<Engine>, body: Json<NetworkCreateRequest>) -> Result {
    let created = engine.network_create(body.or_default()).await?;
    reply::json(StatusCode::CREATED, &created)
}

async fn remove(State(engine): State<Engine>, Path(id): Path) -> Result<Response> {
    engine.network_remove(&id).await?;
    Ok(reply::no_content())
}

async fn connect(
    State(engine): State<Engine>,
    Path(id): Path,
    body: Json<NetworkConnectRequest>,
) -> Result<Response> {
    engine.network_connect(&id, body.or_default()).await?;
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(engine): State<Engine>,
    Path(id): Path,
    body: Json<NetworkDisconnectRequest>,
) -> Result<Response> {
    engine.network_disconnect(&id, body.or_default()).await?;
    Ok(StatusCode::OK.into_response())
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result {
    let pruned = engine.network_prune(query.filters()?).await?;
    reply::ok(&pruned.to_json("NetworksDeleted"))
}
