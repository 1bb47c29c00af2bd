//! Docker's managed plugins, of which there are none: drivers are what extends this engine. What asks after a plugin is
//! answered as by an engine without any; installing one is refused.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use gantry_model::Reference;
use gantry_wire::lenient;
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, Result};
use crate::extract::{Path, Query};
use crate::reply;

/// The longest list that is read.
const MAX_BODY: usize = 1 << 20;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Names have slashes, so what follows them is told apart by hand.
    Router::new()
        .route("/plugins", get(list))
        .route("/plugins/{*rest}", get(inspect).delete(remove).post(change))
}

async fn list(query: Query) -> Result {
    let filters = query.filters()?;
    filters.check(&["capability", "enabled"])?;
    filters.flag("enabled")?;
    reply::ok(&[(); 0])
}

async fn inspect(Path(rest): Path, query: Query) -> Result {
    if rest == "privileges" {
        reference(query.text("remote"), "")?;
        return Err(not_installable());
    }
    let name = rest.strip_suffix("/json");
    Err(name.map_or_else(ApiError::no_such_page, missing))
}

async fn remove(Path(name): Path) -> ApiError {
    missing(&name)
}

async fn change(Path(rest): Path, query: Query, request: Request) -> Result<Response> {
    match rest.as_str() {
        "pull" => {
            privileges(&read(request).await?)?;
            reference(query.text("remote"), "")?;
            return Err(not_installable());
        }
        "create" => {
            reference(query.text("name"), "failed to parse reference : ")?;
            return Err(not_installable());
        }
        _ => {}
    }
    let (name, verb) = rest.rsplit_once('/').unwrap_or_default();
    match verb {
        "enable" => {
            let timeout = query.text("timeout");
            if timeout.parse::<i64>().is_err() {
                return Err(internal(format!(
                    "strconv.Atoi: parsing {timeout:?}: invalid syntax"
                )));
            }
        }
        "upgrade" => {
            privileges(&read(request).await?)?;
            reference(query.text("remote"), "")?;
        }
        "set" => drop(lenient::from_slice::<Vec<String>>(&read(request).await?)?),
        "disable" | "push" => {}
        _ => return Err(ApiError::no_such_page()),
    }
    Err(missing(name))
}

async fn read(request: Request) -> Result<Bytes> {
    axum::body::to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// What a plugin may do, as far as it matters: it is a list.
#[derive(Deserialize)]
struct Privilege {}

fn privileges(body: &[u8]) -> Result<()> {
    if body.is_empty() {
        return Err(internal("failed to parse privileges: EOF"));
    }
    let words = match lenient::from_slice::<Vec<Privilege>>(body) {
        Ok(_) => return Ok(()),
        Err(lenient::Error::Type(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(internal(format!("failed to parse privileges: {words}")))
}

fn reference(text: &str, before: &str) -> Result<()> {
    Reference::parse(text)
        .map(drop)
        .map_err(|error| internal(format!("{before}{error}")))
}

fn missing(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found"))
}

fn internal(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn not_installable() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "this engine is extended by drivers, not by managed plugins",
    )
}
