use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::outln;

/// `unpause`.
#[derive(Args, Debug)]
pub(crate) struct Unpause {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Unpause {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.containers, async |name| {
            client
                .post(format!("/containers/{}/unpause", segment(&name)))
                .done()
                .await?;
            outln!("{name}")
        })
        .await
    }
}
