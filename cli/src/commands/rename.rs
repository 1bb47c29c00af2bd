use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::app::App;
use crate::client::segment;

/// `rename`.
#[derive(Args, Debug)]
pub(crate) struct Rename {
    container: String,
    new_name: String,
}

impl Rename {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.container.trim().is_empty() || self.new_name.trim().is_empty() {
            bail!("Error: Neither old nor new names may be empty");
        }
        let path = format!("/containers/{}/rename", segment(&self.container));
        let renamed = app
            .client()?
            .post(path)
            .query("name", &self.new_name)
            .done()
            .await;
        renamed.map_err(|error| {
            anyhow!(
                "{error}\nError: failed to rename container named {}",
                self.container
            )
        })
    }
}
