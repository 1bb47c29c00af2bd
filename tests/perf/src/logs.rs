//! How fast the log of an ended container comes: over the API, through the docker client, and through `gantry`.

use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::canned;
use crate::cost::{self, Cost, Line, report};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::{Bench, Engine};

/// Bytes of output.
const OUTPUT: usize = 50_000_000;
const ROUNDS: usize = 3;
const GOAL: f64 = 0.05;

/// `logs` of 50 MB in lines of 64 bytes, in files without a limit on both engines.
pub(crate) fn print(bench: &Bench) -> Result<()> {
    let (mut direct, mut clients) = (Vec::new(), Vec::new());
    for engine in bench.engines() {
        let mut api = Api::connect(engine.host())?;
        let id = write(&engine, &mut api)?;
        direct.push(least(&engine, || over_the_api(&engine, &id).map(drop))?);
        if engine.name == "gantryd" {
            let cost = least(&engine, || drain(bench.gantry(&["logs", &id])))?;
            clients.push(("gantry on gantryd".into(), cost));
        }
        let cost = least(&engine, || {
            drain(bench.docker(engine.host(), &["logs", &id]))
        })?;
        clients.push((format!("docker on {}", engine.name), cost));
        if engine.name == "gantryd" {
            clients.push(floor(bench, &engine, &mut api, &id)?);
        }
        remove(&mut api, &id)?;
    }
    let megabytes = OUTPUT / 1_000_000;
    let title = format!("logs of {megabytes} MB over the API");
    report(&title, &bench.lines(direct), GOAL);
    let title = format!("logs of {megabytes} MB by clients");
    cost::print(&title, &clients);
    for client in ["gantry on gantryd", "docker on gantryd"] {
        cost::goal(&clients, client, "docker on dockerd", |c| c.wall, GOAL);
    }
    Ok(())
}

const FLOOR: &str = "docker on answers made before";

/// Has a container write its output; its ID.
fn write(engine: &Engine<'_>, api: &mut Api) -> Result<String> {
    let line = "0123456789abcdef".repeat(4);
    let command = format!("yes {line} | head -c {OUTPUT}");
    let log = match engine.name {
        "gantryd" => json!({ "Type": "json-file", "Config": { "max-size": "-1" } }),
        _ => json!({ "Type": "json-file" }),
    };
    let host_config = json!({ "LogConfig": log });
    let id = create(api, "logs", &["sh", "-c", &command], &host_config)?;
    start(api, &id)?;
    api.json("POST", &format!("/containers/{id}/wait"), &Value::Null)?;
    Ok(id)
}

fn least(engine: &Engine<'_>, mut work: impl FnMut() -> Result<()>) -> Result<Cost> {
    let costs = (0..ROUNDS).map(|_| Ok(Cost::of(engine, &mut work)?.0));
    Ok(Cost::least(&costs.collect::<Result<Vec<_>>>()?))
}

fn over_the_api(engine: &Engine<'_>, id: &str) -> Result<Vec<u8>> {
    let mut api = Api::connect(engine.host())?;
    let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
    let (status, body) = api.request("GET", &path, &Value::Null)?;
    ensure!(
        status == 200 && body.len() > OUTPUT,
        "{status}, {} bytes",
        body.len()
    );
    Ok(body)
}

/// The docker client on a server that does nothing but write, a frame for each line as dockerd does.
fn floor(bench: &Bench, engine: &Engine<'_>, api: &mut Api, id: &str) -> Result<Line> {
    let container = format!("/containers/{id}");
    let (_, shown) = api.request("GET", &format!("{container}/json"), &Value::Null)?;
    let answers = canned::Answers::from([
        (format!("{container}/json"), shown),
        (format!("{container}/logs"), over_the_api(engine, id)?),
    ]);
    let host = canned::serve(bench.dir(), answers)?;
    let cost = least(engine, || drain(bench.docker(&host, &["logs", id])))?;
    Ok((FLOOR.into(), cost))
}

/// Reads what a client prints.
fn drain(mut command: Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = child.stdout.take().context("it was piped")?;
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match out.read(&mut buffer)? {
            0 => break,
            read => total += read,
        }
    }
    let status = child.wait()?;
    ensure!(
        status.success() && total == OUTPUT,
        "{status}, {total} bytes"
    );
    Ok(())
}
