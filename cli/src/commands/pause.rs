use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::outln;

/// `pause`.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Pause {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.containers, async |name| {
            client
                .post(format!("/containers/{}/pause", segment(&name)))
                .done()
                .await?;
            outln!("{name}")
        })
        .await
    }
}
