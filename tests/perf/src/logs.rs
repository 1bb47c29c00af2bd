//! How fast the log of an ended container comes: over the API, and through the client that each engine's users have.

use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::direct::{create, hosts, remove, report, start};
use crate::http::Api;
use crate::peers::Bench;

/// Bytes of output.
const OUTPUT: usize = 50_000_000;
const ROUNDS: usize = 3;

/// `logs` of 50 MB in lines of 64 bytes, in files without a limit on both engines.
pub(crate) fn print(bench: &Bench) -> Result<()> {
    let (mut direct, mut client) = (Vec::new(), Vec::new());
    for (name, host) in hosts(bench) {
        let mut api = Api::connect(host)?;
        let line = "0123456789abcdef".repeat(4);
        let command = format!("yes {line} | head -c {OUTPUT}");
        let log = match name {
            "gantryd" => json!({ "Type": "json-file", "Config": { "max-size": "-1" } }),
            _ => json!({ "Type": "json-file" }),
        };
        let host_config = json!({ "LogConfig": log });
        let id = create(&mut api, "logs", &["sh", "-c", &command], &host_config)?;
        start(&mut api, &id)?;
        api.json("POST", &format!("/containers/{id}/wait"), &Value::Null)?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            times[0].push(over_the_api(host, &id)?);
            times[1].push(by_client(bench, name, &id)?);
        }
        let [over, by] = times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min));
        direct.push(over);
        client.push(by);
        remove(&mut api, &id)?;
    }
    let megabytes = OUTPUT / 1_000_000;
    let title = format!("logs of {megabytes} MB over the API");
    report(bench, &title, "s", &direct, 0.05);
    let title = format!("logs of {megabytes} MB by client: gantry on gantryd, docker on dockerd");
    report(bench, &title, "s", &client, 0.05);
    Ok(())
}

fn over_the_api(host: &str, id: &str) -> Result<f64> {
    let mut api = Api::connect(host)?;
    let begin = Instant::now();
    let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
    let (status, body) = api.request("GET", &path, &Value::Null)?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(
        status == 200 && body.len() > OUTPUT,
        "{status}, {} bytes",
        body.len()
    );
    Ok(seconds)
}

fn by_client(bench: &Bench, name: &str, id: &str) -> Result<f64> {
    let mut command = match (name, &bench.dockerd) {
        ("dockerd", Some(dockerd)) => bench.docker(dockerd, &["logs", id]),
        _ => bench.gantry(&["logs", id]),
    };
    let begin = Instant::now();
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
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(
        status.success() && total == OUTPUT,
        "{name}: {status}, {total} bytes"
    );
    Ok(seconds)
}
