//! What dockerd does in its experimental mode alone, refused as by one without it.

use axum::Router;
use axum::routing::{delete, get};
use http::StatusCode;

use crate::error::ApiError;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/containers/{id}/checkpoints", get(refuse).post(refuse))
        .route("/containers/{id}/checkpoints/{checkpoint}", delete(refuse))
}

async fn refuse() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable \
         it.",
    )
}
