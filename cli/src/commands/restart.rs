use anyhow::Result;
use clap::Args;

use super::stop::StopFlags;
use crate::app::App;

/// `restart`.
#[derive(Args, Debug)]
pub(crate) struct Restart {
    #[command(flatten)]
    flags: StopFlags,
}

impl Restart {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        self.flags.send(app, "restart").await
    }
}
