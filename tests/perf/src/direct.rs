//! Measurements over the API itself: no client's start-up hides the engine.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::cost::{Cost, report};
use crate::http::Api;
use crate::peers::{Bench, LINES};

/// Containers that are started in turn.
const IN_TURN: usize = 30;
/// Attached output: so often the lines of the image, and bytes.
const REPEATS: usize = 50;
const OUTPUT: usize = REPEATS * LINES * 65;

const LINES_FILE: &str = "/lines";

/// Creates a container of the benchmark's image.
pub(crate) fn create(
    api: &mut Api,
    name: &str,
    command: &[&str],
    host_config: &Value,
) -> Result<String> {
    // dockerd publishes what is exposed, which clients see to.
    let published = host_config["PortBindings"].as_object();
    let exposed = published.map(|ports| ports.keys().map(|port| (port.clone(), json!({}))));
    let exposed: Map<String, Value> = exposed.into_iter().flatten().collect();
    let body = json!({
        "Image": "busybox",
        "Cmd": command,
        "ExposedPorts": exposed,
        "HostConfig": host_config,
    });
    let made = api.json("POST", &format!("/containers/create?name={name}"), &body)?;
    Ok(made["Id"].as_str().context("no Id")?.to_owned())
}

/// Starts a container.
pub(crate) fn start(api: &mut Api, id: &str) -> Result<()> {
    let path = format!("/containers/{id}/start");
    api.json("POST", &path, &Value::Null).map(drop)
}

/// Removes a container, running or not.
pub(crate) fn remove(api: &mut Api, id: &str) -> Result<()> {
    let path = format!("/containers/{id}?force=1");
    api.json("DELETE", &path, &Value::Null).map(drop)
}

/// Exec create, start with its output attached to the end, and inspect for the exit code.
pub(crate) fn exec(bench: &Bench, rounds: usize) -> Result<()> {
    let engines = bench.engines();
    let mut costs = vec![Vec::new(); engines.len()];
    let mut apis = Vec::new();
    for engine in &engines {
        let mut api = Api::connect(engine.host())?;
        let id = create(&mut api, "exec", &["sleep", "1000"], &Value::Null)?;
        start(&mut api, &id)?;
        apis.push((api, id));
    }
    for round in 0..=rounds {
        for (at, (api, id)) in apis.iter_mut().enumerate() {
            let engine = &engines[at];
            let (cost, ()) = Cost::of(engine, || one_exec(api, engine.host(), id))?;
            if round > 0 {
                costs[at].push(cost);
            }
        }
    }
    for (mut api, id) in apis {
        remove(&mut api, &id)?;
    }
    let costs = costs.iter().map(|costs| Cost::median(costs));
    let title = "exec create + start + wait over the API, median";
    report(title, &bench.lines(costs), 0.1);
    Ok(())
}

fn one_exec(api: &mut Api, host: &str, container: &str) -> Result<()> {
    let body = json!({ "Cmd": ["echo", "x"], "AttachStdout": true, "AttachStderr": true });
    let made = api.json("POST", &format!("/containers/{container}/exec"), &body)?;
    let id = made["Id"].as_str().context("no Id")?.to_owned();
    let start = json!({ "Detach": false, "Tty": false });
    let mut stream = Api::connect(host)?.hijack(&format!("/exec/{id}/start"), &start)?;
    let mut output = Vec::new();
    stream.read_to_end(&mut output)?;
    ensure!(output.ends_with(b"x\n"), "output of the exec was lost");
    let seen = api.json("GET", &format!("/exec/{id}/json"), &Value::Null)?;
    ensure!(seen["ExitCode"] == 0, "the exec failed: {seen}");
    Ok(())
}

/// Creates and starts detached containers in turn.
pub(crate) fn in_turn(bench: &Bench) -> Result<()> {
    let mut costs = Vec::new();
    for engine in bench.engines() {
        let mut api = Api::connect(engine.host())?;
        let mut ids = Vec::new();
        let mut one = |number: usize| -> Result<()> {
            let name = format!("turn{number}");
            let id = create(&mut api, &name, &["sleep", "1000"], &Value::Null)?;
            start(&mut api, &id)?;
            ids.push(id);
            Ok(())
        };
        one(0)?;
        let (cost, ()) = Cost::of(&engine, || (1..=IN_TURN).try_for_each(one))?;
        for id in ids {
            remove(&mut api, &id)?;
        }
        costs.push(cost.each(IN_TURN));
    }
    let title = format!("create + start of {IN_TURN} detached in turn over the API, each");
    report(&title, &bench.lines(costs), 0.1);
    Ok(())
}

/// Output of one container to one client.
pub(crate) fn attached(bench: &Bench) -> Result<()> {
    let mut costs = Vec::new();
    for engine in bench.engines() {
        let mut api = Api::connect(engine.host())?;
        let mut command = vec!["cat"];
        command.extend([LINES_FILE; REPEATS]);
        let id = create(&mut api, "output", &command, &Value::Null)?;
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
        let mut stream = Api::connect(engine.host())?.hijack(&path, &Value::Null)?;
        let (cost, count) = Cost::of(&engine, || {
            start(&mut api, &id)?;
            read_frames(&mut stream)
        })?;
        ensure!(count == OUTPUT, "{count} of {OUTPUT} bytes came");
        remove(&mut api, &id)?;
        costs.push(cost);
    }
    let lines = bench.lines(costs);
    let megabytes = OUTPUT as f64 / 1e6;
    let title = format!("{megabytes:.0} MB of output attached, container included");
    report(&title, &lines, 0.1);
    for (name, cost) in lines {
        println!("  {name:<28} {:>10.1} MB/s", megabytes * 1e3 / cost.wall);
    }
    Ok(())
}

/// Reads multiplexed output to its end; how many bytes it was.
fn read_frames(stream: &mut impl Read) -> Result<usize> {
    let (mut total, mut head, mut body) = (0, [0; 8], Vec::new());
    loop {
        match stream.read(&mut head[..1])? {
            0 => return Ok(total),
            _ => stream.read_exact(&mut head[1..])?,
        }
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
        total += length;
    }
}
