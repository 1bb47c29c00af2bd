//! Every path, without its version.

mod containers;
mod exec;
mod images;
mod networks;
mod streams;
mod swarm;
mod system;
mod volumes;

use axum::Router;
use gantry_engine::Engine;

use crate::error::ApiError;

/// All routes over one engine.
pub(crate) fn all(engine: Engine) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(containers::routes())
        .merge(streams::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(networks::routes())
        .merge(volumes::routes())
        .merge(swarm::routes())
        .fallback(async || ApiError::no_such_page())
        .method_not_allowed_fallback(async || ApiError::no_such_page())
        // Bodies are bounded where they are read; archives have no bound.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(engine)
}
