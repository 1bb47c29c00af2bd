//! Looking into containers: copying a tree of many files, and what statistics cost the daemon.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::direct::{create, hosts, remove, report, start};
use crate::http::Api;
use crate::peers::Bench;

/// The tree: so many files of so many bytes, 124 MB in all.
const FILES: usize = 8000;
const SIZE: usize = 15_500;
/// How often it is copied each way; the best counts, because disks have moods.
const COPIES: usize = 3;
/// Containers that are asked for their statistics, and how often each.
const CONTAINERS: usize = 50;
const ASKED: usize = 10;
/// A clock tick of `/proc/PID/stat`, in milliseconds.
const TICK: f64 = 10.0;

/// Copies a tree into a running container and out again, by each engine's own client.
pub(crate) fn copy(bench: &Bench) -> Result<()> {
    let tree = bench.dir().join("tree");
    make_tree(&tree)?;
    let (mut ins, mut outs) = (Vec::new(), Vec::new());
    for (_, host) in hosts(bench) {
        let mut api = Api::connect(host)?;
        let id = create(&mut api, "copy", &["sleep", "1000"], &Value::Null)?;
        start(&mut api, &id)?;
        let (mut best_in, mut best_out) = (f64::INFINITY, f64::INFINITY);
        for round in 0..COPIES {
            let inside = format!("copy:/tree{round}");
            let out = bench.dir().join("out");
            let tree = tree.display().to_string();
            best_in = best_in.min(time(client(bench, host, &[&tree, &inside]))?);
            let place = out.display().to_string();
            best_out = best_out.min(time(client(bench, host, &[&inside, &place]))?);
            fs::remove_dir_all(out)?;
        }
        remove(&mut api, &id)?;
        ins.push(best_in);
        outs.push(best_out);
    }
    fs::remove_dir_all(tree)?;
    report(bench, "cp of 124 MB in 8000 files, in", "ms", &ins, 0.5);
    report(bench, "cp of 124 MB in 8000 files, out", "ms", &outs, 0.5);
    Ok(())
}

fn client(bench: &Bench, host: &str, words: &[&str]) -> Command {
    let words = [&["cp", "-q"], words].concat();
    match &bench.dockerd {
        Some(dockerd) if dockerd.host == host => bench.docker(dockerd, &words),
        _ => bench.gantry(&words),
    }
}

fn time(mut command: Command) -> Result<f64> {
    let begin = Instant::now();
    let output = command.output().context("cp")?;
    ensure!(
        output.status.success(),
        "cp: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Files of bytes that are no two alike, forty to a directory.
fn make_tree(tree: &Path) -> Result<()> {
    let mut state = 88_172_645_463_325_252_u64;
    for number in 0..FILES {
        let directory = tree.join(format!("d{}", number / 40));
        if number % 40 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let mut file = BufWriter::new(fs::File::create(directory.join(format!("f{number}")))?);
        for _ in 0..SIZE / 8 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            file.write_all(&state.to_le_bytes())?;
        }
        file.flush()?;
    }
    Ok(())
}

/// Processor time of the daemon for one-shot statistics of many containers. What dockerd has its containerd do is counted
/// as its own.
pub(crate) fn stats(bench: &Bench) -> Result<()> {
    let pids = std::iter::once(&bench.gantryd).chain(&bench.dockerd);
    let pids: Vec<u32> = pids.map(|daemon| daemon.pid()).collect();
    let mut spent = Vec::new();
    for ((_, host), pid) in hosts(bench).into_iter().zip(pids) {
        let mut api = Api::connect(host)?;
        let mut ids = Vec::new();
        for number in 0..CONTAINERS {
            let name = format!("stats{number}");
            let id = create(&mut api, &name, &["sleep", "1000"], &Value::Null)?;
            start(&mut api, &id)?;
            ids.push(id);
        }
        let before = ticks(pid)?;
        for _ in 0..ASKED {
            for id in &ids {
                let path = format!("/containers/{id}/stats?stream=0&one-shot=1");
                let stats = api.json("GET", &path, &Value::Null)?;
                let used = stats["memory_stats"]["usage"].as_u64();
                ensure!(used.is_some_and(|used| used > 0), "no statistics: {stats}");
            }
        }
        spent.push((ticks(pid)? - before) as f64 * TICK / ASKED as f64);
        for id in ids {
            remove(&mut api, &id)?;
        }
    }
    let title = "one-shot stats of 50 containers, processor time of the daemon";
    report(bench, title, "ms", &spent, 0.1);
    Ok(())
}

/// Ticks that a process and those below it have used.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("no process")?.1;
    let fields: Vec<&str> = fields.split(' ').collect();
    let mut total: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            total += ticks(child.parse()?).unwrap_or(0);
        }
    }
    Ok(total)
}
