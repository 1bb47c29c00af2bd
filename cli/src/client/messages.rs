//! Streams of JSON objects, one a line.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::Reply;
use crate::error::ApiError;

/// A message longer than this is refused.
const MAX_MESSAGE: usize = 16 << 20;

/// The messages of a reply, as they arrive.
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Messages {
    pub(crate) fn new(reply: Reply) -> Self {
        Self {
            body: reply.into_body(),
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// The next message, or none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line).map(Some);
            }
            if self.ended {
                let rest = self.buffer.split();
                return if rest.iter().all(u8::is_ascii_whitespace) {
                    Ok(None)
                } else {
                    parse(&rest).map(Some)
                };
            }
            if self.buffer.len() > MAX_MESSAGE {
                return Err(ApiError::Reply("message too long".into()));
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                None => self.ended = true,
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(line).map_err(|error| ApiError::Reply(error.to_string()))
}
