//! Answers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use gantry_engine::{Logs, MessageStream};
use gantry_wire::shape::{self, Reply};
use gantry_wire::{ApiVersion, JsonMessage};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::error::Result;
use crate::extract::Client;

/// Content type of a stream of frames, each with an eight-byte header.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of a stream of bytes; before 1.42 also of frames.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
/// Content type of JSON, streams of it included.
pub(crate) const JSON: &str = "application/json";

/// JSON, with the line end that Go's encoder writes.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result {
    let mut bytes = serde_json::to_vec(body)?;
    bytes.push(b'\n');
    Ok((status, [(CONTENT_TYPE, JSON)], bytes).into_response())
}

/// 200 and JSON.
pub(crate) fn ok(body: &impl Serialize) -> Result {
    json(StatusCode::OK, body)
}

/// 200 and JSON as `version` knows it.
pub(crate) fn shaped(version: ApiVersion, reply: Reply, body: &impl Serialize) -> Result {
    let mut bytes = shape::reply(version, reply, body)?;
    bytes.push(b'\n');
    Ok(([(CONTENT_TYPE, JSON)], bytes).into_response())
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A body that is made as it is sent. It ends by itself; that the client left shows when it is written to.
pub(crate) fn stream<S>(content_type: &'static str, chunks: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let body = Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>));
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

/// A body that may be silent for ever, so that the client's leaving must be watched for.
pub(crate) fn endless<S>(client: Client, content_type: &'static str, chunks: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    stream(content_type, chunks.take_until(Box::pin(client.0.gone())))
}

/// The progress of a long operation, one JSON object a line.
pub(crate) fn progress(version: ApiVersion, messages: MessageStream) -> Response {
    stream(
        JSON,
        messages.map(move |message| progress_line(version, message).into()),
    )
}

fn progress_line(version: ApiVersion, message: JsonMessage) -> Vec<u8> {
    // A message is strings and numbers, which always serialise.
    let mut line = serde_json::to_vec(&shape::json_message(version, message)).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    line
}

/// The content type of a container's output.
pub(crate) fn output_type(version: ApiVersion, tty: bool) -> &'static str {
    if tty || version < ApiVersion::new(1, 42) {
        RAW
    } else {
        MULTIPLEXED
    }
}

/// A log as bytes: frames, or for a terminal as it is. A failure half-way is told on standard error.
pub(crate) fn log_bytes(logs: Logs) -> impl Stream<Item = Bytes> + Send {
    let tty = logs.tty;
    logs.stream.map(move |piece| {
        piece.unwrap_or_else(|error| {
            let words = format!("Error grabbing logs: {error}\n");
            let mut out = BytesMut::new();
            frame(&mut out, tty, 2, words.as_bytes());
            out.freeze()
        })
    })
}

fn frame(out: &mut BytesMut, tty: bool, stream: u8, bytes: &[u8]) {
    if !tty {
        out.put_slice(&frame_header(stream, bytes.len()));
    }
    out.put_slice(bytes);
}

/// The header before `length` bytes of standard output (1) or error (2). Frames are far shorter than 4 GiB.
pub(crate) fn frame_header(stream: u8, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let mut out = BytesMut::new();
        frame(&mut out, false, 2, b"abc");
        frame(&mut out, true, 1, b"d");
        assert_eq!(&out[..], b"\x02\0\0\0\0\0\0\x03abcd");
        assert_eq!(frame_header(1, 0x0102_0304), [1, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn output_types() {
        let v = |minor| ApiVersion::new(1, minor);
        assert_eq!(output_type(v(42), false), MULTIPLEXED);
        assert_eq!(output_type(v(41), false), RAW);
        assert_eq!(output_type(v(51), true), RAW);
    }

    #[test]
    fn progress_lines_end_like_dockerds() {
        let line = progress_line(ApiVersion::MAX, JsonMessage::status("Waiting"));
        assert_eq!(line, b"{\"status\":\"Waiting\"}\r\n");
    }
}
