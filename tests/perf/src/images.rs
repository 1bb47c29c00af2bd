//! Moving an image: pull, push, save and load by each engine's own client, beside what the same bytes cost bare tools.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::direct::{hosts, report};
use crate::peers::{Bench, Daemon, shell};
use fixture::{Image, Registry};

/// How often everything is done; medians are told.
const ROUNDS: usize = 3;
/// What a push of what the registry has may take, in seconds.
const PUSH_AGAIN: f64 = 0.05;
/// What the daemon may hold while it pulls, in MB.
const MEMORY: f64 = 100.0;

/// One engine's figures, in seconds, a value for each round.
#[derive(Default)]
struct Times {
    pull: Vec<f64>,
    change: Vec<f64>,
    push: Vec<f64>,
    again: Vec<f64>,
    save: Vec<f64>,
    load: Vec<f64>,
    /// Peak of the daemon's resident memory during pulls, in MB.
    memory: f64,
    /// Bytes over the loopback device during the pull of a one-file change, in MB.
    moved: f64,
}

/// An engine and its client.
struct Peer<'a> {
    bench: &'a Bench,
    daemon: &'a Daemon,
    dir: PathBuf,
    times: Times,
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
    for (daemon, (name, _)) in std::iter::once(&bench.gantryd)
        .chain(&bench.dockerd)
        .zip(hosts(bench))
    {
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        peers.push(Peer {
            bench,
            daemon,
            dir,
            times: Times::default(),
        });
    }
    for round in 0..ROUNDS {
        for peer in &mut peers {
            peer.round(&image, round)?;
        }
    }
    let all: Vec<Times> = peers.into_iter().map(|peer| peer.times).collect();
    show(bench, all);
    floor(&dir, &image)
}

fn show(bench: &Bench, mut all: Vec<Times>) {
    type Values = fn(&mut Times) -> &mut Vec<f64>;
    let rows: [(&str, Values, f64); 6] = [
        ("pull", |t| &mut t.pull, 1.0 / 3.0),
        ("pull of a one-file change", |t| &mut t.change, 1.0),
        ("push to an empty registry", |t| &mut t.push, 1.0 / 10.0),
        ("push of what is there", |t| &mut t.again, 1.0),
        ("save", |t| &mut t.save, 1.0 / 4.0),
        ("load", |t| &mut t.load, 1.0 / 3.0),
    ];
    for (title, values, goal) in rows {
        let medians: Vec<f64> = all.iter_mut().map(|t| median(values(t))).collect();
        report(bench, title, "s", &medians, goal);
    }
    let again = median(&mut all[0].again);
    verdict("push of what is there", again * 1e3, PUSH_AGAIN * 1e3, "ms");
    verdict("memory of the daemon while pulling", all[0].memory, MEMORY, "MB");
    for ((name, _), times) in hosts(bench).iter().zip(&all) {
        println!(
            "  {name}: {:.0} MB resident at most, {:.2} MB moved for the one-file change",
            times.memory, times.moved
        );
    }
}

fn verdict(what: &str, value: f64, at_most: f64, unit: &str) {
    let verdict = if value <= at_most { "met" } else { "MISSED" };
    println!("  {what}: {value:.1} {unit}, goal {at_most:.0}: {verdict}");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Peer<'_> {
    fn round(&mut self, image: &Image, round: usize) -> Result<()> {
        let memory = Memory::watch(self.daemon.pid())?;
        let took = self.timed(&["pull", &image.name])?;
        self.times.pull.push(took);
        self.times.memory = self.times.memory.max(memory.peak()?);
        let before = loopback_bytes()?;
        let took = self.timed(&["pull", &image.changed])?;
        self.times.change.push(took);
        self.times.moved = (loopback_bytes()? - before) as f64 / 1e6;

        let target = Registry::start(&self.dir.join(format!("target{round}")))?;
        let there = format!("{}/perf:1", target.domain());
        self.client(&["tag", &image.name, &there])?;
        let took = self.timed(&["push", &there])?;
        self.times.push.push(took);
        let took = self.timed(&["push", &there])?;
        self.times.again.push(took);
        drop(target);

        let archive = self.dir.join("saved.tar").display().to_string();
        let took = self.timed(&["save", "-o", &archive, &image.name])?;
        self.times.save.push(took);
        fs::remove_file(archive)?;
        self.client(&["rmi", "-f", &image.name, &image.changed, &there])?;

        let archive = image.archive.display().to_string();
        let took = self.timed(&["load", "-i", &archive])?;
        self.times.load.push(took);
        self.client(&["rmi", "-f", fixture::LOADED])?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        match &self.bench.dockerd {
            Some(dockerd) if std::ptr::eq(dockerd, self.daemon) => self.bench.docker(dockerd, words),
            _ => self.bench.gantry(words),
        }
    }

    fn client(&self, words: &[&str]) -> Result<()> {
        run(self.command(words))
    }

    /// Seconds of one command, with nothing left to write from what came before.
    fn timed(&self, words: &[&str]) -> Result<f64> {
        shell("sync")?;
        let begin = Instant::now();
        self.client(words)?;
        Ok(begin.elapsed().as_secs_f64())
    }
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output().context("running a client")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(())
}

/// Bytes received so far on this namespace's loopback device.
fn loopback_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
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
    step("curl of all at once", &format!("curl -sfZ {}", curl.join(" ")))?;
    step("sync of them", "sync")?;
    for tool in ["gzip", "pigz", "igzip"] {
        let line = format!("for f in {place}/*.gz; do {tool} -dc $f >/dev/null; done");
        if shell(&format!("command -v {tool} >/dev/null")).is_ok() {
            step(&format!("{tool} -d"), &line)?;
        } else {
            println!("  {tool} is not installed: left out");
        }
    }
    shell(&format!("for f in {place}/*.gz; do gzip -dk $f; done; sync"))?;
    step("sha256sum of the plain layers", &format!("sha256sum {place}/[0-9] >/dev/null"))?;
    let extract = format!("mkdir {place}/root; for f in {place}/[0-9]; do tar -C {place}/root -xf $f; done; sync");
    step("tar x of the plain layers, and sync", &extract)
}

fn step(title: &str, line: &str) -> Result<()> {
    let begin = Instant::now();
    shell(line)?;
    println!("  {title:<36} {:>8.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}
