//! Containers: what goes on for a while.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use gantry_engine::{AttachQuery, Engine, LogsQuery, WaitCondition};
use gantry_wire::ApiVersion;
use http::HeaderMap;
use http::header::USER_AGENT;

use crate::error::{ApiError, Result};
use crate::extract::{Client, Path, Query, Version};
use crate::hijack::{self, DetachKeys, Hijack, Input, Outcome, WebSocket};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/logs", get(logs).delete(clear_logs))
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(attach_websocket))
}

/// The head is sent as soon as the wait is registered: clients start the container when they see it.
async fn wait(
    State(engine): State<Engine>,
    Path(id): Path,
    client: Client,
    query: Query,
) -> Result {
    let condition: WaitCondition = query.text("condition").parse()?;
    let wait = engine.container_wait(&id, condition).await?;
    let line = wait.map(|reply| {
        // A reply is strings and numbers, which always serialise.
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        Bytes::from(line)
    });
    Ok(reply::endless(client, reply::JSON, line.into_stream()))
}

/// Whether a client is known to put frames together again: Docker's, which spends a system call, and the moving of 32 KiB,
/// on each. Others show a frame as a line.
fn joins_frames(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("Docker-Client/"))
}

async fn logs(
    State(engine): State<Engine>,
    Path(id): Path,
    Version(version): Version,
    client: Client,
    query: Query,
    headers: HeaderMap,
) -> Result {
    let asked = LogsQuery {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: query.time("since")?,
        until: query.time("until")?,
        timestamps: query.flag("timestamps"),
        // `all`, and whatever else is no number, is all.
        tail: query.text("tail").parse().ok(),
        details: query.flag("details"),
        joined: joins_frames(&headers),
    };
    if !(asked.stdout || asked.stderr) {
        return Err(ApiError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let follow = asked.follow;
    let logs = engine.container_logs(&id, asked).await?;
    let content_type = reply::output_type(version, logs.tty);
    let bytes = reply::log_bytes(logs).filter(|chunk| std::future::ready(!chunk.is_empty()));
    Ok(if follow {
        reply::endless(client, content_type, bytes)
    } else {
        reply::stream(content_type, bytes)
    })
}

/// An extension: forgets what the container has written so far.
async fn clear_logs(State(engine): State<Engine>, Path(id): Path) -> Result {
    engine.container_clear_logs(&id).await?;
    Ok(reply::no_content())
}

fn attach_query(query: &Query) -> AttachQuery {
    AttachQuery {
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        detach_keys: query.some("detachKeys").map(str::to_owned),
    }
}

async fn attach(
    State(engine): State<Engine>,
    Path(id): Path,
    Version(version): Version,
    query: Query,
    hijack: Hijack,
) -> Result {
    let asked = attach_query(&query);
    let keys = DetachKeys::parse(asked.detach_keys.as_deref())?;
    let stdin = asked.stdin;
    let attachment = engine.container_attach(&id, asked).await?;
    let content_type = reply::output_type(version, attachment.tty);
    let input = Input::new(stdin, attachment.tty, keys);
    Ok(hijack.accept(content_type, async move |taken| {
        if hijack::attach(taken, attachment, input).await? == Outcome::Detached {
            engine.container_detached(&id);
        }
        Ok(())
    }))
}

async fn attach_websocket(
    State(engine): State<Engine>,
    Path(id): Path,
    Version(version): Version,
    query: Query,
    socket: WebSocket,
) -> Result {
    let mut asked = attach_query(&query);
    // Before 1.42 every stream was joined, whatever was asked for.
    if version < ApiVersion::new(1, 42) {
        (asked.stdin, asked.stdout, asked.stderr) = (true, true, true);
    }
    let keys = DetachKeys::parse(asked.detach_keys.as_deref())?;
    let stdin = asked.stdin;
    let attachment = engine.container_attach(&id, asked).await?;
    let input = Input::new(stdin, attachment.tty, keys);
    let binary = version >= ApiVersion::new(1, 28);
    Ok(socket.accept(attachment, input, binary, move |outcome| {
        if outcome == Outcome::Detached {
            engine.container_detached(&id);
        }
    }))
}
