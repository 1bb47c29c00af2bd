use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::inspect::print;
use crate::app::App;
use crate::client::segment;
use crate::format::{Fields, Layout, print_list};

/// Flags of `driver ls`.
#[derive(Args, Debug)]
pub(crate) struct DriverLs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display kinds and names
    #[arg(long, short)]
    quiet: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("Kind", "KIND"),
        ("Name", "NAME"),
        ("Version", "VERSION"),
        ("Isolation", "ISOLATION"),
        ("Status", "STATUS"),
        ("Reason", "REASON"),
    ],
    more_headings: &[("Source", "SOURCE"), ("Capabilities", "CAPABILITIES")],
    quiet: "{{.Kind}}/{{.Name}}",
    raw: "",
};
/// A reason longer than this is cut in the table.
const REASON: usize = 60;

impl DriverLs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let drivers = app.client()?.get("/gantry/drivers").value().await?;
        let rows = drivers
            .as_array()
            .into_iter()
            .flatten()
            .map(|driver| row(driver, !self.no_trunc))
            .collect();
        print_list(
            &LAYOUT,
            self.format.as_deref().unwrap_or_default(),
            self.quiet,
            rows,
        )
    }
}

fn row(driver: &Value, truncate: bool) -> Fields {
    let text = |name: &str| driver[name].as_str().unwrap_or_default();
    let capabilities = match &driver["Capabilities"] {
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let reason = text("Reason");
    let fields = ["Kind", "Name", "Version", "Source", "Isolation", "Status"]
        .into_iter()
        .fold(Fields::default(), |fields, name| {
            fields.set(name, text(name))
        });
    fields
        .set(
            "Reason",
            if truncate {
                crate::format::ellipsis(reason, REASON)
            } else {
                reason.to_owned()
            },
        )
        .set("Capabilities", capabilities)
}

/// Flags of `driver inspect`.
#[derive(Args, Debug)]
pub(crate) struct DriverInspect {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    format: Option<String>,
    #[arg(required = true, value_name = "KIND/NAME")]
    drivers: Vec<String>,
}

impl DriverInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        print(self.format.as_deref(), &self.drivers, async |driver| {
            let Some((kind, name)) = driver.split_once('/') else {
                bail!("invalid driver {driver:?}: expected KIND/NAME, as in storage/overlayfs")
            };
            Ok(client
                .get(format!(
                    "/gantry/drivers/{}/{}",
                    segment(kind),
                    segment(name)
                ))
                .value()
                .await?)
        })
        .await
    }
}
