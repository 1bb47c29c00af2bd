use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::VolumeCreateRequest;
use serde_json::Value;

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::units::human_size;
use crate::format::{Fields, Layout, outln, print_list};
use crate::opts::values::{Filter, filters_json, key_values, parse_filter, parse_label};

/// Flags of `volume create`.
#[derive(Args, Debug)]
pub(crate) struct VolumeCreate {
    /// Specify volume driver name (default "local")
    #[arg(long, short, value_name = "string")]
    pub(crate) driver: Option<String>,
    /// Set metadata for a volume
    #[arg(long, value_name = "list", value_parser = parse_label)]
    pub(crate) label: Vec<String>,
    /// Set driver specific options
    #[arg(long, short, value_name = "map")]
    pub(crate) opt: Vec<String>,
    name: Option<String>,
    /// Specify volume name
    #[arg(long = "name", hide = true)]
    name_flag: Option<String>,
}

impl VolumeCreate {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.name.is_some() && self.name_flag.is_some() {
            bail!(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            );
        }
        let body = VolumeCreateRequest {
            name: self.name.or(self.name_flag).unwrap_or_default(),
            driver: self.driver.unwrap_or_else(|| "local".into()),
            driver_opts: Some(key_values(&self.opt)),
            labels: Some(key_values(&self.label)),
        };
        let created = app
            .client()?
            .post("/volumes/create")
            .json(&body)?
            .value()
            .await?;
        outln!("{}", created["Name"].as_str().unwrap_or_default())
    }
}

/// Flags of `volume ls`.
#[derive(Args, Debug)]
pub(crate) struct VolumeLs {
    /// Display only cluster volumes, and use cluster volume list formatting
    #[arg(long)]
    pub(crate) cluster: bool,
    /// Provide filter values (e.g. "dangling=true")
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Only display volume names
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")],
    more_headings: &[
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
    quiet: "{{.Name}}",
    raw: "name: {{.Name}}\ndriver: {{.Driver}}\n",
};

impl VolumeLs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.cluster {
            bail!("cluster volumes are not supported");
        }
        let format = app
            .config()
            .format(self.format.as_deref(), "volumesFormat", self.quiet);
        let reply = app
            .client()?
            .get("/volumes")
            .maybe("filters", Some(filters_json(&self.filter)))
            .value()
            .await?;
        let mut volumes: Vec<&Value> = reply["Volumes"].as_array().into_iter().flatten().collect();
        volumes.sort_by_key(|volume| volume["Name"].as_str().unwrap_or_default());
        print_list(
            &LAYOUT,
            format,
            self.quiet,
            volumes.into_iter().map(row).collect(),
        )
    }
}

fn row(volume: &Value) -> Fields {
    let text = |name: &str| volume[name].as_str().unwrap_or_default();
    let usage = &volume["UsageData"];
    let links = usage["RefCount"]
        .as_i64()
        .map_or_else(|| "N/A".into(), |links| links.to_string());
    let size = usage["Size"]
        .as_f64()
        .filter(|size| *size >= 0.0)
        .map_or_else(|| "N/A".into(), human_size);
    Fields::default()
        .set("Name", text("Name"))
        .set("Driver", text("Driver"))
        .set("Scope", text("Scope"))
        .set("Mountpoint", text("Mountpoint"))
        .set("Links", links)
        .set("Size", size)
        .set("Availability", "N/A")
        .set("Group", "N/A")
        .set("Status", "N/A")
        .labels(&volume["Labels"])
}

/// Flags of `volume rm`.
#[derive(Args, Debug)]
pub(crate) struct VolumeRm {
    /// Force the removal of one or more volumes
    #[arg(long, short)]
    pub(crate) force: bool,
    #[arg(required = true)]
    volumes: Vec<String>,
}

impl VolumeRm {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.volumes, async |name| {
            client
                .delete(format!("/volumes/{}", segment(&name)))
                .flag("force", self.force)
                .done()
                .await?;
            outln!("{name}")
        })
        .await
    }
}
