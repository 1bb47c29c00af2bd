//! A user's terminal or pipes connected to a process in a container.

use std::time::Duration;

use anyhow::Result;
use gantry_wire::WaitReply;

use crate::app::App;
use crate::client::hijack::{Ended, Hijacked, Pumps, Wanted};
use crate::client::{Client, Reply, segment};
use crate::error::{ApiError, Exit};
use crate::terminal::detach::{DEFAULT_KEYS, parse_keys};
use crate::terminal::{self, RawMode, signals};

/// Streams being copied, and the terminal's mode while they are.
pub(crate) struct Session {
    pumps: Pumps,
    raw: Option<RawMode>,
}

/// What becomes of signals that reach us during a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signals {
    /// Somebody passes them on.
    Forwarded,
    /// They end us; the terminal is restored first.
    Fatal,
}

impl Session {
    /// Asks for the streams of the container at `path` and connects ours.
    pub(crate) async fn attach(
        client: &Client,
        path: &str,
        wanted: Wanted,
        keys: Option<&str>,
        signals: Signals,
    ) -> Result<Self> {
        let hijacked = client
            .post(format!("{path}/attach"))
            .flag("stream", true)
            .flag("stdin", wanted.stdin)
            .flag("stdout", wanted.stdout)
            .flag("stderr", wanted.stderr)
            .maybe("detachKeys", keys)
            .hijack()
            .await?;
        Self::begin(hijacked, wanted, keys, signals)
    }

    /// Connects our streams. `keys` is the user's choice of detach keys.
    pub(crate) fn begin(
        hijacked: Hijacked,
        wanted: Wanted,
        keys: Option<&str>,
        signals: Signals,
    ) -> Result<Self> {
        let interactive = wanted.tty && wanted.stdin;
        let raw = if interactive {
            RawMode::enable()?
        } else {
            None
        };
        if let (Some(raw), Signals::Fatal) = (&raw, signals) {
            raw.restore_on_signals()?;
        }
        let parsed = |keys| parse_keys(keys).ok();
        let keys = interactive.then(|| {
            keys.and_then(parsed)
                .unwrap_or_else(|| DEFAULT_KEYS.to_vec())
        });
        Ok(Self {
            pumps: hijacked.start(wanted, keys)?,
            raw,
        })
    }

    /// Waits for the end; meanwhile the size of our terminal is passed on to `resize`.
    pub(crate) async fn finish(mut self, client: &Client, resize: Option<&str>) -> Result<Ended> {
        let ended = tokio::select! {
            ended = self.pumps.finished() => ended,
            never = follow_size(client, resize) => match never {},
        };
        drop(self.raw.take());
        match ended {
            // A reader of our output that has had enough is no error of ours to tell of.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::silent(141)),
            ended => Ok(ended?),
        }
    }

    /// Gives up on a process that did not start.
    pub(crate) fn abandon(self) {
        self.pumps.close();
    }
}

/// The keys that the user has chosen to detach with: by a flag, or in the configuration file.
pub(crate) fn detach_keys<'a>(app: &'a App, flag: Option<&'a str>) -> Option<&'a str> {
    flag.or_else(|| app.config().text("detachKeys"))
}

/// Tells the daemon our terminal's size now and whenever it changes.
async fn follow_size(client: &Client, path: Option<&str>) -> std::convert::Infallible {
    let (Some(path), true) = (path, terminal::stdout_is_terminal()) else {
        return std::future::pending().await;
    };
    let Ok(mut changes) = signals::window_changes() else {
        return std::future::pending().await;
    };
    // The process may not be there yet.
    for attempt in 1..=10u32 {
        if resize(client, path, 0).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10) * attempt).await;
    }
    loop {
        changes.recv().await;
        // It may just have ended; the streams will tell.
        let _ = resize(client, path, 0).await;
    }
}

/// Sets the size of the terminal at `path`; `extra` rows make a change where there was none, so that it is drawn anew.
pub(crate) async fn resize(client: &Client, path: &str, extra: u16) -> Result<(), ApiError> {
    let Some((rows, columns)) = terminal::size() else {
        return Ok(());
    };
    client
        .post(format!("{path}/resize"))
        .query("h", (rows + extra).to_string())
        .query("w", columns.to_string())
        .done()
        .await
}

/// So many requests to end are taken as meant for us.
const IMPATIENCE: usize = 3;

/// Passes signals on to a container. Returns only when the user has lost patience.
pub(crate) async fn forward_signals(client: &Client, id: &str) -> Result<std::convert::Infallible> {
    let mut arrivals = signals::catch()?;
    let mut terminations = 0;
    while let Some(name) = arrivals.recv().await {
        terminations += usize::from(matches!(name, "INT" | "TERM"));
        if terminations == IMPATIENCE {
            return Err(Exit::with(
                1,
                format!("\ngot {IMPATIENCE} SIGTERM/SIGINTs, forcefully exiting"),
            ));
        }
        // A container that is gone needs no signal.
        let _ = client
            .post(format!("/containers/{}/kill", segment(id)))
            .query("signal", name)
            .done()
            .await;
    }
    std::future::pending().await
}

/// Begins to wait for a container; the reply's headers say that the daemon is watching.
pub(crate) async fn begin_wait(
    client: &Client,
    id: &str,
    condition: &str,
) -> Result<Reply, ApiError> {
    client
        .post(format!("/containers/{}/wait", segment(id)))
        .maybe("condition", Some(condition))
        .send()
        .await
}

/// Ends as the container does that is waited for.
pub(crate) async fn ends_as(reply: Reply) -> Result<()> {
    match exit_code(reply).await {
        0 => Ok(()),
        code => Err(Exit::silent(code)),
    }
}

/// The exit code that a wait ends with; 125 if the daemon could not tell it.
pub(crate) async fn exit_code(reply: Reply) -> i32 {
    match read_wait(reply).await {
        Ok(WaitReply {
            error: Some(error), ..
        }) if !error.message.is_empty() => {
            eprintln!("Error waiting for container: {}", error.message);
            125
        }
        Ok(ended) => ended.status_code as i32,
        Err(error) => {
            eprintln!("Error waiting for container: {error}");
            125
        }
    }
}

async fn read_wait(reply: Reply) -> Result<WaitReply, ApiError> {
    use http_body_util::BodyExt;
    let bytes = reply.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| ApiError::Reply(error.to_string()))
}
