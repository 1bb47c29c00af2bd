use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::{Client, segment};
use crate::format::units::{binary_size, human_size};
use crate::format::{Fields, Layout, print_list, put, short_id};
use crate::terminal;

/// Flags of `stats`.
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Show all containers (default shows just running)
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    containers: Vec<String>,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    more_headings: &[("Container", "CONTAINER")],
    quiet: "{{.ID}}",
    raw: "",
};
const INTERVAL: Duration = Duration::from_millis(500);

impl Stats {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let format = app
            .config()
            .format(self.format.as_deref(), "statsFormat", false);
        let clear = !self.no_stream && terminal::stdout_is_terminal();
        loop {
            let mut samples = BTreeMap::new();
            let mut gone = Ok(());
            // All at once: each answer takes until a second sample has been taken.
            let asked = self.names(client).await?.into_iter().map(|name| async {
                let sample = client
                    .get(format!("/containers/{}/stats", segment(&name)))
                    .query("stream", "0")
                    .value()
                    .await;
                (name, sample)
            });
            for (name, sample) in futures_util::future::join_all(asked).await {
                match sample {
                    Ok(sample) => drop(samples.insert(name, sample)),
                    Err(error) if self.containers.contains(&name) => gone = Err(error),
                    // It went between the list and the question.
                    Err(_) => {}
                }
            }
            if clear {
                put("\x1b[H\x1b[J")?;
            }
            let rows = samples
                .iter()
                .map(|(name, sample)| row(name, sample, !self.no_trunc))
                .collect();
            print_list(&LAYOUT, format, false, rows)?;
            gone?;
            if self.no_stream {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn names(&self, client: &Client) -> Result<Vec<String>> {
        if !self.containers.is_empty() {
            return Ok(self.containers.clone());
        }
        let list = client
            .get("/containers/json")
            .flag("all", self.all)
            .value()
            .await?;
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["Id"].as_str())
            .map(str::to_owned)
            .collect())
    }
}

fn row(name: &str, sample: &Value, truncate: bool) -> Fields {
    let id = sample["id"].as_str().unwrap_or(name);
    let memory = &sample["memory_stats"];
    let limit = memory["limit"].as_f64().unwrap_or(0.0);
    let used = memory_used(memory);
    let percent = if limit > 0.0 {
        used / limit * 100.0
    } else {
        0.0
    };
    let network = sum(
        sample["networks"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, link)| link),
        "rx_bytes",
        "tx_bytes",
    );
    let (read, written) = block_io(&sample["blkio_stats"]["io_service_bytes_recursive"]);
    Fields::default()
        .set("Container", name)
        .set("ID", if truncate { short_id(id) } else { id })
        .set(
            "Name",
            sample["name"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches('/'),
        )
        .set("CPUPerc", format!("{:.2}%", cpu_percent(sample)))
        .set(
            "MemUsage",
            format!("{} / {}", binary_size(used), binary_size(limit)),
        )
        .set("MemPerc", format!("{percent:.2}%"))
        .set(
            "NetIO",
            format!("{} / {}", human_size(network.0), human_size(network.1)),
        )
        .set(
            "BlockIO",
            format!("{} / {}", human_size(read), human_size(written)),
        )
        .set(
            "PIDs",
            sample["pids_stats"]["current"]
                .as_u64()
                .unwrap_or(0)
                .to_string(),
        )
}

/// Memory in use without the page cache that the kernel would give up: cgroup v1 and v2 call it by different names.
fn memory_used(memory: &Value) -> f64 {
    let usage = memory["usage"].as_f64().unwrap_or(0.0);
    let stats = &memory["stats"];
    let cache = stats["total_inactive_file"]
        .as_f64()
        .or_else(|| stats["inactive_file"].as_f64())
        .unwrap_or(0.0);
    if cache < usage { usage - cache } else { usage }
}

fn cpu_percent(sample: &Value) -> f64 {
    let delta = |pick: fn(&Value) -> &Value| {
        pick(&sample["cpu_stats"]).as_f64().unwrap_or(0.0)
            - pick(&sample["precpu_stats"]).as_f64().unwrap_or(0.0)
    };
    let used = delta(|stats| &stats["cpu_usage"]["total_usage"]);
    let system = delta(|stats| &stats["system_cpu_usage"]);
    let online = sample["cpu_stats"]["online_cpus"]
        .as_f64()
        .filter(|count| *count > 0.0)
        .unwrap_or(1.0);
    if used > 0.0 && system > 0.0 {
        used / system * online * 100.0
    } else {
        0.0
    }
}

fn sum<'v>(items: impl Iterator<Item = &'v Value>, first: &str, second: &str) -> (f64, f64) {
    items.fold((0.0, 0.0), |(a, b), item| {
        (
            a + item[first].as_f64().unwrap_or(0.0),
            b + item[second].as_f64().unwrap_or(0.0),
        )
    })
}

fn block_io(entries: &Value) -> (f64, f64) {
    entries
        .as_array()
        .into_iter()
        .flatten()
        .fold((0.0, 0.0), |(read, written), entry| {
            let value = entry["value"].as_f64().unwrap_or(0.0);
            match entry["op"].as_str().and_then(|op| op.chars().next()) {
                Some('r' | 'R') => (read + value, written),
                Some('w' | 'W') => (read, written + value),
                _ => (read, written),
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_are_of_the_time_between_two_samples() {
        let sample = json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        });
        assert!((cpu_percent(&sample) - 40.0).abs() < 1e-9);
        assert_eq!(
            memory_used(&json!({"usage": 100, "stats": {"inactive_file": 30}})),
            70.0
        );
        assert_eq!(
            block_io(&json!([{"op": "Read", "value": 1}, {"op": "write", "value": 2}])),
            (1.0, 2.0)
        );
    }
}
