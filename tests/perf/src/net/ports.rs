//! What many published ports cost a start and the memory of those who keep them.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::cost::{self, Cost};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::memory::rollup;
use crate::peers::Bench;

/// A thousand ports, and what they may add to a start, in milliseconds.
const THOUSAND: (u16, u16) = (2000, 2999);
const ABOVE: f64 = 50.0;
/// A range of UDP ports, what a start with it may take in milliseconds, and how much memory, in kB.
const RANGE: (u16, u16) = (10_000, 20_000);
const RANGE_WALL: f64 = 1000.0;
const RANGE_MEMORY: u64 = 5000;

/// As the clients ask for `-p FIRST-LAST:FIRST-LAST/PROTOCOL`.
fn published((first, last): (u16, u16), protocol: &str) -> Value {
    let one = |port: u16| {
        (
            format!("{port}/{protocol}"),
            json!([{"HostPort": port.to_string()}]),
        )
    };
    let bindings: Map<String, Value> = (first..=last).map(one).collect();
    json!({"PortBindings": bindings})
}

/// Starts with no ports, with a thousand, and with ten thousand, by Gantry alone: dockerd starts a process for each.
pub(crate) fn ports(bench: &Bench, rounds: usize) -> Result<()> {
    let engines = bench.engines();
    let gantry = engines.first().context("Gantry's daemon")?;
    let mut api = Api::connect(gantry.host())?;
    // A daemon that had many ports before has room for them.
    let more = memory(bench, &mut api)?;
    let configs = [
        ("no ports", Value::Null),
        ("1,000 ports of TCP", published(THOUSAND, "tcp")),
        ("10,001 ports of UDP", published(RANGE, "udp")),
    ];
    let mut costs = vec![Vec::new(); configs.len()];
    for round in 0..=rounds {
        for ((_, config), costs) in configs.iter().zip(&mut costs) {
            let (cost, id) = Cost::of(gantry, || {
                let id = create(&mut api, "ports", &["sleep", "100000"], config)?;
                start(&mut api, &id).map(|()| id)
            })?;
            remove(&mut api, &id)?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let medians = costs.iter().map(|costs| Cost::median(costs));
    let names = configs.iter().map(|(name, _)| (*name).to_owned());
    let lines: Vec<_> = names.zip(medians).collect();
    cost::print(
        "create + start with published ports over the API, median",
        &lines,
    );
    let wall = |at: usize| lines.get(at).map_or(0.0, |(_, cost)| cost.wall);
    let above = wall(1) - wall(0);
    println!(
        "  1,000 ports: {above:.1} ms above none, goal {ABOVE:.0}: {}",
        cost::verdict(above <= ABOVE)
    );
    let range = wall(2);
    println!(
        "  10,001 ports: {range:.1} ms, goal {RANGE_WALL:.0}: {}",
        cost::verdict(range <= RANGE_WALL)
    );
    let verdict = cost::verdict(more <= RANGE_MEMORY);
    println!("  10,001 ports: {more} kB more in daemon and netd, goal {RANGE_MEMORY}: {verdict}");
    Ok(())
}

/// How much more a container with the range adds to the memory of daemon and netd than one without ports, in kB: the
/// private pages that were written to, as they are when the start has been answered. netd, which the container without
/// ports does not need, is counted as a whole.
fn memory(bench: &Bench, api: &mut Api) -> Result<u64> {
    let mut grown = Vec::new();
    for (name, config) in [("plain", Value::Null), ("range", published(RANGE, "udp"))] {
        let before = kept(bench)?;
        let id = create(api, name, &["sleep", "100000"], &config)?;
        start(api, &id)?;
        grown.push((kept(bench)?.saturating_sub(before), id));
    }
    for (_, id) in &grown {
        remove(api, id)?;
    }
    let [plain, range] = [0, 1].map(|at: usize| grown.get(at).map_or(0, |(kb, _)| *kb));
    Ok(range.saturating_sub(plain))
}

/// Private memory of the daemon and its netd, in kB.
fn kept(bench: &Bench) -> Result<u64> {
    let daemon = bench.gantryd.pid().to_string();
    let dir = bench.dir().display().to_string();
    let mut pids = vec![daemon];
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("gantry-netd") && line.contains(&dir) {
            pids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(pids.iter().map(|pid| rollup(pid, "Private_Dirty")).sum())
}
