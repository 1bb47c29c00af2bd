//! Real clients over socket pairs, with routes that need no engine.

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::*;
use crate::error::Result as Reply;
use crate::extract::{Client, Json, Path};
use crate::hijack::{DetachKeys, Hijack, Input};
use crate::reply;

/// Echoes what a taken connection sends, until it half-closes.
async fn echo(hijack: Hijack) -> Reply {
    let (ours, monitor) =
        UnixStream::pair().map_err(|e| crate::error::ApiError::bad_request(e.to_string()))?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let _ = sender.send(ours);
    tokio::spawn(async move {
        let (mut input, mut output) = monitor.into_split();
        tokio::io::copy(&mut input, &mut output).await
    });
    let attachment = gantry_engine::Attachment {
        tty: false,
        replay: None,
        stream: Some(receiver),
    };
    let keys = DetachKeys::parse(None)?;
    Ok(hijack.accept(reply::RAW, move |taken| {
        let input = Input::new(true, false, keys);
        async {
            crate::hijack::attach(taken, attachment, input)
                .await
                .map(drop)
        }
    }))
}

async fn mirror(body: Json<Value>) -> Reply {
    reply::ok(&body.or_default())
}

/// A server on one end of a pair; the other end, and the switch that stops it.
fn server(routes: Router) -> (UnixStream, CancellationToken) {
    let routes = routes
        .route("/part/{part}", get(async |part: Path| part.0))
        .route("/containers/{id}/attach", post(echo))
        .route("/mirror", post(mirror));
    let (here, there) = UnixStream::pair().unwrap();
    let stop = CancellationToken::new();
    let service = Service::new(crate::routes::finish(routes));
    tokio::spawn(connection(Socket::Unix(here), None, service, stop.clone()));
    (there, stop)
}

async fn ask(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    let (client, _stop) = server(Router::new());
    let (mut sender, http) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .unwrap();
    tokio::spawn(http);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (head.status, head.headers, body)
}

fn message(text: &str) -> String {
    format!("{}\n", json!({ "message": text }))
}

