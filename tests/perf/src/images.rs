//! Moving an image: pull, push, save and load by each engine's own client, beside what the same bytes cost bare tools.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cost::{self, Cost, milliseconds, verdict};
use crate::peers::{Bench, Daemon, Engine, shell};
use fixture::{Image, Registry};

/// How often everything is done; medians are told.
const ROUNDS: usize = 3;
/// What a push of what the registry has may take, in milliseconds.
const PUSH_AGAIN: f64 = 50.0;
/// What the daemon may hold while it pulls, in MB.
const MEMORY: f64 = 100.0;

/// What one engine took, once a round.
#[derive(Default)]
struct Costs {
    pull: Vec<Cost>,
    change: Vec<Cost>,
    push: Vec<Cost>,
    again: Vec<Cost>,
    save: Vec<Cost>,
    load: Vec<Cost>,
    /// Peak of the daemon's resident memory during pulls, in MB.
    memory: f64,
    /// Bytes over the loopback device during the pull of a one-file change, in MB.
    moved: f64,
}

/// An engine and its client. Each round has daemons on roots of their own, which stay until the end: ext4 searches long
/// for an inode after many were deleted, which looks like a slow engine.
struct Peer<'a> {
    bench: &'a Bench,
    name: &'static str,
    dir: PathBuf,
    costs: Costs,
}

/// Prints how the engines compare, and the floor.
pub(crate) fn print(bench: &Bench) -> Result<()> {
    let dir = bench.dir().join("images");
    fs::create_dir(&dir)?;
    let source = Registry::start(&dir.join("source"))?;
    let image = Image::make(&dir, &source)?;
    println!(
        "\nan image of {} layers, {:.0} MB unpacked, {:.0} MB in the registry",
        image.layers.len(),
        image.plain_bytes()? as f64 / 1e6,
        image.blob_bytes as f64 / 1e6
    );
    let mut peers = Vec::new();
    for engine in bench.engines() {
        let dir = dir.join(engine.name);
        fs::create_dir(&dir)?;
        peers.push(Peer {
            bench,
            name: engine.name,
            dir,
            costs: Costs::default(),
        });
    }
    for round in 0..ROUNDS {
        for peer in &mut peers {
            peer.round(&image, round)?;
        }
    }
    let all: Vec<Costs> = peers.into_iter().map(|peer| peer.costs).collect();
    show(bench, &all);
    floor(&dir, &image)
}

fn show(bench: &Bench, all: &[Costs]) {
    type Of = fn(&Costs) -> &Vec<Cost>;
    let rows: [(&str, Of, f64); 6] = [
        ("pull", |c| &c.pull, 1.0 / 3.0),
        ("pull of a one-file change", |c| &c.change, 1.0),
        ("push to an empty registry", |c| &c.push, 1.0 / 10.0),
        ("push of what is there", |c| &c.again, 1.0),
        ("save", |c| &c.save, 1.0 / 4.0),
        ("load", |c| &c.load, 1.0 / 3.0),
    ];
    for (title, of, goal) in rows {
        let lines = bench.lines(all.iter().map(|costs| Cost::median(of(costs))));
        cost::report(title, &lines, goal);
    }
    println!();
    let again = Cost::median(&all[0].again).wall;
    at_most("push of what is there", again, PUSH_AGAIN, "ms");
    let what = "memory of the daemon while pulling";
    at_most(what, all[0].memory, MEMORY, "MB");
    for (engine, costs) in bench.engines().iter().zip(all) {
        println!(
            "  {}: {:.0} MB resident at most, {:.2} MB moved for the one-file change",
            engine.name, costs.memory, costs.moved
        );
    }
}

fn at_most(what: &str, value: f64, goal: f64, unit: &str) {
    let verdict = verdict(value <= goal);
    println!("  {what}: {value:.1} {unit}, goal {goal:.0}: {verdict}");
}

