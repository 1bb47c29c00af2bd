//! Measurements over the API itself: no client's start-up hides the engine.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::Api;
use crate::peers::{Bench, LINES};

/// Containers that are started in turn.
const IN_TURN: usize = 30;
/// Containers that are run and removed, and by how many clients.
const CHURN: usize = 100;
const CLIENTS: usize = 8;
/// Attached output: so often the lines of the image, and bytes.
const REPEATS: usize = 50;
const OUTPUT: usize = REPEATS * LINES * 65;

const LINES_FILE: &str = "/lines";

/// Both engines' hosts by name, Gantry's first.
pub(crate) fn hosts(bench: &Bench) -> Vec<(&'static str, &str)> {
    let mut hosts = vec![("gantryd", bench.gantryd.host.as_str())];
    hosts.extend(bench.dockerd.as_ref().map(|d| ("dockerd", d.host.as_str())));
    hosts
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn quantile(times: &mut [f64], of: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let last = times.len().saturating_sub(1);
    times
        .get((last as f64 * of) as usize)
        .copied()
        .unwrap_or(0.0)
}

/// Prints a row for each engine (`values` in the order of [`hosts`]), the ratio, and whether it is at most the goal.
pub(crate) fn report(bench: &Bench, title: &str, unit: &str, values: &[f64], at_most: f64) {
    println!("\n{title}");
    for ((name, _), value) in hosts(bench).iter().zip(values) {
        println!("  {name:<28} {value:>10.2} {unit}");
    }
    if let [gantry, docker] = values {
        let ratio = gantry / docker;
        let verdict = if ratio <= at_most { "met" } else { "MISSED" };
        println!("  gantryd / dockerd = {ratio:.3}, goal {at_most:.3}: {verdict}");
    }
}

pub(crate) fn create(
    api: &mut Api,
    name: &str,
    command: &[&str],
    host_config: &Value,
) -> Result<String> {
    let body = json!({ "Image": "busybox", "Cmd": command, "HostConfig": host_config });
    let made = api.json("POST", &format!("/containers/create?name={name}"), &body)?;
    Ok(made["Id"].as_str().context("no Id")?.to_owned())
}

pub(crate) fn start(api: &mut Api, id: &str) -> Result<()> {
    let path = format!("/containers/{id}/start");
    api.json("POST", &path, &Value::Null).map(drop)
}

pub(crate) fn remove(api: &mut Api, id: &str) -> Result<()> {
    let path = format!("/containers/{id}?force=1");
    api.json("DELETE", &path, &Value::Null).map(drop)
}

/// Exec create, start with its output attached to the end, and inspect for the exit code.
pub(crate) fn exec(bench: &Bench, rounds: usize) -> Result<()> {
    let hosts = hosts(bench);
    let mut times = vec![Vec::new(); hosts.len()];
    let mut apis = Vec::new();
    for (_, host) in &hosts {
        let mut api = Api::connect(host)?;
        let id = create(&mut api, "exec", &["sleep", "1000"], &Value::Null)?;
        start(&mut api, &id)?;
        apis.push((api, id));
    }
    for round in 0..=rounds {
        for (at, (api, id)) in apis.iter_mut().enumerate() {
            let begin = Instant::now();
            one_exec(api, hosts[at].1, id)?;
            if round > 0 {
                times[at].push(milliseconds(begin));
            }
        }
    }
    for (mut api, id) in apis {
        remove(&mut api, &id)?;
    }
    let medians: Vec<f64> = times.iter_mut().map(|t| quantile(t, 0.5)).collect();
    let title = "exec create + start + wait over the API, median";
    report(bench, title, "ms", &medians, 0.1);
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
    let hosts = hosts(bench);
    let mut times = vec![Vec::new(); hosts.len()];
    let mut apis = Vec::new();
    for (_, host) in &hosts {
        apis.push((Api::connect(host)?, Vec::new()));
    }
    for (at, (api, ids)) in apis.iter_mut().enumerate() {
        for number in 0..=IN_TURN {
            let begin = Instant::now();
            let name = format!("turn{number}");
            let id = create(api, &name, &["sleep", "1000"], &Value::Null)?;
            start(api, &id)?;
            ids.push(id);
            if number > 0 {
                times[at].push(milliseconds(begin));
            }
        }
    }
    for (api, ids) in &mut apis {
        for id in ids {
            remove(api, id)?;
        }
    }
    let means: Vec<f64> = times
        .iter()
        .map(|t| t.iter().sum::<f64>() / t.len() as f64)
        .collect();
    let title = format!("create + start of {IN_TURN} detached in turn over the API, each");
    report(bench, &title, "ms", &means, 0.1);
    Ok(())
}

/// Runs and removes containers by several clients at once, listing all the while on a kept connection.
pub(crate) fn churn(bench: &Bench) -> Result<()> {
    let mut walls = Vec::new();
    let mut lists = Vec::new();
    for (_, host) in hosts(bench) {
        let done = AtomicBool::new(false);
        let (wall, mut listed) = std::thread::scope(|scope| {
            let lister = scope.spawn(|| list_until(host, &done));
            let begin = Instant::now();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || run_and_remove(host, client)))
                .collect();
            let outcomes: Vec<Result<()>> = clients
                .into_iter()
                .map(|c| c.join().expect("a client does not panic"))
                .collect();
            let wall = begin.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            let listed = lister.join().expect("the lister does not panic");
            outcomes.into_iter().collect::<Result<()>>()?;
            anyhow::Ok((wall, listed?))
        })?;
        walls.push(wall);
        lists.push(quantile(&mut listed, 0.99));
    }
    let title = format!("{CHURN} run-and-remove by {CLIENTS} clients, wall");
    report(bench, &title, "s", &walls, 0.1);
    println!("  GET /containers/json meanwhile, p99 (goal 20 ms):");
    for ((name, _), p99) in hosts(bench).iter().zip(lists) {
        println!("    {name:<26} {p99:>10.2} ms");
    }
    Ok(())
}

