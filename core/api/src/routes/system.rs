//! The engine itself, its events and its drivers.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gantry_engine::Engine;
use gantry_wire::AuthConfig;
use gantry_wire::driver::DriverMigrate;
use gantry_wire::shape::Reply;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, PRAGMA};

use crate::error::Result;
use crate::extract::{Json, Query, Version};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/auth", post(auth))
        .route("/system/df", get(disk_usage))
        .route("/build/prune", post(build_prune))
        .route("/gantry/drivers", get(drivers))
        .route("/gantry/drivers/{kind}/{name}", get(driver))
        .route("/gantry/fsck", post(fsck))
        .route("/gantry/drivers/storage/migrate", post(migrate))
}

/// What needs no engine.
pub(super) fn engineless<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/_ping", get(ping).head(ping_head))
}

/// What clients learn from a ping, beyond what every answer tells.
const PING: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    (PRAGMA, "no-cache"),
    (CONTENT_TYPE, "text/plain; charset=utf-8"),
    // 1: builds are done by the engine, not over a session with BuildKit.
    (HeaderName::from_static("builder-version"), "1"),
    (HeaderName::from_static("swarm"), "inactive"),
];

async fn ping() -> impl IntoResponse {
    (PING, "OK")
}

async fn ping_head() -> impl IntoResponse {
    (PING, [(CONTENT_LENGTH, "0")])
}

/// There is no cache of builds, so nothing of it is removed.
async fn build_prune(State(engine): State<Engine>, query: Query) -> Result {
    query.filters()?.check(&[
        "until",
        "unused-for",
        "id",
        "parent",
        "type",
        "description",
        "inuse",
        "shared",
        "private",
    ])?;
    query.number("keep-storage")?;
    engine.build_cache_pruned(0);
    reply::ok(&serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": 0}))
}

async fn version(State(engine): State<Engine>) -> Result {
    reply::ok(&engine.version())
}

async fn info(State(engine): State<Engine>, Version(version): Version) -> Result {
    reply::shaped(version, Reply::Info, &engine.info().await)
}

async fn auth(State(engine): State<Engine>, body: Json<AuthConfig>) -> Result {
    reply::ok(&engine.auth(body.or_default()).await?)
}

async fn disk_usage(State(engine): State<Engine>, query: Query) -> Result {
    reply::ok(&engine.disk_usage(&query.all("type")).await?)
}

async fn fsck(State(engine): State<Engine>, query: Query) -> Result {
    let report = engine
        .fsck(query.flag("repair"), query.flag("quick"))
        .await?;
    reply::ok(&report)
}

async fn drivers(State(engine): State<Engine>) -> Result<Response> {
    reply::ok(&engine.drivers().await)
}

async fn driver(
    State(engine): State<Engine>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response> {
    reply::ok(&engine.driver(&kind, &name).await?)
}

async fn migrate(
    State(engine): State<Engine>,
    Version(version): Version,
    body: Json<DriverMigrate>,
) -> Result<Response> {
    let messages = engine.migrate_storage(&body.or_default()).await?;
    Ok(reply::progress(version, messages))
}
