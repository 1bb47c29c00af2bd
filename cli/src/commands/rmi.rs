use anyhow::{Result, bail};
use clap::Args;

use super::push::platform_json;
use crate::app::App;
use crate::client::name_path;
use crate::error::is_not_found;
use crate::format::outln;

/// Flags of `rmi`.
#[derive(Args, Debug)]
pub(crate) struct Rmi {
    /// Force removal of the image
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let platforms = self
            .platform
            .iter()
            .map(|text| platform_json(text))
            .collect::<Result<Vec<_>>>()?;
        let mut errors = Vec::new();
        let mut fatal = false;
        for image in &self.images {
            let mut request = client
                .delete(format!("/images/{}", name_path(image)))
                .flag("force", self.force)
                .maybe("noprune", self.no_prune.then_some("1"));
            for platform in &platforms {
                request = request.query("platforms", platform);
            }
            match request.value().await.map_err(anyhow::Error::from) {
                Ok(removed) => {
                    for item in removed.as_array().into_iter().flatten() {
                        match item["Deleted"].as_str().filter(|id| !id.is_empty()) {
                            Some(id) => outln!("Deleted: {id}")?,
                            None => outln!(
                                "Untagged: {}",
                                item["Untagged"].as_str().unwrap_or_default()
                            )?,
                        }
                    }
                }
                Err(error) => {
                    fatal |= !is_not_found(&error);
                    errors.push(error.to_string());
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let message = errors.join("\n");
        if !self.force || fatal {
            bail!(message);
        }
        eprintln!("{message}");
        Ok(())
    }
}
