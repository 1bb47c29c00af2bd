//! `events`: what a container uses, as runc prints it.

use std::path::Path;
use std::time::Duration;

use gantry_sys::cgroup::{BlkioEntry, Stats};
use serde_json::{Value, json};

use crate::cli::EventsArgs;
use crate::error::{Error, Result};
use crate::list::print;
use crate::state::{Container, Status};

/// The command.
pub(crate) fn events(root: &Path, args: &EventsArgs) -> Result<()> {
    let interval = seconds(&args.interval)?;
    loop {
        let container = match Container::open(root, &args.id) {
            // Removed meanwhile.
            Err(Error::NoContainer(_)) if !args.stats => return Ok(()),
            other => other?,
        };
        match container.status() {
            Status::Stopped if args.stats => return Err(Error::NotRunning),
            Status::Stopped => return Ok(()),
            _ => {}
        }
        let data = data(&container.group()?.stats()?);
        print(&json!({"type": "stats", "id": args.id, "data": data}).to_string())?;
        if args.stats {
            return Ok(());
        }
        std::thread::sleep(interval);
    }
}

/// `5s`, or a plain number of seconds.
fn seconds(text: &str) -> Result<Duration> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<u64>() {
        Ok(n) if n > 0 => Ok(Duration::from_secs(n)),
        _ => Err(Error::refused(format!("invalid interval {text:?}"))),
    }
}

fn data(stats: &Stats) -> Value {
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let raw: serde_json::Map<String, Value> = memory
        .stat
        .iter()
        .map(|(key, value)| (key.clone(), (*value).into()))
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage,
                "percpu": cpu.per_cpu,
                "kernel": cpu.kernel,
                "user": cpu.user,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_time,
            },
        },
        "memory": {
            "usage": {
                "limit": memory.limit,
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.failcnt,
            },
            "raw": raw,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.blkio.service_bytes),
            "ioServicedRecursive": entries(&stats.blkio.serviced),
        },
    })
}

fn entries(list: &[BlkioEntry]) -> Value {
    let one =
        |e: &BlkioEntry| json!({"major": e.major, "minor": e.minor, "op": e.op, "value": e.value});
    list.iter().map(one).collect()
}
