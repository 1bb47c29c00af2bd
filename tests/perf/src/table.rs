//! Wall times of whole commands, interleaved, as medians and ratios.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cost;
use crate::peers::Bench;

/// One competitor: a name, its commands one after the other, its times in milliseconds.
struct Row {
    name: &'static str,
    commands: Vec<Command>,
    times: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, command: Command) -> Self {
        Self::several(name, vec![command])
    }
    fn several(name: &'static str, commands: Vec<Command>) -> Self {
        Self {
            name,
            commands,
            times: Vec::new(),
        }
    }
    fn once(&mut self) -> Result<f64> {
        let start = Instant::now();
        for command in &mut self.commands {
            // Errors are not collected: a container that is only created holds on to where they go.
            let status = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()?;
            ensure!(status.success(), "{}: {status}", self.name);
        }
        Ok(cost::milliseconds(start))
    }
    fn median(&self) -> f64 {
        cost::quantile(&mut self.times.clone(), 0.5)
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
    let first = rows.first().map_or(0.0, Row::median);
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
        cost::ratio(row.name, peer.name, ratio, at_most);
    }
}

/// `run --rm busybox true` on the default bridge.
pub(crate) fn run(bench: &Bench, rounds: usize) -> Result<()> {
    let words = ["run", "--rm", "busybox", "true"];
    let mut rows = vec![
        Row::new("gantry", bench.gantry(&words)),
        Row::new(
            "docker CLI on gantryd",
            bench.docker(&bench.gantryd.host, &words),
        ),
    ];
    rows.extend(
        bench
            .dockerd
            .as_ref()
            .map(|d| Row::new("docker CLI on dockerd", bench.docker(&d.host, &words))),
    );
    let bundle = bench.bundle_dir();
    let bare = ["run", "--bundle", &bundle];
    for (name, title) in RUNTIMES {
        rows.extend(bench.runtime(name, &bare).map(|c| Row::new(title, c)));
    }
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

/// The OCI runtimes, and what they are called here.
const RUNTIMES: [(&str, &str); 3] = [
    ("runc", "bare runc"),
    ("crun", "bare crun"),
    ("gantry-oci", "bare gantry-oci"),
];

/// Creation, start and removal by bare OCI runtimes, on a bundle as `runc spec` writes it.
pub(crate) fn runtimes(bench: &Bench, rounds: usize) -> Result<()> {
    let bundle = bench.bundle_dir();
    let commands: [&[&str]; 3] = [
        &["create", "--bundle", &bundle],
        &["start"],
        &["delete", "--force"],
    ];
    let row = |(name, title)| {
        let commands = commands.iter().map(|words| bench.runtime(name, words));
        Some(Row::several(title, commands.collect::<Option<_>>()?))
    };
    let mut rows: Vec<Row> = RUNTIMES.into_iter().filter_map(row).collect();
    measure(&mut rows, rounds)?;
    print("create + start + delete of true by OCI runtimes", &rows);
    goal(&rows, "bare gantry-oci", "bare runc", 1.0);
    goal(&rows, "bare gantry-oci", "bare crun", 1.0);
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
            bench.docker(&bench.gantryd.host, &words),
        ),
    ];
    Row::new("start", bench.gantry(&start)).once()?;
    if let Some(dockerd) = &bench.dockerd {
        Row::new("start", bench.docker(&dockerd.host, &start)).once()?;
        rows.push(Row::new(
            "docker CLI on dockerd",
            bench.docker(&dockerd.host, &words),
        ));
    }
    measure(&mut rows, rounds)?;
    print("exec C true", &rows);
    goal(&rows, "gantry", "docker CLI on dockerd", 1.0 / 5.0);
    Row::new("stop", bench.gantry(&["rm", "-f", "perf"])).once()?;
    if let Some(dockerd) = &bench.dockerd {
        Row::new("stop", bench.docker(&dockerd.host, &["rm", "-f", "perf"])).once()?;
    }
    Ok(())
}
