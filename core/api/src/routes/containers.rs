//! Containers: everything that is one question and one answer.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post};
use gantry_engine::{Engine, EngineError, ListQuery, RemoveOptions};
use gantry_wire::shape::{self, Reply};
use gantry_wire::{ContainerCreateRequest, UpdateRequest, lenient};
use http::StatusCode;

use crate::error::{ApiError, Result};
use crate::extract::{Json, Path, Query, Version};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/{alias}", delete(unlink))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/top", get(top))
}

async fn list(State(engine): State<Engine>, Version(version): Version, query: Query) -> Result {
    let limit = query.number("limit")?.unwrap_or_default();
    let list = engine.container_list(ListQuery {
        all: query.flag("all"),
        limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        size: query.flag("size"),
        filters: query.filters()?,
    });
    reply::shaped(version, Reply::ContainerList, &list.await?)
}

async fn create(
    State(engine): State<Engine>,
    Version(version): Version,
    query: Query,
    body: Json<ContainerCreateRequest>,
) -> Result {
    let mut request = body.0.ok_or_else(|| {
        ApiError::bad_request("config cannot be empty in order to create a container")
    })?;
    shape::create_request(version, &mut request);
    let platform = query.platform()?;
    let created = engine
        .container_create(query.some("name"), platform.as_deref(), request)
        .await?;
    reply::json(StatusCode::CREATED, &created)
}

async fn inspect(
    State(engine): State<Engine>,
    Version(version): Version,
    Path(id): Path,
    query: Query,
) -> Result {
    let inspect = engine.container_inspect(&id, query.flag("size")).await?;
    reply::shaped(version, Reply::ContainerInspect, &inspect)
}

async fn start(
    State(engine): State<Engine>,
    Path(id): Path,
    query: Query,
    body: Bytes,
) -> Result<Response> {
    // Clients write `{}` or `null` where they have nothing to say.
    if body.trim_ascii().len() > 4 {
        return Err(ApiError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.some("checkpoint").is_some() {
        return Err(ApiError::bad_request(
            "checkpoint is only supported in experimental mode",
        ));
    }
    engine.container_start(&id).await?;
    Ok(reply::no_content())
}

async fn stop(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let timeout = query.number("t")?;
    engine
        .container_stop(&id, query.some("signal"), timeout)
        .await?;
    Ok(reply::no_content())
}

async fn restart(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let timeout = query.number("t")?;
    engine
        .container_restart(&id, query.some("signal"), timeout)
        .await?;
    Ok(reply::no_content())
}

async fn kill(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let signal = query.some("signal").unwrap_or("SIGKILL");
    engine.container_kill(&id, signal).await?;
    Ok(reply::no_content())
}

async fn pause(State(engine): State<Engine>, Path(id): Path) -> Result<Response> {
    engine.container_pause(&id).await?;
    Ok(reply::no_content())
}

async fn unpause(State(engine): State<Engine>, Path(id): Path) -> Result<Response> {
    engine.container_unpause(&id).await?;
    Ok(reply::no_content())
}

async fn rename(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    engine.container_rename(&id, query.text("name")).await?;
    Ok(reply::no_content())
}

async fn resize(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    let (height, width) = size(&query)?;
    engine.container_resize(&id, height, width).await?;
    Ok(axum::response::IntoResponse::into_response(StatusCode::OK))
}

async fn update(
    State(engine): State<Engine>,
    Path(id): Path,
    Version(version): Version,
    body: Json<UpdateRequest>,
) -> Result {
    let mut request = body.0.ok_or(lenient::Error::Empty)?;
    shape::update_request(version, &mut request);
    reply::ok(&engine.container_update(&id, request).await?)
}

/// The terminal size that resize is asked for: height, width.
pub(super) fn size(query: &Query) -> Result<(u16, u16)> {
    let side = |name| {
        let given = query.number(name)?;
        given
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid resize {} {:?}: value out of range",
                    if name == "h" { "height" } else { "width" },
                    query.text(name)
                ))
            })
    };
    Ok((side("h")?, side("w")?))
}

async fn top(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result {
    let ps_args = query.some("ps_args").unwrap_or("-ef");
    reply::ok(&engine.container_top(&id, ps_args).await?)
}

async fn remove(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result<Response> {
    if query.flag("link") {
        engine.container_unlink(&id).await?;
        return Ok(reply::no_content());
    }
    let options = RemoveOptions {
        force: query.flag("force"),
        volumes: query.flag("v"),
    };
    engine.container_remove(&id, options).await?;
    Ok(reply::no_content())
}

/// Only a link's name has two parts.
async fn unlink(
    State(engine): State<Engine>,
    axum::extract::Path((parent, alias)): axum::extract::Path<(String, String)>,
    query: Query,
) -> Result<Response> {
    let path = format!("{parent}/{alias}");
    if !query.flag("link") {
        return Err(EngineError::not_found(format!("No such container: {path}")).into());
    }
    engine.container_unlink(&path).await?;
    Ok(reply::no_content())
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result {
    let pruned = engine.container_prune(query.filters()?).await?;
    reply::ok(&pruned.to_json("ContainersDeleted"))
}
