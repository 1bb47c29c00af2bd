//! The processes of a container.

use std::collections::HashSet;

use gantry_wire::TopReply;

use crate::{Engine, EngineError, Result};

impl Engine {
    /// Lists a container's processes as the host's `ps` shows them with these arguments.
    ///
    /// # Errors
    /// A container that does not run, arguments that `ps` does not take, no `ps` on the host.
    pub async fn container_top(&self, id: &str, ps_args: &str) -> Result<TopReply> {
        let container = self.find(id)?;
        let process = container.process().ok_or_else(|| {
            EngineError::conflict(format!("container {} is not running", container.id))
        })?;
        let pids: HashSet<i32> = process.pids().await?.into_iter().collect();
        let args: Vec<&str> = match ps_args.trim() {
            "" => vec!["-ef"],
            args => args.split_whitespace().collect(),
        };
        let mut wanted: Vec<String> = pids.iter().map(ToString::to_string).collect();
        wanted.sort();
        let chosen = format!("-q{}", wanted.join(","));
        let mut output = ps(args.iter().copied().chain([chosen.as_str()])).await?;
        if !output.status.success() {
            // Some options cannot be combined with a choice of processes.
            output = ps(args.iter().copied()).await?;
        }
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            // Its first line says why it failed, the others how to use it.
            let why = words.trim().lines().next().unwrap_or_default();
            return Err(EngineError::internal(format!("ps: {why}")));
        }
        let reply = select(&String::from_utf8_lossy(&output.stdout), &pids)?;
        self.tell(&container.record(), "top");
        Ok(reply)
    }
}

async fn ps<'a>(args: impl Iterator<Item = &'a str>) -> Result<std::process::Output> {
    tokio::process::Command::new("ps")
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|e| EngineError::io("error running ps", &e))
}

/// The lines of `ps` that are about `pids`.
fn select(output: &str, pids: &HashSet<i32>) -> Result<TopReply> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or("")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words.get(column).and_then(|w| w.parse::<i32>().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column, the command, has spaces of its own.
        let (cells, rest) = words.split_at(words.len().min(titles.len() - 1));
        let mut cells: Vec<String> = cells.iter().map(|w| (*w).to_owned()).collect();
        cells.push(rest.join(" "));
        processes.push(cells);
    }
    Ok(TopReply { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_keeps_its_spaces() {
        let output = "UID PID CMD\nroot 7 sleep 1 2\nroot 8 other\n";
        let reply = select(output, &HashSet::from([7])).unwrap();
        assert_eq!(reply.processes, [["root", "7", "sleep 1 2"]]);
        assert!(select("A B\n", &HashSet::new()).is_err());
    }
}
