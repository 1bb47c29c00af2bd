use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::segment;
use crate::format::put;
use crate::format::table::align_with;

/// `top`.
#[derive(Args, Debug)]
pub(crate) struct Top {
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

impl Top {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let (container, options) = self
            .command
            .split_first()
            .map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let request = app
            .client()?
            .get(format!("/containers/{}/top", segment(container)));
        let processes = request
            .maybe("ps_args", Some(options.join(" ")))
            .value()
            .await?;
        let line = |cells: &Value| {
            let cells: Vec<&str> = cells
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            format!("{}\n", cells.join("\t"))
        };
        let mut out = line(&processes["Titles"]);
        out.extend(
            processes["Processes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(line),
        );
        put(&align_with(&out, 20, 3))
    }
}
