//! Swarm, of which the engine is never part: the refusals of an engine outside one, in Docker's order (body, query,
//! membership). Making or joining a swarm is the one thing that is refused where Docker would do it.

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use gantry_wire::lenient;
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, Result};
use crate::extract::{Json, Query};

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/swarm", get(refuse))
        .route("/swarm/init", post(enter))
        .route("/swarm/join", post(enter))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", update("swarm"))
        .route("/swarm/unlockkey", get(refuse))
        .route("/swarm/unlock", post(refuse_body))
        .route("/services", get(refuse_list))
        .route("/services/create", create())
        .route("/services/{id}", get(refuse).delete(refuse))
        .route("/services/{id}/update", update("service"))
        .route("/services/{id}/logs", get(logs))
        .route("/nodes", get(refuse_list))
        .route("/nodes/{id}", get(refuse).delete(refuse))
        .route("/nodes/{id}/update", update("node"))
        .route("/tasks", get(refuse_list))
        .route("/tasks/{id}", get(refuse))
        .route("/tasks/{id}/logs", get(logs))
        .merge(stored("secret"))
        .merge(stored("config"))
}

/// Secrets and configs, which have the same routes.
fn stored<S: Clone + Send + Sync + 'static>(kind: &'static str) -> Router<S> {
    Router::new()
        .route(&format!("/{kind}s"), get(refuse_list))
        .route(&format!("/{kind}s/create"), create())
        .route(&format!("/{kind}s/{{id}}"), get(refuse).delete(refuse))
        .route(&format!("/{kind}s/{{id}}/update"), update(kind))
}

/// A JSON object, whatever is in it.
#[derive(Deserialize)]
struct Object {}

fn required<T>(body: Json<T>) -> Result<T, ApiError> {
    body.0.ok_or_else(|| lenient::Error::Empty.into())
}

async fn refuse() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

async fn refuse_list(query: Query) -> ApiError {
    match query.filters() {
        Ok(_) => refuse().await,
        Err(error) => error,
    }
}

async fn refuse_body(body: Json<Object>) -> ApiError {
    match required(body) {
        Ok(_) => refuse().await,
        Err(error) => error,
    }
}

/// `create` may be an object's name, too.
fn create<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    post(refuse_body).get(refuse).delete(refuse)
}

/// An update names the version that it changes.
fn update<S: Clone + Send + Sync + 'static>(kind: &'static str) -> MethodRouter<S> {
    post(async move |query: Query, body: Json<Object>| {
        if let Err(error) = required(body) {
            return error;
        }
        let version = query.text("version");
        if version.parse::<u64>().is_ok() {
            return refuse().await;
        }
        ApiError::bad_request(match kind {
            "secret" | "config" => format!("invalid {kind} version"),
            _ => format!(
                "invalid {kind} version '{version}': strconv.ParseUint: parsing {version:?}: invalid syntax"
            ),
        })
    })
}

async fn logs(query: Query) -> ApiError {
    if query.flag("stdout") || query.flag("stderr") {
        return refuse().await;
    }
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Bad parameters: you must choose at least one stream",
    )
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Entrance {
    listen_addr: String,
}

async fn enter(body: Json<Entrance>) -> ApiError {
    match required(body) {
        Ok(entrance) if entrance.listen_addr.is_empty() => {
            ApiError::bad_request("invalid ListenAddr \"\": invalid empty address")
        }
        Ok(_) => ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "this engine does not take part in swarms",
        ),
        Err(error) => error,
    }
}

async fn leave() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not part of a swarm",
    )
}
