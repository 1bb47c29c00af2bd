use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::{DriverState, DriverStatus};

use super::inspect::print;
use crate::app::App;
use crate::client::segment;
use crate::format::{Fields, Layout, ellipsis, print_list};
use crate::progress::{Target, show};

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
        ("Default", "DEFAULT"),
        ("State", "STATE"),
        ("Reason", "REASON"),
    ],
    more_headings: &[
        ("Path", "PATH"),
        ("Protocol", "PROTOCOL"),
        ("Generation", "GENERATION"),
        ("Capabilities", "CAPABILITIES"),
    ],
    quiet: "{{.Kind}}/{{.Name}}",
    raw: "",
};
/// A reason longer than this is cut in the table.
const REASON: usize = 60;

impl DriverLs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let drivers: Vec<DriverStatus> = app.client()?.get("/gantry/drivers").fetch().await?;
        let rows = drivers
            .into_iter()
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

fn row(driver: DriverStatus, truncate: bool) -> Fields {
    let state = match driver.state {
        DriverState::Ready => "ready",
        DriverState::Idle => "idle",
        DriverState::Degraded => "degraded",
        DriverState::Faulted => "faulted",
        DriverState::Refused => "refused",
    };
    let reason = if truncate {
        ellipsis(&driver.reason, REASON)
    } else {
        driver.reason
    };
    Fields::default()
        .set("Kind", driver.kind)
        .set("Name", driver.name)
        .set("Version", driver.version)
        .set("Isolation", driver.isolation)
        .set("Default", if driver.default { "yes" } else { "" })
        .set("State", state)
        .set("Reason", reason)
        .set("Path", driver.path)
        .set("Protocol", driver.protocol.to_string())
        .set("Generation", driver.generation.to_string())
        .set("Capabilities", driver.capabilities.join(","))
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

/// Flags of `driver migrate`.
#[derive(Args, Debug)]
pub(crate) struct DriverMigrate {
    /// Storage driver to move from; every other than the default when not given
    #[arg(
        long,
        value_name = "string",
        default_value = "",
        hide_default_value = true
    )]
    from: String,
    /// Storage driver to move to, which must be the default
    #[arg(
        long,
        value_name = "string",
        default_value = "",
        hide_default_value = true
    )]
    to: String,
    /// Only print what would be moved
    #[arg(long)]
    dry_run: bool,
}

impl DriverMigrate {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let request = gantry_wire::driver::DriverMigrate {
            from: self.from,
            to: self.to,
            dry_run: self.dry_run,
        };
        let post = app.client()?.post("/gantry/drivers/storage/migrate");
        show(post.json(&request)?.send().await?, Target::Stdout).await
    }
}
