//! Looking into containers: archives in and out, changes, images made of them.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use gantry_engine::{ByteStream, CommitQuery, CopyInto, Engine, StatsMode};
use gantry_wire::spec::ContainerConfig;
use gantry_wire::{IdReply, PathStat};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio_util::io::StreamReader;

use crate::error::{ApiError, Result};
use crate::extract::{Client, Json, Path, Query};
use crate::reply;
use crate::upload::Upload;

const TAR: &str = "application/x-tar";
const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route(
            "/containers/{id}/archive",
            get(archive).head(stat_path).put(extract),
        )
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/changes", get(changes))
        .route("/containers/{id}/stats", get(stats))
        .route("/commit", post(commit))
}

fn asked_path(query: &Query) -> Result<&str> {
    query
        .some("path")
        .ok_or_else(|| ApiError::bad_request("bad parameter: path cannot be empty"))
}

fn path_stat(stat: &PathStat) -> Result<HeaderValue> {
    let text = base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(stat)?);
    HeaderValue::from_str(&text).map_err(|_| ApiError::bad_request("path is not printable"))
}

async fn stat_path(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result {
    let stat = engine.container_stat_path(&id, asked_path(&query)?).await?;
    Ok(([(PATH_STAT, path_stat(&stat)?)], StatusCode::OK).into_response())
}

async fn archive(State(engine): State<Engine>, Path(id): Path, query: Query) -> Result {
    let archive = engine.container_archive(&id, asked_path(&query)?).await?;
    let mut response = bytes(TAR, archive.content);
    response
        .headers_mut()
        .insert(PATH_STAT, path_stat(&archive.stat)?);
    Ok(response)
}

async fn extract(State(engine): State<Engine>, Path(id): Path, query: Query, body: Body) -> Result {
    let into = CopyInto {
        path: asked_path(&query)?.to_owned(),
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: query.flag("copyUIDGID"),
    };
    let body = Box::pin(StreamReader::new(Upload::new(body)));
    engine.container_extract(&id, into, body).await?;
    Ok(StatusCode::OK.into_response())
}

async fn export(State(engine): State<Engine>, Path(id): Path) -> Result {
    Ok(bytes(
        "application/octet-stream",
        engine.container_export(&id).await?,
    ))
}

/// Bytes whose end shows whether they are all: on an error the connection is cut.
fn bytes(content_type: &'static str, stream: ByteStream) -> Response {
    let body = Body::from_stream(stream);
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

async fn changes(State(engine): State<Engine>, Path(id): Path) -> Result {
    reply::ok(&engine.container_changes(&id).await?)
}

async fn stats(
    State(engine): State<Engine>,
    Path(id): Path,
    client: Client,
    query: Query,
) -> Result {
    // Streaming is what one gets who says nothing.
    if query.text("stream").is_empty() || query.flag("stream") {
        let lines = engine.container_stats_stream(&id).await?;
        let lines = futures_util::StreamExt::map(lines, std::result::Result::unwrap_or_default);
        return Ok(reply::endless(client, reply::JSON, lines));
    }
    let mode = match query.flag("one-shot") {
        true => StatsMode::OneShot,
        false => StatsMode::Once,
    };
    reply::ok(&engine.container_stats(&id, mode).await?)
}

async fn commit(
    State(engine): State<Engine>,
    query: Query,
    body: Json<Option<ContainerConfig>>,
) -> Result {
    let asked = CommitQuery {
        repo: query.some("repo").map(str::to_owned),
        tag: query.some("tag").map(str::to_owned),
        author: query.text("author").to_owned(),
        comment: query.text("comment").to_owned(),
        pause: query.text("pause").is_empty() || query.flag("pause"),
        changes: query.all("changes"),
    };
    let container = query.text("container");
    let id = engine
        .container_commit(container, asked, body.0.flatten())
        .await?;
    reply::json(StatusCode::CREATED, &IdReply { id })
}