fn run_and_remove(host: &str, client: usize) -> Result<()> {
    let (mut api, mut waiter) = (Api::connect(host)?, Api::connect(host)?);
    let host_config = json!({ "AutoRemove": true });
    for number in (client..CHURN).step_by(CLIENTS) {
        let name = format!("churn{number}");
        let id = create(&mut api, &name, &["true"], &host_config)?;
        waiter.begin("POST", &format!("/containers/{id}/wait?condition=removed"))?;
        start(&mut api, &id)?;
        let ended: Value = serde_json::from_slice(&waiter.finish()?)?;
        ensure!(ended["StatusCode"] == 0, "{name}: {ended}");
    }
    Ok(())
}

fn list_until(host: &str, done: &AtomicBool) -> Result<Vec<f64>> {
    let mut api = Api::connect(host)?;
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        api.json("GET", "/containers/json?all=1", &Value::Null)?;
        times.push(milliseconds(begin));
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(times)
}

/// Output of one container to one client.
pub(crate) fn attached(bench: &Bench) -> Result<()> {
    let mut seconds = Vec::new();
    for (_, host) in hosts(bench) {
        let mut api = Api::connect(host)?;
        let mut command = vec!["cat"];
        command.extend([LINES_FILE; REPEATS]);
        let id = create(&mut api, "output", &command, &Value::Null)?;
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
        let mut stream = Api::connect(host)?.hijack(&path, &Value::Null)?;
        let begin = Instant::now();
        start(&mut api, &id)?;
        let count = read_frames(&mut stream)?;
        seconds.push(begin.elapsed().as_secs_f64());
        ensure!(count == OUTPUT, "{count} of {OUTPUT} bytes came");
        remove(&mut api, &id)?;
    }
    let title = format!(
        "{} MB of output attached, container included",
        OUTPUT / 1_000_000
    );
    report(bench, &title, "s", &seconds, 0.1);
    for ((name, _), seconds) in hosts(bench).iter().zip(seconds) {
        println!("  {name:<28} {:>10.1} MB/s", OUTPUT as f64 / 1e6 / seconds);
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