impl Peer<'_> {
    fn round(&mut self, image: &Image, round: usize) -> Result<()> {
        let daemon = self.daemon(&format!("moves{round}"))?;
        let memory = Memory::watch(daemon.pid())?;
        let cost = self.cost(&daemon, &["pull", &image.name])?;
        self.costs.pull.push(cost);
        self.costs.memory = self.costs.memory.max(memory.peak()?);
        let before = loopback_bytes()?;
        let cost = self.cost(&daemon, &["pull", &image.changed])?;
        self.costs.change.push(cost);
        self.costs.moved = (loopback_bytes()? - before) as f64 / 1e6;

        let target = Registry::start(&self.dir.join(format!("target{round}")))?;
        let there = format!("{}/perf:1", target.domain());
        self.client(&daemon, &["tag", &image.name, &there])?;
        let cost = self.cost(&daemon, &["push", &there])?;
        self.costs.push.push(cost);
        let cost = self.cost(&daemon, &["push", &there])?;
        self.costs.again.push(cost);

        let archive = self.dir.join(format!("saved{round}.tar"));
        let archive = archive.display().to_string();
        let cost = self.cost(&daemon, &["save", "-o", &archive, &image.name])?;
        self.costs.save.push(cost);
        drop(daemon);

        let daemon = self.daemon(&format!("loads{round}"))?;
        let archive = image.archive.display().to_string();
        let cost = self.cost(&daemon, &["load", "-i", &archive])?;
        self.costs.load.push(cost);
        Ok(())
    }

    /// A daemon without images. Its bridge is not needed, and another daemon's is in the way.
    fn daemon(&self, name: &str) -> Result<Daemon> {
        let program = match self.name {
            "gantryd" => self.bench.program("gantryd"),
            other => other.into(),
        };
        let config = r#"{"bridge": "none", "iptables": false}"#;
        Daemon::start_in(None, &program, &self.dir.join(name), config)
    }

    fn client(&self, daemon: &Daemon, words: &[&str]) -> Result<()> {
        let program = match self.name {
            "gantryd" => self.bench.program("gantry"),
            _ => "docker".into(),
        };
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &daemon.host).args(words);
        let output = command.output().context("running a client")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command:?}: {error}");
        Ok(())
    }

    /// What one command takes, with nothing left to write from what came before.
    fn cost(&self, daemon: &Daemon, words: &[&str]) -> Result<Cost> {
        shell("sync")?;
        let engine = Engine {
            name: self.name,
            daemon,
        };
        let (cost, ()) = Cost::of(&engine, || self.client(daemon, words))?;
        Ok(cost)
    }
}

/// Bytes received so far on this namespace's loopback device.
fn loopback_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next());
    Ok(bytes.context("no loopback device")?.parse()?)
}

/// The peak of a process's resident memory since it was made.
struct Memory(PathBuf);

impl Memory {
    fn watch(pid: u32) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        // Sets the peak back to what is resident now: proc(5).
        fs::write(process.join("clear_refs"), "5")?;
        Ok(Self(process))
    }

    fn peak(&self) -> Result<f64> {
        let status = fs::read_to_string(self.0.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.context("no VmHWM")?.parse::<f64>()? / 1e3)
    }
}

/// What the same bytes cost tools that do one thing.
fn floor(dir: &Path, image: &Image) -> Result<()> {
    let dir = dir.join("floor");
    fs::create_dir(&dir)?;
    let place = dir.display();
    println!("\nfloor: the image's blobs, one tool at a time");
    let curl: Vec<String> = image
        .layers
        .iter()
        .enumerate()
        .map(|(at, url)| format!("{url} -o {place}/{at}.gz"))
        .collect();
    step(
        "curl of all at once",
        &format!("curl -sfZ {}", curl.join(" ")),
    )?;
    step("sync of them", "sync")?;
    for tool in ["gzip", "pigz", "igzip"] {
        let line = format!("for f in {place}/*.gz; do {tool} -dc $f >/dev/null; done");
        if shell(&format!("command -v {tool} >/dev/null")).is_ok() {
            step(&format!("{tool} -d"), &line)?;
        } else {
            println!("  {tool} is not installed: left out");
        }
    }
    shell(&format!(
        "for f in {place}/*.gz; do gzip -dk $f; done; sync"
    ))?;
    step(
        "sha256sum of the plain layers",
        &format!("sha256sum {place}/[0-9] >/dev/null"),
    )?;
    let extract = format!(
        "mkdir {place}/root; for f in {place}/[0-9]; do tar -C {place}/root -xf $f; done; sync"
    );
    step("tar x of the plain layers, and sync", &extract)
}

fn step(title: &str, line: &str) -> Result<()> {
    let begin = Instant::now();
    shell(line)?;
    println!("  {title:<36} {:>8.0} ms", milliseconds(begin));
    Ok(())
}
