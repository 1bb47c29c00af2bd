use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::outln;

/// Flags of `stop` and `restart`.
#[derive(Args, Debug)]
pub(crate) struct StopFlags {
    /// Signal to send to the container
    #[arg(long, short, value_name = "string")]
    pub(crate) signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(long, short, alias = "time", value_name = "int")]
    pub(crate) timeout: Option<i64>,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl StopFlags {
    /// Sends `action` to every container.
    pub(crate) async fn send(self, app: &App, action: &str) -> Result<()> {
        let client = app.client()?;
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        for_each(self.containers, async |name| {
            client
                .post(format!("/containers/{}/{action}", segment(&name)))
                .maybe("t", timeout.as_ref())
                .maybe("signal", self.signal.as_ref())
                .done()
                .await?;
            outln!("{name}")
        })
        .await
    }
}

/// `stop`.
#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[command(flatten)]
    flags: StopFlags,
}

impl Stop {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        self.flags.send(app, "stop").await
    }
}
