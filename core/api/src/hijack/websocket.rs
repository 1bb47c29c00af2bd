//! Attach over a websocket: output comes as messages without Docker's frames, input goes as messages.

use std::io;
use std::pin::{Pin, pin};

use axum::extract::FromRequestParts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use gantry_engine::Attachment;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, handshake::derive_accept_key};

use super::frames::Demux;
use super::{Hijack, Input, LINGER, Outcome};
use crate::error::ApiError;
use crate::reply::log_bytes;
use crate::transport::Stream;

/// Output is moved in pieces of this size.
const OUTPUT: usize = 64 << 10;
/// The longest message that is taken as input.
const MAX_INPUT: usize = 1 << 20;

type Socket = WebSocketStream<Stream>;
type Sink = SplitSink<Socket, Message>;

/// A request for a websocket.
pub(crate) struct WebSocket {
    hijack: Hijack,
    accept: HeaderValue,
}

impl<S: Sync> FromRequestParts<S> for WebSocket {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let names = |headers: &HeaderMap, name, word: &str| {
            let values = headers.get_all(name).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|value| value.trim().eq_ignore_ascii_case(word))
        };
        let headers = &parts.headers;
        if !names(headers, UPGRADE, "websocket") || !names(headers, CONNECTION, "upgrade") {
            return Err(ApiError::bad_request("not websocket protocol"));
        }
        if !names(headers, SEC_WEBSOCKET_VERSION, "13") {
            return Err(ApiError::bad_request("missing or bad WebSocket Version"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY);
        let accept = key
            .map(|key| derive_accept_key(key.as_bytes()))
            .and_then(|accept| HeaderValue::from_str(&accept).ok())
            .ok_or_else(|| ApiError::bad_request("missing or bad Sec-WebSocket-Key"))?;
        let hijack = Hijack::from_request_parts(parts, state).await?;
        Ok(Self { hijack, accept })
    }
}

impl WebSocket {
    /// Answers 101 and joins the client. Messages are binary or, as before API 1.28, text. `done` is told how it ended.
    pub(crate) fn accept(
        self,
        attachment: Attachment,
        stdin: Input,
        binary: bool,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Response {
        let headers = [
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_ACCEPT, self.accept),
        ];
        self.hijack.switch(headers, async move |taken| {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_INPUT))
                .max_frame_size(Some(MAX_INPUT));
            let early = taken.early.to_vec();
            let left = taken.conn.clone().left();
            let socket = WebSocketStream::from_partially_read(
                taken.stream,
                early,
                Role::Server,
                Some(config),
            );
            let (sink, source) = socket.await.split();
            let data = if binary { Data::Binary } else { Data::Text };
            let output = Output {
                sink,
                data,
                demux: Demux::new(attachment.tty),
            };
            done(pump(output, source, attachment, stdin, left).await?);
            Ok(())
        })
    }
}

/// Where output goes.
struct Output {
    sink: Sink,
    data: Data,
    demux: Demux,
}

impl Output {
    /// Sends what is in these bytes. Text is not looked at: a chunk may end within a character.
    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((payload, after)) = self.demux.next(bytes) {
            let payload = Bytes::copy_from_slice(payload);
            let frame = Frame::message(payload, OpCode::Data(self.data), true);
            let sent = self.sink.feed(Message::Frame(frame)).await;
            sent.map_err(io::Error::other)?;
            bytes = after;
        }
        self.sink.flush().await.map_err(io::Error::other)
    }
}

/// Plays the log, then carries messages both ways until the container's output ends, the client leaves or detaches.
async fn pump(
    mut output: Output,
    mut source: SplitStream<Socket>,
    attachment: Attachment,
    stdin: Input,
    left: impl Future<Output = ()>,
) -> io::Result<Outcome> {
    let mut left = pin!(left);
    if let Some(logs) = attachment.replay {
        let mut chunks = pin!(log_bytes(logs));
        while let Some(chunk) = chunks.next().await {
            output.send(&chunk).await?;
        }
    }
    let container = match attachment.stream {
        None => None,
        Some(stream) => tokio::select! {
            // An error means that it will not start; the start's own caller is told why.
            container = stream => container.ok(),
            () = left.as_mut() => return Ok(Outcome::Ended),
        },
    };
    let mut outcome = Outcome::Ended;
    if let Some(container) = container {
        let (mut from, to) = container.into_split();
        let copy = async {
            let mut buffer = vec![0; OUTPUT];
            loop {
                match from.read(&mut buffer).await? {
                    0 => return io::Result::Ok(()),
                    count => output.send(&buffer[..count]).await?,
                }
            }
        };
        outcome = tokio::select! {
            result = copy => result.map(|()| Outcome::Ended)?,
            outcome = input(&mut source, to, stdin, left) => outcome,
        };
    }
    // A client that is gone is told nothing; another answers the end with its own.
    let farewell = async {
        if output.sink.close().await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
    Ok(outcome)
}

/// Resolves when the client detaches or leaves.
async fn input(
    source: &mut SplitStream<Socket>,
    mut container: OwnedWriteHalf,
    mut stdin: Input,
    left: Pin<&mut impl Future<Output = ()>>,
) -> Outcome {
    let mut passed = Vec::new();
    while let Some(Ok(message)) = source.next().await {
        let typed = match message {
            Message::Binary(typed) => typed,
            Message::Text(typed) => typed.into(),
            Message::Close(_) => return Outcome::Ended,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let mut bytes: &[u8] = &typed;
        let mut detached = false;
        match &mut stdin {
            Input::None => continue,
            Input::Plain => {}
            Input::Scanned(keys) => {
                passed.clear();
                detached = keys.pass(&typed, &mut passed);
                bytes = &passed;
            }
        }
        let written = container.write_all(bytes).await;
        if detached {
            // Dropping the half would shut it down, which is the end of input.
            container.forget();
            return Outcome::Detached;
        }
        // It takes no more input; its output goes on.
        if written.is_err() {
            left.await;
            break;
        }
    }
    Outcome::Ended
}
