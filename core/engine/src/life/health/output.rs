//! What is kept of a check's output, and the words for one that took too long.

use std::sync::Arc;
use std::time::Duration;

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

/// Docker's words for a check that took too long.
pub(super) fn too_long(timeout: Duration, output: &str) -> String {
    let timeout = go_duration(timeout);
    match output {
        "" => format!("Health check exceeded timeout ({timeout})"),
        output => format!("Health check exceeded timeout ({timeout}): {output}"),
    }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let decimals = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        match decimals.trim_end_matches('0') {
            "" => (value / unit).to_string(),
            decimals => format!("{}.{decimals}", value / unit),
        }
    };
    const SECOND: u128 = 1_000_000_000;
    match nanoseconds {
        0 => "0s".into(),
        1..1000 => format!("{nanoseconds}ns"),
        1000..1_000_000 => format!("{}µs", fraction(nanoseconds, 1000)),
        1_000_000..SECOND => format!("{}ms", fraction(nanoseconds, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanoseconds / (60 * SECOND), nanoseconds % (60 * SECOND));
            let seconds = fraction(rest, SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
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

    #[test]
    fn durations_as_go_prints_them() {
        for (milliseconds, want) in [
            (700, "700ms"),
            (30_000, "30s"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (3_661_010, "1h1m1.01s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), want);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(
            too_long(Duration::from_secs(1), "half"),
            "Health check exceeded timeout (1s): half"
        );
    }
}
