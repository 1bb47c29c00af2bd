//! Swarm, of which the engine is never part: Docker's own refusals.

use axum::Router;
use axum::routing::{any, post};
use http::StatusCode;

use crate::error::ApiError;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut routes = Router::new().route("/swarm/leave", post(leave));
    for kind in ["swarm", "nodes", "services", "tasks", "secrets", "configs"] {
        routes = routes
            .route(&format!("/{kind}"), any(refuse))
            .route(&format!("/{kind}/{{*rest}}"), any(refuse));
    }
    routes
}

async fn refuse() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

async fn leave() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not part of a swarm",
    )
}
