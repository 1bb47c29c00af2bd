use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::format::time::{ago, seconds};
use crate::format::units::{human_size, human_size_4};
use crate::format::{Fields, Layout, ellipsis, outln, plain_table, print_list, put, short_id};

/// Flags of `system df`.
#[derive(Args, Debug)]
pub(crate) struct SystemDf {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show detailed information on space usage
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    more_headings: &[],
    quiet: "{{.Type}}",
    raw: "",
};

impl SystemDf {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let usage = app.client()?.get("/system/df").value().await?;
        let format = self.format.as_deref().unwrap_or_default();
        if self.verbose && format.is_empty() {
            return verbose(&usage);
        }
        if self.verbose && format == "json" {
            return outln!("{usage}");
        }
        print_list(&LAYOUT, format, false, summary(&usage))
    }
}

fn list<'v>(usage: &'v Value, name: &str) -> &'v [Value] {
    usage[name]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn bytes(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .filter(|size| *size > 0.0)
        .unwrap_or(0.0)
}

fn summary(usage: &Value) -> Vec<Fields> {
    vec![
        images(usage),
        containers(usage),
        volumes(usage),
        cache(usage),
    ]
}

fn images(usage: &Value) -> Fields {
    let images = list(usage, "Images");
    let in_use = |image: &&Value| image["Containers"].as_i64().unwrap_or(0) > 0;
    let known = |image: &&Value| {
        [&image["Size"], &image["SharedSize"]]
            .iter()
            .all(|size| size.as_i64() != Some(-1))
    };
    let own = |image: &Value| bytes(image, "Size") - bytes(image, "SharedSize");
    let used: f64 = images.iter().filter(in_use).filter(known).map(own).sum();
    let layers = bytes(usage, "LayersSize");
    line(
        "Images",
        images.len(),
        images.iter().filter(in_use).count(),
        layers,
        layers - used,
    )
}

fn containers(usage: &Value) -> Fields {
    let containers = list(usage, "Containers");
    let running = |container: &&Value| {
        matches!(
            container["State"].as_str(),
            Some("running" | "paused" | "restarting")
        )
    };
    let size = |container: &Value| bytes(container, "SizeRw");
    let all: f64 = containers.iter().map(size).sum();
    let idle: f64 = containers
        .iter()
        .filter(|container| !running(container))
        .map(size)
        .sum();
    line(
        "Containers",
        containers.len(),
        containers.iter().filter(running).count(),
        all,
        idle,
    )
}

fn volumes(usage: &Value) -> Fields {
    let volumes = list(usage, "Volumes");
    let referenced = |volume: &&Value| volume["UsageData"]["RefCount"].as_i64().unwrap_or(0) > 0;
    let size = |volume: &Value| bytes(&volume["UsageData"], "Size");
    let all: f64 = volumes.iter().map(size).sum();
    let idle: f64 = volumes
        .iter()
        .filter(|volume| !referenced(volume))
        .map(size)
        .sum();
    line(
        "Local Volumes",
        volumes.len(),
        volumes.iter().filter(referenced).count(),
        all,
        idle,
    )
}

fn cache(usage: &Value) -> Fields {
    let records = list(usage, "BuildCache");
    let in_use = |record: &&Value| record["InUse"] == true;
    let own = || records.iter().filter(|record| record["Shared"] != true);
    let all: f64 = own().map(|record| bytes(record, "Size")).sum();
    let idle: f64 = own()
        .filter(|record| !in_use(record))
        .map(|record| bytes(record, "Size"))
        .sum();
    line(
        "Build Cache",
        records.len(),
        records.iter().filter(in_use).count(),
        all,
        idle,
    )
}

fn line(kind: &str, total: usize, active: usize, size: f64, reclaimable: f64) -> Fields {
    let share = if size > 0.0 && kind != "Build Cache" {
        format!(" ({}%)", (reclaimable * 100.0 / size) as i64)
    } else {
        String::new()
    };
    Fields::default()
        .set("Type", kind)
        .set("TotalCount", total.to_string())
        .set("Active", active.to_string())
        .set("Size", human_size_4(size))
        .set(
            "Reclaimable",
            format!("{}{share}", human_size_4(reclaimable)),
        )
}

fn verbose(usage: &Value) -> Result<()> {
    let table = |headings: &[&str], kind: &str, row: fn(&Value) -> Vec<String>| {
        put(&plain_table(headings, list(usage, kind).iter().map(row)))
    };
    put("Images space usage:\n\n")?;
    let headings = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ];
    table(&headings, "Images", image_row)?;
    put("\nContainers space usage:\n\n")?;
    let headings = [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "LOCAL VOLUMES",
        "SIZE",
        "CREATED",
        "STATUS",
        "NAMES",
    ];
    table(&headings, "Containers", container_row)?;
    put("\nLocal Volumes space usage:\n\n")?;
    table(&["VOLUME NAME", "LINKS", "SIZE"], "Volumes", volume_row)?;
    let cache: f64 = list(usage, "BuildCache")
        .iter()
        .map(|record| bytes(record, "Size"))
        .sum();
    put(&format!("\nBuild cache usage: {}\n\n", human_size(cache)))?;
    table(
        &[
            "CACHE ID",
            "CACHE TYPE",
            "SIZE",
            "CREATED",
            "LAST USED",
            "USAGE",
            "SHARED",
        ],
        "BuildCache",
        cache_row,
    )
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or(0)
}

/// What the daemon has counted; it says -1 where it has not.
fn known(count: f64, shown: String) -> String {
    if count < 0.0 { "N/A".into() } else { shown }
}

fn image_row(image: &Value) -> Vec<String> {
    let count = |name: &str| image[name].as_f64().unwrap_or(-1.0);
    let (shared, containers) = (count("SharedSize"), count("Containers"));
    let name = image["RepoTags"][0].as_str().unwrap_or("<none>:<none>");
    let (name, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
    vec![
        name.to_owned(),
        tag.to_owned(),
        short_id(&text(image, "Id")).to_owned(),
        ago(number(image, "Created")),
        human_size(bytes(image, "Size")),
        known(shared, human_size_4(shared)),
        known(shared, human_size_4(bytes(image, "Size") - shared)),
        known(containers, containers.to_string()),
    ]
}

fn container_row(container: &Value) -> Vec<String> {
    let local = list(container, "Mounts")
        .iter()
        .filter(|mount| mount["Driver"] == "local")
        .count();
    let name = container["Names"][0].as_str().unwrap_or_default();
    vec![
        short_id(&text(container, "Id")).to_owned(),
        super::ps::image(container, true),
        format!("{:?}", ellipsis(&text(container, "Command"), 20)),
        local.to_string(),
        human_size(bytes(container, "SizeRw")),
        ago(number(container, "Created")),
        text(container, "Status"),
        name.trim_start_matches('/').to_owned(),
    ]
}

fn volume_row(volume: &Value) -> Vec<String> {
    let data = &volume["UsageData"];
    vec![
        text(volume, "Name"),
        number(data, "RefCount").to_string(),
        human_size(bytes(data, "Size")),
    ]
}

/// How long ago a moment was, if there was one.
fn since(record: &Value, name: &str) -> String {
    seconds(&text(record, name)).map(ago).unwrap_or_default()
}

fn cache_row(record: &Value) -> Vec<String> {
    vec![
        short_id(&text(record, "ID")).to_owned(),
        text(record, "Type"),
        human_size(bytes(record, "Size")),
        since(record, "CreatedAt"),
        since(record, "LastUsedAt"),
        number(record, "UsageCount").to_string(),
        (record["Shared"] == true).to_string(),
    ]
}
