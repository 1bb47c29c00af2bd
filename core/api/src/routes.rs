//! Every path, without its version.

mod containers;
mod distribution;
mod events;
mod exec;
mod experimental;
mod images;
mod look;
mod networks;
mod plugins;
mod streams;
mod swarm;
mod system;
mod volumes;

use axum::Router;
use gantry_engine::Engine;

use crate::error::ApiError;

/// All routes over one engine.
pub(crate) fn all(engine: Engine) -> Router {
    finish(
        Router::new()
            .merge(system::routes())
            .merge(events::routes())
            .merge(containers::routes())
            .merge(streams::routes())
            .merge(look::routes())
            .merge(exec::routes())
            .merge(images::routes())
            .merge(distribution::routes())
            .merge(networks::routes())
            .merge(volumes::routes()),
    )
    .with_state(engine)
}

/// What is answered without asking the engine, and what no route matches.
pub(crate) fn finish<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .merge(system::engineless())
        .merge(experimental::routes())
        .merge(swarm::routes())
        .merge(plugins::routes())
        .fallback(async || ApiError::no_such_page())
        .method_not_allowed_fallback(async || ApiError::no_such_page())
        // Bodies are bounded where they are read; archives have no bound.
        .layer(axum::extract::DefaultBodyLimit::disable())
}
