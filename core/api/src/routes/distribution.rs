//! What registries hold. Names contain slashes, so what follows a name is told apart by hand.
//!
//! Everything below `/gantry/registry/` is this engine's own: `{name}/manifest` (also to be deleted), `{name}/tags` and
//! `{name}/referrers`.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use gantry_engine::Engine;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use serde_json::json;

use crate::error::{ApiError, Result};
use crate::extract::{Path, RegistryAuth};
use crate::reply;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/distribution/{*name}", get(inspect))
        .route("/gantry/registry/{*name}", get(look).delete(delete))
}

async fn inspect(
    State(engine): State<Engine>,
    RegistryAuth(auth): RegistryAuth,
    Path(path): Path,
) -> Result {
    let Some(name) = path.strip_suffix("/json") else {
        return Err(ApiError::no_such_page());
    };
    reply::ok(&engine.distribution_inspect(name, &auth).await?)
}

async fn look(
    State(engine): State<Engine>,
    RegistryAuth(auth): RegistryAuth,
    Path(path): Path,
) -> Result {
    match path.rsplit_once('/') {
        Some((name, "manifest")) => {
            let image = engine.remote_manifest(name, &auth).await?;
            let headers = [
                (CONTENT_TYPE, image.media_type),
                (DIGEST, image.digest.to_string()),
            ];
            Ok((headers, image.document).into_response())
        }
        Some((name, "tags")) => {
            let tags = engine.remote_tags(name, &auth).await?;
            reply::ok(&json!({ "Tags": tags }))
        }
        Some((name, "referrers")) => {
            let index = engine.remote_referrers(name, &auth).await?;
            Ok(([(CONTENT_TYPE, INDEX)], index).into_response())
        }
        _ => Err(ApiError::no_such_page()),
    }
}

async fn delete(
    State(engine): State<Engine>,
    RegistryAuth(auth): RegistryAuth,
    Path(path): Path,
) -> Result<Response> {
    let Some(name) = path.strip_suffix("/manifest") else {
        return Err(ApiError::no_such_page());
    };
    let digest = engine.remote_delete(name, &auth).await?;
    reply::ok(&json!({"Deleted": digest.to_string()}))
}
