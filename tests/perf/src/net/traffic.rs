//! Throughput of one TCP connection, by iperf3.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::place::{Handmade, Pair, Place};
use crate::cost::{quantile, verdict};
use crate::peers::{Bench, shell};

/// Rounds are long and tell much: so many are enough.
const MOST_ROUNDS: usize = 7;
const SECONDS: &str = "2";

/// A server that ends with its owner.
pub(super) struct Server(Child);

impl Server {
    pub(super) fn start(place: &Place) -> Result<Self> {
        let child = place
            .namespace
            .command("iperf3")
            .arg("-s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection to be measured.
pub(super) struct Row {
    name: String,
    from: Place,
    to: String,
    port: u16,
    /// Gbit/s.
    rates: Vec<f64>,
    /// Processor time of both ends for a Gbit, in milliseconds.
    costs: Vec<f64>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, from: &Place, to: &str, port: u16) -> Self {
        Self {
            name: name.into(),
            from: from.clone(),
            to: to.to_owned(),
            port,
            rates: Vec::new(),
            costs: Vec::new(),
        }
    }

    fn once(&mut self) -> Result<()> {
        let mut said = String::new();
        // A server needs a moment to start, and to be ready for the next client.
        for _ in 0..50 {
            let port = self.port.to_string();
            let output = self
                .from
                .namespace
                .command("iperf3")
                .args(["-J", "-t", SECONDS, "-p", &port, "-c", &self.to])
                .output()
                .context("package iperf3")?;
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if let Some(rate) = answer["end"]["sum_received"]["bits_per_second"].as_f64() {
                let busy = &answer["end"]["cpu_utilization_percent"];
                let of = |end: &str| busy[end].as_f64().unwrap_or(0.0);
                let percent = of("host_total") + of("remote_total");
                self.rates.push(rate / 1e9);
                self.costs.push(percent * 10.0 / (rate / 1e9));
                return Ok(());
            }
            said = answer["error"].to_string();
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("{}: {said}", self.name)
    }

    fn median(&self) -> f64 {
        quantile(&mut self.rates.clone(), 0.5)
    }

    /// What counts: other work of the machine only takes away.
    fn best(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }
}

/// Connections between containers and to published ports, beside such that are made by hand.
pub(crate) fn traffic(bench: &Bench, rounds: usize) -> Result<()> {
    ensure!(
        shell("command -v iperf3 >/dev/null").is_ok(),
        "package iperf3"
    );
    let hand = Handmade::new()?;
    let host = Place::host("127.0.0.1");
    let mut servers = vec![Server::start(&hand.pair[1])?];
    let mut rows = vec![
        Row::new("by hand", &hand.pair[0], &hand.pair[1].address, 5201),
        Row::new(
            "by hand, from outside",
            &hand.outside,
            &hand.pair[1].address,
            5201,
        ),
    ];
    let mut pairs = Vec::new();
    for (engine, port) in bench.engines().iter().zip([5401, 5402]) {
        let pair = Pair::new(engine, port)?;
        let [one, two] = &pair.places;
        servers.push(Server::start(two)?);
        let name = engine.name;
        rows.push(Row::new(name, one, &two.address, 5201));
        rows.push(Row::new(
            format!("{name}, from the host"),
            &host,
            &two.address,
            5201,
        ));
        rows.push(Row::new(
            format!("{name}, -p, loopback"),
            &host,
            "127.0.0.1",
            port,
        ));
        rows.push(Row::new(
            format!("{name}, -p, from outside"),
            &hand.outside,
            Handmade::HOST,
            port,
        ));
        pairs.push(pair);
    }
    measure("one TCP connection", &mut rows, rounds)?;
    goal(&rows, "gantryd", "by hand", 0.98);
    goal(
        &rows,
        "gantryd, -p, loopback",
        "gantryd, from the host",
        0.95,
    );
    goal(
        &rows,
        "gantryd, -p, from outside",
        "by hand, from outside",
        0.95,
    );
    Ok(())
}

/// Measures the rows in turn and prints them.
pub(super) fn measure(title: &str, rows: &mut [Row], rounds: usize) -> Result<()> {
    for _ in 0..rounds.clamp(1, MOST_ROUNDS) {
        for row in &mut *rows {
            row.once()?;
        }
    }
    println!("\n{title}: Gbit/s, and what a Gbit costs both ends");
    println!("  {:<28} {:>10} {:>10} {:>10}", "", "best", "median", "ms");
    for row in rows {
        let (best, median) = (row.best(), row.median());
        let cost = quantile(&mut row.costs.clone(), 0.5);
        println!(
            "  {:<28} {best:>10.2} {median:>10.2} {cost:>10.1}",
            row.name
        );
    }
    Ok(())
}

/// Prints the ratio of two rows, and whether it is at least the goal.
pub(super) fn goal(rows: &[Row], name: &str, peer: &str, at_least: f64) {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    if let (Some(row), Some(other)) = (find(name), find(peer)) {
        let ratio = row.best() / other.best();
        let verdict = verdict(ratio >= at_least);
        println!("  {name} / {peer} = {ratio:.3}, goal {at_least:.3} at least: {verdict}");
    }
}
