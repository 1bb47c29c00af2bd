use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::WaitReply;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::outln;

/// `wait`.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Wait {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.containers, async |name| {
            let path = format!("/containers/{}/wait", segment(&name));
            let ended: WaitReply = client.post(path).fetch().await?;
            match ended.error {
                Some(error) => bail!(error.message),
                None => outln!("{}", ended.status_code),
            }
        })
        .await
    }
}
