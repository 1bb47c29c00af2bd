//! Images. Their names contain slashes, so what follows a name is told apart by hand.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gantry_engine::{ByteReader, Engine, ImageListQuery, ImportSource};
use gantry_wire::ApiVersion;
use gantry_wire::shape::Reply;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::error::{ApiError, Result};
use crate::extract::{Path, Query, RegistryAuth, Version};
use crate::reply;
use crate::upload::Upload;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        .route("/images/search", get(search))
        .route("/images/{*name}", get(one).post(change).delete(remove))
}

async fn list(State(engine): State<Engine>, Version(version): Version, query: Query) -> Result {
    let list = engine.image_list(ImageListQuery {
        all: query.flag("all"),
        digests: query.flag("digests"),
        shared_size: version >= ApiVersion::new(1, 42) && query.flag("shared-size"),
        manifests: version >= ApiVersion::new(1, 47) && query.flag("manifests"),
        filters: query.filters()?,
    });
    reply::shaped(version, Reply::ImageList, &list.await?)
}

/// Pull, or import of the body.
async fn create(
    State(engine): State<Engine>,
    Version(version): Version,
    RegistryAuth(auth): RegistryAuth,
    query: Query,
    body: Body,
) -> Result {
    let platform = query.platform()?;
    let platform = platform.as_deref();
    let messages = match (query.some("fromImage"), query.text("fromSrc")) {
        (Some(from), _) => {
            engine
                .image_pull(from, query.some("tag"), platform, auth)
                .await?
        }
        (None, source) => {
            let source = match source {
                "-" => ImportSource::Body(reader(body)),
                url => ImportSource::Url(url.to_owned()),
            };
            engine
                .image_import(
                    source,
                    query.some("repo"),
                    query.some("tag"),
                    query.text("message"),
                    query.all("changes"),
                    platform,
                )
                .await?
        }
    };
    Ok(reply::progress(version, messages))
}

async fn load(
    State(engine): State<Engine>,
    Version(version): Version,
    query: Query,
    body: Body,
) -> Result {
    let platforms = query.platforms("platform")?;
    let messages = engine
        .image_load(reader(body), query.flag("quiet"), &platforms)
        .await?;
    Ok(reply::progress(version, messages))
}

/// The body as it arrives.
fn reader(body: Body) -> ByteReader {
    Box::pin(StreamReader::new(Upload::new(body)))
}

async fn save(State(engine): State<Engine>, query: Query) -> Result {
    archive(&engine, query.all("names"), &query).await
}

async fn archive(engine: &Engine, names: Vec<String>, query: &Query) -> Result {
    let platforms = query.platforms("platform")?;
    let archive = engine.image_save(names, &platforms).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(archive, 64 << 10));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// `{name}/json`, `{name}/history`, `{name}/get`.
async fn one(
    State(engine): State<Engine>,
    Version(version): Version,
    Path(path): Path,
    query: Query,
) -> Result {
    match path.rsplit_once('/') {
        Some((name, "json")) => {
            let manifests = version >= ApiVersion::new(1, 48) && query.flag("manifests");
            let platform = match version >= ApiVersion::new(1, 49) {
                true => query.platform()?,
                false => None,
            };
            if manifests && platform.is_some() {
                return Err(ApiError::bad_request(
                    "conflicting options: manifests and platform options cannot both be set",
                ));
            }
            let image = engine
                .image_inspect(name, platform.as_deref(), manifests)
                .await?;
            reply::shaped(version, Reply::ImageInspect, &image)
        }
        Some((name, "history")) => {
            let platform = query.platform()?;
            reply::ok(&engine.image_history(name, platform.as_deref()).await?)
        }
        Some((name, "get")) => archive(&engine, vec![name.to_owned()], &query).await,
        _ => Err(ApiError::no_such_page()),
    }
}

/// `{name}/tag`, `{name}/push`.
async fn change(
    State(engine): State<Engine>,
    Version(version): Version,
    RegistryAuth(auth): RegistryAuth,
    Path(path): Path,
    query: Query,
) -> Result {
    match path.rsplit_once('/') {
        Some((name, "tag")) => {
            engine
                .image_tag(name, query.text("repo"), query.text("tag"))
                .await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((name, "push")) => {
            let platform = query.platform()?;
            let messages = engine
                .image_push(name, query.some("tag"), platform.as_deref(), auth)
                .await?;
            Ok(reply::progress(version, messages))
        }
        _ => Err(ApiError::no_such_page()),
    }
}

async fn remove(State(engine): State<Engine>, Path(name): Path, query: Query) -> Result<Response> {
    let platforms = query.platforms("platforms")?;
    let (force, no_prune) = (query.flag("force"), query.flag("noprune"));
    let removed = engine
        .image_remove(&name, force, no_prune, &platforms)
        .await?;
    reply::ok(&removed)
}

async fn search(
    State(engine): State<Engine>,
    RegistryAuth(auth): RegistryAuth,
    query: Query,
) -> Result {
    let limit = query.number("limit")?.filter(|limit| *limit != 0);
    let found = engine
        .image_search(query.text("term"), limit, &query.filters()?, auth)
        .await?;
    reply::ok(&found)
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result {
    let pruned = engine.image_prune(query.filters()?).await?;
    reply::ok(&pruned.to_json("ImagesDeleted"))
}
