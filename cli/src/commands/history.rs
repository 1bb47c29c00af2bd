use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::push::platform_json;
use crate::app::App;
use crate::client::name_path;
use crate::format::time::{ago, seconds_local};
use crate::format::units::human_size;
use crate::format::{Fields, Layout, ellipsis, print_list, short_id};

/// Flags of `history`.
#[derive(Args, Debug)]
pub(crate) struct History {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Print sizes and dates in human readable format (default true)
    #[arg(long, short = 'H', default_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub(crate) human: bool,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Only show image IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
    image: String,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    more_headings: &[("CreatedAt", "CREATED AT")],
    quiet: "{{.ID}}",
    raw: "",
};
/// With exact times in place of ages.
const EXACT: Layout = Layout {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    more_headings: &[("CreatedSince", "CREATED")],
    quiet: "{{.ID}}",
    raw: "",
};

impl History {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let platform = self.platform.as_deref().map(platform_json).transpose()?;
        let layers = app
            .client()?
            .get(format!("/images/{}/history", name_path(&self.image)))
            .maybe("platform", platform)
            .value()
            .await?;
        let rows = layers
            .as_array()
            .into_iter()
            .flatten()
            .map(|layer| self.row(layer))
            .collect();
        let layout = if self.human { &LAYOUT } else { &EXACT };
        print_list(
            layout,
            self.format.as_deref().unwrap_or_default(),
            self.quiet,
            rows,
        )
    }

    fn row(&self, layer: &Value) -> Fields {
        let text = |name: &str| layer[name].as_str().unwrap_or_default();
        let created = layer["Created"].as_i64().unwrap_or(0);
        let size = layer["Size"].as_f64().unwrap_or(0.0);
        let id = text("Id");
        let by = text("CreatedBy").replace('\t', " ");
        Fields::default()
            .set("ID", if self.no_trunc { id } else { short_id(id) })
            .set("CreatedAt", seconds_local(created))
            .set(
                "CreatedSince",
                if created > 0 {
                    ago(created)
                } else {
                    "N/A".into()
                },
            )
            .set(
                "CreatedBy",
                if self.no_trunc { by } else { ellipsis(&by, 45) },
            )
            .set(
                "Size",
                if self.human {
                    human_size(size)
                } else {
                    size.to_string()
                },
            )
            .set("Comment", text("Comment"))
    }
}
