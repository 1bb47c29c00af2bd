use anyhow::{Result, bail};
use clap::Args;

use crate::app::App;
use crate::client::name_path;
use crate::error::{for_each, is_not_found};
use crate::format::outln;

/// Flags of `rm`.
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Remove the specified link
    #[arg(long, short)]
    pub(crate) link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(long, short)]
    pub(crate) volumes: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.containers, async |name| {
            let trimmed = name.trim_matches('/');
            if trimmed.is_empty() {
                bail!("container name cannot be empty");
            }
            let removed = client
                .delete(format!("/containers/{}", name_path(trimmed)))
                .flag("v", self.volumes)
                .flag("link", self.link)
                .flag("force", self.force)
                .done()
                .await
                .map_err(anyhow::Error::from);
            match removed {
                Err(error) if self.force && is_not_found(&error) => {
                    eprintln!("{error}");
                    Ok(())
                }
                Err(error) => Err(error),
                Ok(()) => outln!("{name}"),
            }
        })
        .await
    }
}
