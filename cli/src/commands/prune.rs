use std::io::BufRead;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::Client;
use crate::error::Exit;
use crate::format::put;
use crate::format::units::{human_size_4, parse_size};
use crate::opts::values::{Filter, filters_json, parse_filter};

/// Asks before something is lost; no answer means no, and that is the end.
fn confirm(force: bool, warning: &str) -> Result<()> {
    if force {
        return Ok(());
    }
    put(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") {
        Ok(())
    } else {
        Err(Exit::silent(0))
    }
}

/// What one kind's prune removed, as text, and how many bytes that was.
async fn prune(
    client: &Client,
    kind: &str,
    all: bool,
    filters: &[Filter],
) -> Result<(String, f64)> {
    let path = if kind == "build" {
        "/build/prune".to_owned()
    } else {
        format!("/{kind}s/prune")
    };
    let reply = client
        .post(path)
        .flag("all", kind == "build" && all)
        .maybe("filters", Some(filters_json(filters)))
        .value()
        .await?;
    let names = |member: &str| -> Vec<String> {
        reply[member]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let (heading, lines) = match kind {
        "container" => ("Deleted Containers:", names("ContainersDeleted")),
        "volume" => ("Deleted Volumes:", names("VolumesDeleted")),
        "network" => ("Deleted Networks:", names("NetworksDeleted")),
        "build" => ("Deleted build cache objects:", names("CachesDeleted")),
        _ => ("Deleted Images:", images(&reply["ImagesDeleted"])),
    };
    let mut text = String::new();
    if !lines.is_empty() {
        text = format!("{heading}\n{}\n\n", lines.join("\n"));
    }
    Ok((text, reply["SpaceReclaimed"].as_f64().unwrap_or(0.0)))
}

fn images(removed: &Value) -> Vec<String> {
    let line = |item: &Value| match item["Untagged"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => format!("untagged: {name}"),
        None => format!("deleted: {}", item["Deleted"].as_str().unwrap_or_default()),
    };
    removed.as_array().into_iter().flatten().map(line).collect()
}

fn reclaimed(bytes: f64) -> String {
    format!("Total reclaimed space: {}\n", human_size_4(bytes))
}

fn filter(name: &str, value: &str) -> Filter {
    Filter {
        name: name.into(),
        value: value.into(),
    }
}

/// `container prune`.
#[derive(Args, Debug)]
pub(crate) struct ContainerPrune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
}

impl ContainerPrune {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        confirm(self.force, "This will remove all stopped containers.")?;
        let (text, bytes) = prune(app.client()?, "container", false, &self.filter).await?;
        put(&format!("{text}{}", reclaimed(bytes)))
    }
}

/// `image prune`.
#[derive(Args, Debug)]
pub(crate) struct ImagePrune {
    /// Remove all unused images, not just dangling ones
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
}

impl ImagePrune {
    pub(crate) async fn execute(mut self, app: &App) -> Result<()> {
        let what = if self.all {
            "This will remove all images without at least one container associated to them."
        } else {
            "This will remove all dangling images."
        };
        confirm(self.force, what)?;
        self.filter
            .push(filter("dangling", if self.all { "false" } else { "true" }));
        let (text, bytes) = prune(app.client()?, "image", false, &self.filter).await?;
        put(&format!("{text}{}", reclaimed(bytes)))
    }
}

/// `network prune`.
#[derive(Args, Debug)]
pub(crate) struct NetworkPrune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
}

impl NetworkPrune {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        confirm(
            self.force,
            "This will remove all custom networks not used by at least one container.",
        )?;
        let (text, _) = prune(app.client()?, "network", false, &self.filter).await?;
        put(&text)
    }
}

/// `volume prune`.
#[derive(Args, Debug)]
pub(crate) struct VolumePrune {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "label=<label>")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
}

impl VolumePrune {
    pub(crate) async fn execute(mut self, app: &App) -> Result<()> {
        let what = if self.all {
            "This will remove all local volumes not used by at least one container."
        } else {
            "This will remove anonymous local volumes not used by at least one container."
        };
        confirm(self.force, what)?;
        if self.all {
            self.filter.push(filter("all", "true"));
        }
        let (text, bytes) = prune(app.client()?, "volume", false, &self.filter).await?;
        put(&format!("{text}{}", reclaimed(bytes)))
    }
}

/// `builder prune`.
#[derive(Args, Debug)]
pub(crate) struct BuilderPrune {
    /// Remove all unused build cache, not just dangling ones
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Amount of disk space to keep for cache
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    pub(crate) keep_storage: Option<i64>,
}

impl BuilderPrune {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let what = if self.all {
            "This will remove all build cache."
        } else {
            "This will remove all dangling build cache."
        };
        confirm(self.force, what)?;
        let reply = app
            .client()?
            .post("/build/prune")
            .flag("all", self.all)
            .maybe(
                "keep-storage",
                self.keep_storage.map(|bytes| bytes.to_string()),
            )
            .maybe("filters", Some(filters_json(&self.filter)))
            .value()
            .await?;
        let ids: String = reply["CachesDeleted"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|id| format!("{id}\n"))
            .collect();
        let ids = if ids.is_empty() {
            ids
        } else {
            format!("Deleted build cache objects:\n{ids}\n")
        };
        put(&format!(
            "{ids}{}",
            reclaimed(reply["SpaceReclaimed"].as_f64().unwrap_or(0.0))
                .replace("Total reclaimed space", "Total")
        ))
    }
}

/// `system prune`.
#[derive(Args, Debug)]
pub(crate) struct SystemPrune {
    /// Remove all unused images not just dangling ones
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Do not prompt for confirmation
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    pub(crate) volumes: bool,
}

impl SystemPrune {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let mut what = vec![
            "all stopped containers",
            "all networks not used by at least one container",
        ];
        if self.volumes {
            what.push("all anonymous volumes not used by at least one container");
        }
        what.push(if self.all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        });
        what.push(if self.all {
            "all build cache"
        } else {
            "unused build cache"
        });
        confirm(
            self.force,
            &format!("This will remove:\n  - {}\n", what.join("\n  - ")),
        )?;
        let client = app.client()?;
        let mut total = 0.0;
        let kinds = ["container", "network", "volume", "image", "build"];
        for kind in kinds
            .into_iter()
            .filter(|kind| self.volumes || *kind != "volume")
        {
            let mut filters = self.filter.clone();
            if kind == "image" {
                filters.push(filter("dangling", if self.all { "false" } else { "true" }));
            }
            if matches!(kind, "volume" | "network") {
                filters.retain(|filter| filter.name != "until" || kind == "network");
            }
            let (text, bytes) = prune(client, kind, self.all, &filters).await?;
            total += bytes;
            put(&text)?;
        }
        put(&reclaimed(total))
    }
}