#[tokio::test]
async fn ping_tells_what_clients_negotiate_by() {
    let (status, headers, body) = ask(Method::GET, "/v1.24/_ping", &[], "").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "OK"));
    for (name, value) in [
        ("api-version", "1.51"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("content-type", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(headers["server"].to_str().unwrap().starts_with("Gantry/"));
    let (status, headers, _) = ask(Method::HEAD, "/_ping", &[], "").await;
    assert_eq!(
        (status, &headers["content-length"]),
        (StatusCode::OK, &http::HeaderValue::from(0))
    );
}

#[tokio::test]
async fn what_is_not_there_is_dockerds_404() {
    for (method, path) in [
        (Method::GET, "/nothing"),
        (Method::GET, "/v1.x/_ping"),
        (Method::POST, "/_ping"),
        (Method::GET, "/v1.40"),
    ] {
        let (status, headers, body) = ask(method, path, &[], "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(body, message("page not found"));
        assert_eq!(headers["api-version"], "1.51");
    }
}

#[tokio::test]
async fn a_part_of_the_path_is_decoded_or_refused() {
    let (status, _, body) = ask(Method::GET, "/part/a%2Fb", &[], "").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "a/b"));
    let (status, headers, body) = ask(Method::GET, "/part/%ff", &[], "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(headers["content-type"], "application/json");
    assert!(body.starts_with("{\"message\":"), "{body}");
}

#[tokio::test]
async fn versions_and_swarm_are_refused_in_dockerds_words() {
    let (status, _, body) = ask(Method::GET, "/v1.99/_ping", &[], "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        body,
        message("client version 1.99 is too new. Maximum supported API version is 1.51")
    );
    for path in ["/swarm", "/v1.51/nodes", "/services/create"] {
        let (status, _, body) = ask(Method::GET, path, &[], "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("This node is not a swarm manager."), "{body}");
    }
}

#[tokio::test]
async fn json_bodies_are_checked_as_dockerd_checks_them() {
    let json_type = ("content-type", "application/json; charset=utf-8");
    let good = ask(Method::POST, "/mirror", &[json_type], r#"{"a": 1}"#).await;
    assert_eq!((good.0, good.2.as_str()), (StatusCode::OK, "{\"a\":1}\n"));
    let none = ask(Method::POST, "/mirror", &[], "").await;
    assert_eq!((none.0, none.2.as_str()), (StatusCode::OK, "null\n"));
    for (headers, body, want) in [
        (
            vec![("content-type", "text/plain")],
            "{}",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (
            vec![],
            "{}",
            "malformed Content-Type header (): mime: no media type",
        ),
        (
            vec![json_type],
            "hello",
            "invalid JSON: invalid character 'h' looking for beginning of value",
        ),
        (vec![json_type], "{} {}", "unexpected content after JSON"),
        (vec![json_type], "{", "invalid JSON: unexpected EOF"),
    ] {
        let (status, _, said) = ask(Method::POST, "/mirror", &headers, body).await;
        assert_eq!((status, said), (StatusCode::BAD_REQUEST, message(want)));
    }
}

/// Reads up to and with the empty line.
async fn read_head(client: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends, half-closes, and reads the rest.
async fn finish(mut client: UnixStream, input: &[u8]) -> Vec<u8> {
    client.write_all(input).await.unwrap();
    client.shutdown().await.unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    output
}

#[tokio::test]
async fn a_connection_is_taken_over_by_upgrade() {
    let (mut client, _stop) = server(Router::new());
    client
        .write_all(
            b"POST /v1.51/containers/a/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
              Upgrade: tcp\r\nContent-Length: 0\r\n\r\nearly,",
        )
        .await
        .unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/vnd.docker.raw-stream\r\n"));
    assert!(head.contains("\r\nUpgrade: tcp\r\n"));
    assert_eq!(finish(client, b"late").await, b"early,late");
}

#[tokio::test]
async fn a_connection_is_taken_over_without_being_asked_for() {
    let (mut client, _stop) = server(Router::new());
    // The second request of the connection, in pieces.
    client
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    client.read_exact(&mut [0; 2]).await.unwrap();
    for piece in [
        "PO",
        "ST /v1.24/containers/a/att",
        "ach HTTP/1.1\r\nHost:",
        " x\r\n\r\n",
    ] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let head = read_head(&mut client).await;
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    );
    assert_eq!(finish(client, b"hello").await, b"hello");
}

#[tokio::test]
async fn a_body_that_looks_like_such_a_request_is_left_alone() {
    let (told, mut reached) = mpsc::channel(1);
    let back = async move |body: axum::body::Body| {
        told.send(()).await.unwrap();
        axum::body::to_bytes(body, 1 << 10).await.unwrap()
    };
    let (mut client, _stop) = server(Router::new().route("/back", post(back)));
    let body = "POST /containers/a/attach HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = body.len();
    let head = format!("POST /back HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    reached.recv().await.unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    let mut answer = vec![0; length];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), body);
}

#[tokio::test]
async fn an_endless_answer_ends_with_its_client_and_with_the_server() {
    for server_stops in [false, true] {
        let (told, mut ended) = mpsc::channel::<()>(1);
        let silent = async move |client: Client| {
            let held = told.clone();
            let silence = stream::pending().inspect(move |_: &Bytes| drop(held.clone()));
            reply::endless(client, reply::JSON, silence)
        };
        let (mut client, stop) = server(Router::new().route("/silent", get(silent)));
        client
            .write_all(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(
            read_head(&mut client)
                .await
                .contains("Transfer-Encoding: chunked")
        );
        if server_stops {
            stop.cancel();
            assert_eq!(finish(client, b"").await, b"0\r\n\r\n");
        } else {
            drop(client);
        }
        // The last sender is gone when stream and routes are.
        assert_eq!(ended.recv().await, None);
    }
}

#[tokio::test]
async fn http2_is_spoken_to_those_who_know() {
    let (client, _stop) = server(Router::new());
    let (mut sender, http) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
            .await
            .unwrap();
    tokio::spawn(http);
    let request = Request::get("http://x/_ping")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["api-version"], "1.51");
    assert_eq!(answer.collect().await.unwrap().to_bytes(), "OK");
}

#[tokio::test]
async fn idle_connections_end_with_the_server() {
    let (mut client, stop) = server(Router::new());
    stop.cancel();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}
