//! What making networks and attaching containers to them takes, over the API.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cost::{self, Cost};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::{Bench, Engine};

/// What creation and removal of a network may take together, in milliseconds.
const NETWORK: f64 = 10.0;
/// How many networks are many.
const MANY: usize = 1000;
/// What a change among many may take, as a multiple of what it takes without them.
const AMONG: f64 = 2.0;

fn make_network(api: &mut Api, name: &str) -> Result<()> {
    api.json("POST", "/networks/create", &json!({"Name": name}))
        .map(drop)
}

fn remove_network(api: &mut Api, name: &str) -> Result<()> {
    api.json("DELETE", &format!("/networks/{name}"), &Value::Null)
        .map(drop)
}

/// Makes and removes a network.
fn come_and_go(api: &mut Api) -> Result<()> {
    make_network(api, "perf-network")?;
    remove_network(api, "perf-network")
}

/// Attaches a container to a network and detaches it.
fn in_and_out(api: &mut Api, container: &str) -> Result<()> {
    let body = json!({"Container": container, "Force": false});
    api.json("POST", "/networks/perf-attach/connect", &body)?;
    api.json("POST", "/networks/perf-attach/disconnect", &body)
        .map(drop)
}

/// A running container, and a network to attach it to.
fn prepare(api: &mut Api) -> Result<String> {
    let id = create(api, "attach", &["sleep", "100000"], &Value::Null)?;
    start(api, &id)?;
    make_network(api, "perf-attach")?;
    Ok(id)
}

fn clear(api: &mut Api, container: &str) -> Result<()> {
    remove(api, container)?;
    remove_network(api, "perf-attach")
}

/// Creation and removal of a network.
pub(crate) fn networks(bench: &Bench, rounds: usize) -> Result<()> {
    let costs = interleaved(bench, rounds, |api, _| come_and_go(api))?;
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
        let id = prepare(&mut api)?;
        made.push((api, id));
    }
    let costs = interleaved(bench, rounds, |api, at| in_and_out(api, &made[at].1))?;
    for (mut api, id) in made {
        clear(&mut api, &id)?;
    }
    let lines = bench.lines(costs.iter().map(|costs| Cost::median(costs)));
    cost::report(
        "network connect + disconnect of a running container, median",
        &lines,
        0.1,
    );
    Ok(())
}

/// The same of Gantry among many other networks, beside what it costs without them. dockerd has no room for as many.
pub(crate) fn among_many(bench: &Bench, rounds: usize) -> Result<()> {
    let engines = bench.engines();
    let Some(engine) = engines.first() else {
        return Ok(());
    };
    let mut api = Api::connect(engine.host())?;
    let id = prepare(&mut api)?;
    let few = changes(engine, &mut api, &id, rounds)?;
    let others: Vec<String> = (0..MANY).map(|n| format!("perf-other-{n}")).collect();
    for name in &others {
        make_network(&mut api, name)?;
    }
    let many = changes(engine, &mut api, &id, rounds)?;
    for name in &others {
        remove_network(&mut api, name)?;
    }
    clear(&mut api, &id)?;
    let names = ["network create + rm", "network connect + disconnect"];
    for (name, (few, many)) in names.into_iter().zip(few.into_iter().zip(many)) {
        let among = format!("among {MANY}");
        let lines = [("alone".to_owned(), few), (among.clone(), many)];
        cost::print(
            &format!("{name} among {MANY} other networks, median"),
            &lines,
        );
        cost::goal(&lines, &among, "alone", |cost| cost.wall, AMONG);
    }
    Ok(())
}

/// What both changes cost, the first of each not counted.
fn changes(
    engine: &Engine<'_>,
    api: &mut Api,
    container: &str,
    rounds: usize,
) -> Result<[Cost; 2]> {
    let (mut made, mut attached) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        made.push(Cost::of(engine, || come_and_go(api))?.0);
    }
    for _ in 0..=rounds {
        attached.push(Cost::of(engine, || in_and_out(api, container))?.0);
    }
    Ok([made, attached].map(|costs| Cost::median(&costs[1..])))
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
