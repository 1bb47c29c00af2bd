//! Reading what a group has used.

use std::path::Path;

use super::files::{self, CgroupError};
use super::{BlkioEntry, BlkioStats, CpuStats, Group, MemoryStats, PidsStats, Stats};

/// Version 1 says this (rounded down to a page) for "no limit".
const V1_UNLIMITED: u64 = i64::MAX as u64 & !0xffff;
/// Ticks of `cpuacct.stat` a second (`USER_HZ`), in nanoseconds.
const TICK: u64 = 10_000_000;

pub(super) fn stats(group: &Group) -> Result<Stats, CgroupError> {
    match group.v2_dir() {
        Some(dir) => v2(&dir),
        None => Ok(v1(group)),
    }
}

fn v2(dir: &Path) -> Result<Stats, CgroupError> {
    // The one file every group has: tells that it is there.
    files::read(&dir.join("cgroup.procs"))?;
    let cpu = files::pairs(&dir.join("cpu.stat"));
    let us = |key: &str| get(&cpu, key) * 1000;
    Ok(Stats {
        cpu: CpuStats {
            usage: us("usage_usec"),
            user: us("user_usec"),
            kernel: us("system_usec"),
            per_cpu: Vec::new(),
            periods: get(&cpu, "nr_periods"),
            throttled_periods: get(&cpu, "nr_throttled"),
            throttled_time: us("throttled_usec"),
        },
        memory: MemoryStats {
            usage: files::number(&dir.join("memory.current")).unwrap_or(0),
            max_usage: files::number(&dir.join("memory.peak")).unwrap_or(0),
            limit: files::number(&dir.join("memory.max")).unwrap_or(u64::MAX),
            failcnt: files::field(&dir.join("memory.events"), "oom").unwrap_or(0),
            stat: files::pairs(&dir.join("memory.stat")),
        },
        pids: pids(dir),
        blkio: io_stat(&files::read(&dir.join("io.stat")).unwrap_or_default()),
    })
}

fn v1(group: &Group) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = group.dir("cpuacct") {
        let split = files::pairs(&dir.join("cpuacct.stat"));
        stats.cpu.user = get(&split, "user") * TICK;
        stats.cpu.kernel = get(&split, "system") * TICK;
        stats.cpu.per_cpu = files::read(&dir.join("cpuacct.usage_percpu"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        // What `cpuacct.usage` says, without another file to read.
        stats.cpu.usage = stats.cpu.per_cpu.iter().sum();
    }
    if let Some(dir) = group.dir("cpu") {
        let cpu = files::pairs(&dir.join("cpu.stat"));
        stats.cpu.periods = get(&cpu, "nr_periods");
        stats.cpu.throttled_periods = get(&cpu, "nr_throttled");
        stats.cpu.throttled_time = get(&cpu, "throttled_time");
    }
    if let Some(dir) = group.dir("memory") {
        let number = |name: &str| files::number(&dir.join(name));
        stats.memory = MemoryStats {
            usage: number("memory.usage_in_bytes").unwrap_or(0),
            max_usage: number("memory.max_usage_in_bytes").unwrap_or(0),
            limit: number("memory.limit_in_bytes")
                .filter(|limit| *limit < V1_UNLIMITED)
                .unwrap_or(u64::MAX),
            failcnt: number("memory.failcnt").unwrap_or(0),
            stat: files::pairs(&dir.join("memory.stat")),
        };
    }
    if let Some(dir) = group.dir("pids") {
        stats.pids = pids(&dir);
    }
    if let Some(dir) = group.dir("blkio") {
        let entries = |name: &str| blkio_lines(&files::read(&dir.join(name)).unwrap_or_default());
        stats.blkio = BlkioStats {
            service_bytes: entries("blkio.throttle.io_service_bytes_recursive"),
            serviced: entries("blkio.throttle.io_serviced_recursive"),
        };
    }
    stats
}

fn get(pairs: &[(String, u64)], key: &str) -> u64 {
    pairs.iter().find(|(k, _)| k == key).map_or(0, |(_, v)| *v)
}

fn pids(dir: &Path) -> PidsStats {
    PidsStats {
        current: files::number(&dir.join("pids.current")).unwrap_or(0),
        limit: files::number(&dir.join("pids.max")),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...` lines.
pub(super) fn io_stat(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.service_bytes, "read"),
                "wbytes" => (&mut stats.service_bytes, "write"),
                "rios" => (&mut stats.serviced, "read"),
                "wios" => (&mut stats.serviced, "write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry {
                    major,
                    minor,
                    op: op.into(),
                    value,
                });
            }
        }
    }
    stats
}

/// `8:0 Read 123` lines; the total at the end has no device and is left out.
fn blkio_lines(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = device(words.next()?)?;
            Some(BlkioEntry {
                major,
                minor,
                op: words.next()?.to_owned(),
                value: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
