use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::format::time::ago;
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
    let images = list(usage, "Images");
    let layers = bytes(usage, "LayersSize");
    let in_use = |image: &&Value| image["Containers"].as_i64().unwrap_or(0) > 0;
    let used: f64 = images
        .iter()
        .filter(in_use)
        .filter(|image| {
            image["Size"].as_f64() != Some(-1.0) && image["SharedSize"].as_f64() != Some(-1.0)
        })
        .map(|image| bytes(image, "Size") - bytes(image, "SharedSize"))
        .sum();
    let containers = list(usage, "Containers");
    let running = |container: &&Value| {
        matches!(
            container["State"].as_str(),
            Some("running" | "paused" | "restarting")
        )
    };
    let container_size: f64 = containers
        .iter()
        .map(|container| bytes(container, "SizeRw"))
        .sum();
    let idle: f64 = containers
        .iter()
        .filter(|container| !running(container))
        .map(|container| bytes(container, "SizeRw"))
        .sum();
    let volumes = list(usage, "Volumes");
    let referenced = |volume: &&Value| volume["UsageData"]["RefCount"].as_i64().unwrap_or(0) > 0;
    let volume_size = |volume: &Value| bytes(&volume["UsageData"], "Size");
    let cache = list(usage, "BuildCache");
    let cache_size: f64 = cache
        .iter()
        .filter(|record| record["Shared"] != true)
        .map(|record| bytes(record, "Size"))
        .sum();
    let cache_idle: f64 = cache
        .iter()
        .filter(|record| record["InUse"] != true && record["Shared"] != true)
        .map(|record| bytes(record, "Size"))
        .sum();
    vec![
        line(
            "Images",
            images.len(),
            images.iter().filter(in_use).count(),
            layers,
            layers - used,
        ),
        line(
            "Containers",
            containers.len(),
            containers.iter().filter(running).count(),
            container_size,
            idle,
        ),
        line(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(referenced).count(),
            volumes.iter().map(volume_size).sum(),
            volumes
                .iter()
                .filter(|volume| !referenced(volume))
                .map(volume_size)
                .sum(),
        ),
        line(
            "Build Cache",
            cache.len(),
            cache
                .iter()
                .filter(|record| record["InUse"] == true)
                .count(),
            cache_size,
            cache_idle,
        ),
    ]
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
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let images = list(usage, "Images").iter().map(|image| {
        let tag = image["RepoTags"][0].as_str().unwrap_or("<none>:<none>");
        let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
        vec![
            name.to_owned(),
            tag.to_owned(),
            short_id(&text(image, "Id")).to_owned(),
            ago(image["Created"].as_i64().unwrap_or(0)),
            human_size(bytes(image, "Size")),
            human_size(bytes(image, "SharedSize")),
            human_size(bytes(image, "Size") - bytes(image, "SharedSize")),
            image["Containers"].as_i64().unwrap_or(0).to_string(),
        ]
    });
    put("Images space usage:\n\n")?;
    put(&plain_table(
        &[
            "REPOSITORY",
            "TAG",
            "IMAGE ID",
            "CREATED",
            "SIZE",
            "SHARED SIZE",
            "UNIQUE SIZE",
            "CONTAINERS",
        ],
        images,
    ))?;
    let containers = list(usage, "Containers").iter().map(|container| {
        let volumes = container["Mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|mount| mount["Driver"] == "local");
        vec![
            short_id(&text(container, "Id")).to_owned(),
            text(container, "Image"),
            format!("{:?}", ellipsis(&text(container, "Command"), 20)),
            volumes.count().to_string(),
            human_size(bytes(container, "SizeRw")),
            ago(container["Created"].as_i64().unwrap_or(0)),
            text(container, "Status"),
            container["Names"][0]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
        ]
    });
    put("\nContainers space usage:\n\n")?;
    put(&plain_table(
        &[
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "LOCAL VOLUMES",
            "SIZE",
            "CREATED",
            "STATUS",
            "NAMES",
        ],
        containers,
    ))?;
    let volumes = list(usage, "Volumes").iter().map(|volume| {
        let data = &volume["UsageData"];
        vec![
            text(volume, "Name"),
            data["RefCount"].as_i64().unwrap_or(0).to_string(),
            human_size(bytes(data, "Size")),
        ]
    });
    put("\nLocal Volumes space usage:\n\n")?;
    put(&plain_table(&["VOLUME NAME", "LINKS", "SIZE"], volumes))?;
    let cache: f64 = list(usage, "BuildCache")
        .iter()
        .map(|record| bytes(record, "Size"))
        .sum();
    let records = list(usage, "BuildCache").iter().map(|record| {
        vec![
            short_id(&text(record, "ID")).to_owned(),
            text(record, "Type"),
            human_size(bytes(record, "Size")),
            record["UsageCount"].as_i64().unwrap_or(0).to_string(),
            (record["Shared"] == true).to_string(),
        ]
    });
    put(&format!("\nBuild cache usage: {}\n\n", human_size(cache)))?;
    put(&plain_table(
        &["CACHE ID", "CACHE TYPE", "SIZE", "USAGE", "SHARED"],
        records,
    ))
}
