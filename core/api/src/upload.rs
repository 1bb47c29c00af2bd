//! Bodies of requests that carry archives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// A request's body that is read to its end when the engine wants no more of it: clients write theirs out before they
/// look at the answer, and would only see the connection break.
pub(crate) struct Upload(Option<BodyDataStream>);

/// How long a rejected upload may go on.
const REJECTED: Duration = Duration::from_secs(30);

impl Upload {
    /// The body of a request.
    pub(crate) fn new(body: Body) -> Self {
        Self(Some(body.into_data_stream()))
    }
}

impl Stream for Upload {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let chunk = ready!(body.poll_next_unpin(cx));
        if chunk.is_none() {
            self.0 = None;
        }
        Poll::Ready(chunk.map(|c| c.map_err(std::io::Error::other)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(mut body), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(tokio::time::timeout(REJECTED, async move {
                while let Some(Ok(_)) = body.next().await {}
            }));
        }
    }
}
