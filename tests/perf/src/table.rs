//! Wall times of whole commands, interleaved, as medians and ratios.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::peers::Bench;

/// One competitor: a name, its command, its times in milliseconds.
struct Row {
    name: &'static str,
    command: Command,
    times: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, command: Command) -> Self {
        Self {
            name,
            command,
            times: Vec::new(),
        }
    }
    fn once(&mut self) -> Result<f64> {
        let start = Instant::now();
        let output = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
    fn min(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Runs all rows in turn, one warm-up round first.
fn measure(rows: &mut [Row], rounds: usize) -> Result<()> {
    for round in 0..=rounds {
        for row in &mut *rows {
            let time = row.once()?;
            if round > 0 {
                row.times.push(time);
            }
        }
    }
    Ok(())
}

fn print(title: &str, rows: &[Row]) {
    println!(
        "\n{title}\n  {:<28} {:>10} {:>10} {:>10}",
        "", "median ms", "min ms", "of first"
    );
    let first = rows[0].median();
    for row in rows {
        println!(
            "  {:<28} {:>10.1} {:>10.1} {:>9.2}x",
            row.name,
            row.median(),
            row.min(),
            row.median() / first
        );
    }
}

/// Prints `gantry`'s ratio to another row and whether the goal holds.
fn goal(rows: &[Row], name: &str, peer: &str, at_most: f64) {
    let find = |name: &str| rows.iter().find(|r| r.name == name);
    if let (Some(row), Some(peer)) = (find(name), find(peer)) {
        let ratio = row.median() / peer.median();
        let verdict = if ratio <= at_most { "met" } else { "MISSED" };
        println!(
            "  {} / {} = {ratio:.3}, goal {at_most:.3}: {verdict}",
            row.name, peer.name
        );
    }
}

/// `run --rm busybox true` on the default bridge.
pub(crate) fn run(bench: &Bench, rounds: usize) -> Result<()> {
    let words = ["run", "--rm", "busybox", "true"];
    let mut rows = vec![
        Row::new("gantry", bench.gantry(&words)),
        Row::new(
            "docker CLI on gantryd",
            bench.docker(&bench.gantryd, &words),
        ),
    ];
    rows.extend(
        bench
            .dockerd
            .as_ref()
            .map(|d| Row::new("docker CLI on dockerd", bench.docker(d, &words))),
    );
    rows.extend(bench.runtime("runc").map(|c| Row::new("bare runc", c)));
    rows.extend(bench.runtime("crun").map(|c| Row::new("bare crun", c)));
    rows.push(Row::new("floor", bench.floor()?));
    measure(&mut rows, rounds)?;
    print(
        "run --rm busybox true, default bridge, seccomp on (runtimes and floor: no API, no image)",
        &rows,
    );
    goal(&rows, "gantry", "docker CLI on dockerd", 1.0 / 12.0);
    goal(&rows, "gantry", "bare runc", 1.0);
    goal(&rows, "gantry", "bare crun", 1.0);
    goal(&rows, "gantry", "floor", 3.0);
    goal(
        &rows,
        "docker CLI on gantryd",
        "docker CLI on dockerd",
        1.0 / 5.0,
    );
    Ok(())
}

/// `exec C true` in a running container.
pub(crate) fn exec(bench: &Bench, rounds: usize) -> Result<()> {
    let start = ["run", "-d", "--name", "perf", "busybox", "sleep", "1000"];
    let words = ["exec", "perf", "true"];
    let mut rows = vec![
        Row::new("gantry", bench.gantry(&words)),
        Row::new(
            "docker CLI on gantryd",
            bench.docker(&bench.gantryd, &words),
        ),
    ];
    Row::new("start", bench.gantry(&start)).once()?;
    if let Some(dockerd) = &bench.dockerd {
        Row::new("start", bench.docker(dockerd, &start)).once()?;
        rows.push(Row::new(
            "docker CLI on dockerd",
            bench.docker(dockerd, &words),
        ));
    }
    measure(&mut rows, rounds)?;
    print("exec C true", &rows);
    goal(&rows, "gantry", "docker CLI on dockerd", 1.0 / 5.0);
    Row::new("stop", bench.gantry(&["rm", "-f", "perf"])).once()?;
    if let Some(dockerd) = &bench.dockerd {
        Row::new("stop", bench.docker(dockerd, &["rm", "-f", "perf"])).once()?;
    }
    Ok(())
}
