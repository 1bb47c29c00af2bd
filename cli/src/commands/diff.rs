use anyhow::{Result, bail};
use clap::Args;

use crate::app::App;
use crate::client::segment;
use crate::format::put;

/// `diff`.
#[derive(Args, Debug)]
pub(crate) struct Diff {
    container: String,
}

impl Diff {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.container.is_empty() {
            bail!("Container name cannot be empty");
        }
        let changes = app
            .client()?
            .get(format!("/containers/{}/changes", segment(&self.container)))
            .value()
            .await?;
        let mut out = String::new();
        for change in changes.as_array().into_iter().flatten() {
            let kind = match change["Kind"].as_i64() {
                Some(0) => 'C',
                Some(1) => 'A',
                Some(2) => 'D',
                _ => '?',
            };
            out.push_str(&format!(
                "{kind} {}\n",
                change["Path"].as_str().unwrap_or_default()
            ));
        }
        put(&out)
    }
}
