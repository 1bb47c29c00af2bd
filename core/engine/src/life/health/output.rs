//! What is kept of a check's output.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Output that is kept of a check, bytes.
const KEPT: usize = 4096;

/// The first bytes of what a check said. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Output(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    more: bool,
}

impl Output {
    /// Takes bytes, as far as there is room; whether there was.
    pub(super) fn take(&self, bytes: &[u8]) -> bool {
        let mut kept = self.0.lock();
        let room = KEPT - kept.bytes.len();
        kept.bytes
            .extend_from_slice(&bytes[..room.min(bytes.len())]);
        kept.more |= bytes.len() > room;
        !kept.more
    }

    /// Reads a stream to its end, also what is not kept: a full pipe would stop the one who writes.
    pub(super) async fn read(&self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            self.take(&buffer[..read]);
        }
    }

    /// As text; three dots stand for the rest.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock();
        let mut text = String::from_utf8_lossy(&kept.bytes).into_owned();
        if kept.more {
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_beginning_is_kept() {
        let output = Output::default();
        output.read(&b"short"[..]).await;
        assert_eq!(output.text(), "short");
        output.read(&[b'x'; 10_000][..]).await;
        let text = output.text();
        assert_eq!(text.len(), KEPT + 3);
        assert!(text.starts_with("shortx") && text.ends_with("x..."));
    }
}
