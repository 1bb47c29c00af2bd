//! Several clients at once, and how long the engine lets another one wait meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cost::{Cost, milliseconds, quantile, report, verdict};
use crate::direct::{create, start};
use crate::http::Api;
use crate::peers::Bench;

/// Containers that are run and removed, and by how many clients.
const CHURN: usize = 100;
const CLIENTS: usize = 8;
/// The list that comes later than all but one of a hundred may take this long, in milliseconds.
const P99: f64 = 20.0;
/// Between two lists.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs and removes containers by several clients at once, listing all the while on a kept connection.
pub(crate) fn print(bench: &Bench) -> Result<()> {
    let (mut costs, mut lists) = (Vec::new(), Vec::new());
    for engine in bench.engines() {
        let (cost, mut listed) = Cost::of(&engine, || once(engine.host()))?;
        costs.push(cost);
        lists.push((listed.len(), quantile(&mut listed, 0.99)));
    }
    let title = format!("{CHURN} run-and-remove by {CLIENTS} clients");
    report(&title, &bench.lines(costs), 0.1);
    println!("  GET /containers/json meanwhile, on a kept connection, p99");
    for (engine, (count, p99)) in bench.engines().iter().zip(lists) {
        print!("  {:<28} {p99:>10.2} ms of {count}", engine.name);
        match engine.name {
            "gantryd" => println!(", goal {P99} ms: {}", verdict(p99 <= P99)),
            _ => println!(),
        }
    }
    Ok(())
}

/// How long each list took.
fn once(host: &str) -> Result<Vec<f64>> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lister = scope.spawn(|| list_until(host, &done));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || run_and_remove(host, client)))
            .collect();
        let outcomes: Vec<Result<()>> = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect();
        done.store(true, Ordering::Relaxed);
        let listed = lister.join().expect("the lister does not panic");
        outcomes.into_iter().collect::<Result<()>>()?;
        listed
    })
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
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}
