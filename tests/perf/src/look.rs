//! Looking into containers: copying a tree of many files, and what statistics cost the daemon.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cost::{self, Cost, Line};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::{Bench, Engine};

/// The tree: so many files of so many bytes, 124 MB in all.
const FILES: usize = 8000;
const SIZE: usize = 15_500;
/// How often it is copied each way; the best counts, because disks have moods.
const COPIES: usize = 3;
/// Containers that are asked for their statistics, and how often each: dockerd lets each wait for a second.
const CONTAINERS: usize = 50;
const ASKED: [usize; 2] = [20, 1];

/// Copies a tree into a running container and out again, by the engines' own clients and by the docker client.
pub(crate) fn copy(bench: &Bench) -> Result<()> {
    let tree = bench.dir().join("tree");
    make_tree(&tree)?;
    let (mut ins, mut outs, mut containers) = (Vec::new(), Vec::new(), Vec::new());
    for engine in bench.engines() {
        let mut api = Api::connect(engine.host())?;
        let id = create(&mut api, "copy", &["sleep", "1000"], &Value::Null)?;
        start(&mut api, &id)?;
        let mut clients = vec!["docker"];
        if engine.name == "gantryd" {
            clients.insert(0, "gantry");
        }
        for client in clients {
            let (inside, out) = both_ways(bench, &engine, client, &tree)?;
            let name = format!("{client} on {}", engine.name);
            ins.push((name.clone(), inside));
            outs.push((name, out));
        }
        containers.push((api, id));
    }
    for (mut api, id) in containers {
        remove(&mut api, &id)?;
    }
    fs::remove_dir_all(tree)?;
    compare("in", &ins);
    compare("out", &outs);
    Ok(())
}

fn compare(way: &str, lines: &[Line]) {
    cost::print(&format!("cp of 124 MB in {FILES} files, {way}"), lines);
    for client in ["gantry on gantryd", "docker on gantryd"] {
        cost::goal(lines, client, "docker on dockerd", |c| c.wall, 0.5);
    }
}

fn both_ways(
    bench: &Bench,
    engine: &Engine<'_>,
    client: &str,
    tree: &Path,
) -> Result<(Cost, Cost)> {
    let tree = tree.display().to_string();
    let copy = |from: &str, to: &str| {
        let words = ["cp", "-q", from, to];
        let command = match client {
            "gantry" => bench.gantry(&words),
            _ => bench.docker(engine.host(), &words),
        };
        Cost::of(engine, || run(command)).map(|(cost, ())| cost)
    };
    let (mut ins, mut outs) = (Vec::new(), Vec::new());
    for round in 0..COPIES {
        // Nothing is deleted in between: ext4 searches long for inodes that were not in use a moment ago.
        let name = format!("{client}-{}-{round}", engine.name);
        let (inside, out) = (format!("copy:/{name}"), bench.dir().join(name));
        ins.push(copy(&tree, &inside)?);
        outs.push(copy(&inside, &out.display().to_string())?);
    }
    Ok((Cost::least(&ins), Cost::least(&outs)))
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output().context("cp")?;
    ensure!(
        output.status.success(),
        "cp: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
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

/// What one-shot statistics of many containers cost.
pub(crate) fn stats(bench: &Bench) -> Result<()> {
    let mut costs = Vec::new();
    for (engine, asked) in bench.engines().into_iter().zip(ASKED) {
        let mut api = Api::connect(engine.host())?;
        let mut ids = Vec::new();
        for number in 0..CONTAINERS {
            let name = format!("stats{number}");
            let id = create(&mut api, &name, &["sleep", "1000"], &Value::Null)?;
            start(&mut api, &id)?;
            ids.push(id);
        }
        let (cost, ()) = Cost::of(&engine, || {
            (0..asked).try_for_each(|_| ids.iter().try_for_each(|id| one_shot(&mut api, id)))
        })?;
        costs.push(cost.each(asked));
        for id in ids {
            remove(&mut api, &id)?;
        }
    }
    let lines = bench.lines(costs);
    let title = format!("one-shot stats of {CONTAINERS} containers (processor time counts)");
    cost::print(&title, &lines);
    cost::goal(&lines, "gantryd", "dockerd", |c| c.processor, 0.1);
    Ok(())
}

fn one_shot(api: &mut Api, id: &str) -> Result<()> {
    let path = format!("/containers/{id}/stats?stream=0&one-shot=1");
    let stats = api.json("GET", &path, &Value::Null)?;
    let used = stats["memory_stats"]["usage"].as_u64();
    ensure!(used.is_some_and(|used| used > 0), "no statistics: {stats}");
    Ok(())
}
