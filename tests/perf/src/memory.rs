//! Memory: the idle daemon, and what one more container adds.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::peers::Bench;

/// A field of `smaps_rollup` in kB; 0 when the process is gone.
pub(crate) fn rollup(pid: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|l| {
            l.strip_prefix(field)?
                .trim_start_matches(':')
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Private memory in kB of every process below the daemon or in its containers: all that were not there before.
fn private_total(before: &[String]) -> Result<u64> {
    let mut total = 0;
    for pid in pids()? {
        if !before.contains(&pid) {
            total += rollup(&pid, "Private_Clean") + rollup(&pid, "Private_Dirty");
        }
    }
    Ok(total)
}

fn pids() -> Result<Vec<String>> {
    Ok(fs::read_dir("/proc")?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        .collect())
}

/// Prints both figures.
pub(crate) fn print(bench: &Bench, containers: usize) -> Result<()> {
    let daemon = bench.gantryd.pid().to_string();
    println!(
        "\nmemory\n  daemon with all drivers, idle: {:.1} MB resident (goal 30)",
        rollup(&daemon, "Rss") as f64 / 1e3
    );
    let before = pids()?;
    let daemon_before = rollup(&daemon, "Private_Dirty");
    for index in 0..containers {
        let name = format!("m{index}");
        let status = bench
            .gantry(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])
            .output()
            .context("run")?;
        ensure!(
            status.status.success(),
            "{}",
            String::from_utf8_lossy(&status.stderr)
        );
    }
    let added =
        private_total(&before)? + rollup(&daemon, "Private_Dirty").saturating_sub(daemon_before);
    println!(
        "  one more of {containers} containers, monitor included: {} kB private (goal 500)",
        added / containers as u64
    );
    for index in 0..containers {
        bench.gantry(&["rm", "-f", &format!("m{index}")]).output()?;
    }
    Ok(())
}
