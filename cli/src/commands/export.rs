use anyhow::Result;
use clap::Args;

use super::save::{check_output, download};
use crate::app::App;
use crate::client::segment;

/// Flags of `export`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(long, short, value_name = "string")]
    pub(crate) output: Option<String>,
    container: String,
}

impl Export {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let output = check_output(self.output.as_deref(), "export")?;
        let path = format!("/containers/{}/export", segment(&self.container));
        download(app.client()?.get(path).send().await?, output).await
    }
}
