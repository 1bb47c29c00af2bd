use anyhow::Result;
use clap::Args;
use gantry_wire::ApiVersion;
use http_body_util::BodyExt;

use crate::app::App;
use crate::client::frames::{Channel, Demux};
use crate::client::hijack::write;
use crate::client::{Reply, segment};
use crate::error::{ApiError, Exit};
use crate::format::time::api_timestamp;

/// Flags of `logs`.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Forget what was logged so far, instead of showing it
    #[arg(long, conflicts_with_all = ["details", "follow", "since", "tail", "timestamps", "until"])]
    pub(crate) clear: bool,
    /// Show extra details provided to logs
    #[arg(long)]
    pub(crate) details: bool,
    /// Follow log output
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    pub(crate) since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(long, short = 'n', value_name = "string")]
    pub(crate) tail: Option<String>,
    /// Show timestamps
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    pub(crate) until: Option<String>,
    container: String,
}

impl Logs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let path = format!("/containers/{}", segment(&self.container));
        if self.clear {
            return Ok(client.delete(format!("{path}/logs")).done().await?);
        }
        let reply = client
            .get(format!("{path}/logs"))
            .flag("stdout", true)
            .flag("stderr", true)
            .maybe("since", self.since.as_deref().map(api_timestamp))
            .maybe("until", self.until.as_deref().map(api_timestamp))
            .flag("timestamps", self.timestamps)
            .flag("follow", self.follow)
            .flag("details", self.details)
            .query("tail", self.tail.as_deref().unwrap_or("all"))
            .send()
            .await?;
        let content_type = reply
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let raw = match content_type {
            "application/vnd.docker.multiplexed-stream" => false,
            "application/vnd.docker.raw-stream" if client.version() >= ApiVersion::new(1, 42) => {
                true
            }
            _ => client.get(format!("{path}/json")).value().await?["Config"]["Tty"] == true,
        };
        copy(reply, raw).await
    }
}

/// Output of one channel that came together, written together: a frame is a line, and a system call each is too much.
#[derive(Default)]
struct Joined {
    channel: Option<Channel>,
    bytes: Vec<u8>,
}

impl Joined {
    fn add(&mut self, channel: Channel, payload: &[u8]) -> std::io::Result<()> {
        if self.channel != Some(channel) {
            self.flush()?;
            self.channel = Some(channel);
        }
        self.bytes.extend_from_slice(payload);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let written = match self.channel {
            Some(channel) => write(channel, &self.bytes),
            None => Ok(()),
        };
        self.bytes.clear();
        written
    }
}

async fn copy(reply: Reply, raw: bool) -> Result<()> {
    let mut body = reply.into_body();
    let mut demux = Demux::default();
    let mut joined = Joined::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ApiError::from)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let written = if raw {
            write(Channel::Stdout, data)
        } else {
            let fed = demux.feed(data, |channel, payload| joined.add(channel, payload));
            joined.flush().and(fed)
        };
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Err(Exit::silent(141));
            }
            written => written?,
        }
    }
    Ok(())
}
