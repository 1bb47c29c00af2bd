use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::outln;

/// Flags of `kill`.
#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Signal to send to the container
    #[arg(long, short, value_name = "string")]
    pub(crate) signal: Option<String>,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.containers, async |name| {
            client
                .post(format!("/containers/{}/kill", segment(&name)))
                .maybe("signal", self.signal.as_ref())
                .done()
                .await?;
            outln!("{name}")
        })
        .await
    }
}
