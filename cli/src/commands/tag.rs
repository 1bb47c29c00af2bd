use anyhow::Result;
use clap::Args;
use gantry_wire::Reference;

use crate::app::App;
use crate::client::name_path;

/// `tag`.
#[derive(Args, Debug)]
pub(crate) struct Tag {
    source: String,
    target: String,
}

impl Tag {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let target = Reference::parse(&self.target)
            .map_err(|error| {
                anyhow::anyhow!(
                    "Error parsing reference: {:?} is not a valid repository/tag: {error}",
                    self.target
                )
            })?
            .with_default_tag();
        app.client()?
            .post(format!("/images/{}/tag", name_path(&self.source)))
            .query("repo", target.name())
            .maybe("tag", target.tag())
            .done()
            .await?;
        Ok(())
    }
}
