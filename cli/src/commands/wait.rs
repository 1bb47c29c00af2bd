use anyhow::Result;
use clap::Args;
use serde_json::Value;

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
            let ended: Value = client
                .post(format!("/containers/{}/wait", segment(&name)))
                .value()
                .await?;
            if let Some(message) = ended["Error"]["Message"]
                .as_str()
                .filter(|message| !message.is_empty())
            {
                anyhow::bail!("{message}");
            }
            outln!("{}", ended["StatusCode"].as_i64().unwrap_or(0))
        })
        .await
    }
}
