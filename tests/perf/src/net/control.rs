//! What making networks and attaching containers to them takes, over the API.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cost::{self, Cost};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::Bench;

/// What creation and removal of a network may take together, in milliseconds.
const NETWORK: f64 = 10.0;

/// Creation and removal of a network.
pub(crate) fn networks(bench: &Bench, rounds: usize) -> Result<()> {
    let costs = interleaved(bench, rounds, |api, _| {
        api.json("POST", "/networks/create", &json!({"Name": "perf-network"}))?;
        api.json("DELETE", "/networks/perf-network", &Value::Null)
            .map(drop)
    })?;
    let lines = bench.lines(costs.iter().map(|costs| Cost::median(costs)));
    cost::print("network create + rm over the API, median", &lines);
    if let Some((name, cost)) = lines.first() {
        let verdict = cost::verdict(cost.wall <= NETWORK);
        println!(
            "  {name}: {:.2} ms, goal {NETWORK:.0}: {verdict}",
            cost.wall
        );
    }
    Ok(())
}

/// Attaching a running container to a network, and detaching it.
pub(crate) fn attach(bench: &Bench, rounds: usize) -> Result<()> {
    let mut made = Vec::new();
    for engine in bench.engines() {
        let mut api = Api::connect(engine.host())?;
        let id = create(&mut api, "attach", &["sleep", "100000"], &Value::Null)?;
        start(&mut api, &id)?;
        api.json("POST", "/networks/create", &json!({"Name": "perf-attach"}))?;
        made.push((api, id));
    }
    let costs = interleaved(bench, rounds, |api, at| {
        let body = json!({"Container": made[at].1, "Force": false});
        api.json("POST", "/networks/perf-attach/connect", &body)?;
        api.json("POST", "/networks/perf-attach/disconnect", &body)
            .map(drop)
    })?;
    for (mut api, id) in made {
        remove(&mut api, &id)?;
        api.json("DELETE", "/networks/perf-attach", &Value::Null)?;
    }
    let lines = bench.lines(costs.iter().map(|costs| Cost::median(costs)));
    cost::report(
        "network connect + disconnect of a running container, median",
        &lines,
        0.1,
    );
    Ok(())
}

/// Does something with every engine in turn, the first round not counted.
fn interleaved(
    bench: &Bench,
    rounds: usize,
    mut once: impl FnMut(&mut Api, usize) -> Result<()>,
) -> Result<Vec<Vec<Cost>>> {
    let engines = bench.engines();
    let mut costs = vec![Vec::new(); engines.len()];
    let mut apis = Vec::new();
    for engine in &engines {
        apis.push(Api::connect(engine.host())?);
    }
    for round in 0..=rounds {
        for (at, (engine, api)) in engines.iter().zip(&mut apis).enumerate() {
            let (cost, ()) = Cost::of(engine, || once(api, at))?;
            if round > 0 {
                costs[at].push(cost);
            }
        }
    }
    Ok(costs)
}
